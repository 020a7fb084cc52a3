"""Pieces of networks that backbones and methods share."""
