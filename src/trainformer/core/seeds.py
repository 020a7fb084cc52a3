"""Where randomness comes from: a place in the run is a number, and equal places draw equally."""

import hashlib

import torch


def seed_of(*parts: int | str) -> int:
    """One number for a place in the run (seed, step, ...): equal places, equal randomness."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest())


def generator(*parts: int | str) -> torch.Generator:
    """What draws at a place in the run, on the CPU, so that every device sees the same numbers."""
    return torch.Generator().manual_seed(seed_of(*parts))
