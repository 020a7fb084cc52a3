"""Optimisers that PyTorch does not have as they are needed here: one file each."""
