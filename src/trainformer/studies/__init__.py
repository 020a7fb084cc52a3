"""Loops over runs: search for settings, comparison on the same test rows."""
