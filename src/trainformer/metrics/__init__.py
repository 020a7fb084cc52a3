"""Scores, updated batch by batch."""
