"""Loops over runs."""
