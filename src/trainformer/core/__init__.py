"""The vocabulary: the few types that every other part speaks in."""
