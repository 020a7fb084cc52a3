"""What can be learnt: one file a task, found by its name."""
