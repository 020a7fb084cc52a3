"""Smaller and faster models from bundles, and bundles for other programs; each checked against the bundle it came from."""
