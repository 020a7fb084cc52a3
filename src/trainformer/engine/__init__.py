"""The loop and its pieces."""
