"""What watches a run: one file a callback, found by its name."""
