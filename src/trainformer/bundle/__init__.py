"""A finished model as a folder, and the one way to ask it."""

from trainformer.bundle.reading import Bundle

__all__ = ["Bundle"]
