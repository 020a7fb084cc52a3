"""Changes to training: one file a method, found by its name."""
