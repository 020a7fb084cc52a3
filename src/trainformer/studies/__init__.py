"""Loops over runs: search for settings, comparison on the same test rows, proof that resuming is exact."""
