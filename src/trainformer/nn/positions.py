"""How a Transformer knows where a token stands: sinusoids, rotation of queries and keys, or a bias by distance."""

import math

import torch
from torch import Tensor

BASE = 10_000.0


def sinusoids(places: Tensor, width: int) -> Tensor:
    """sin(p / 10000^(2i/D)) in the first half of the width, cos in the second: "T" -> "T D".

    Vaswani et al. 2017, arXiv:1706.03762, section 3.5; there sines and cosines alternate, which is the same but for the order.
    """
    sines = width - width // 2
    rates = torch.exp(torch.arange(sines, device=places.device) * (-2 * math.log(BASE) / width))
    angles = places[:, None].float() * rates
    return torch.cat([angles.sin(), angles[:, : width // 2].cos()], 1)


def rotation(places: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine "T K/2" of the angle by which each pair of a head's K numbers is turned at each place."""
    rates = torch.exp(torch.arange(width // 2, device=places.device) * (-2 * math.log(BASE) / width))
    angles = places[:, None].float() * rates
    return angles.cos(), angles.sin()


def rotate(states: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Pairs (i, i + K/2) of "H T K" turned by their place, so that a product of two depends on their distance alone.

    Su et al. 2021, arXiv:2104.09864.
    """
    cos, sin = (t.to(states.dtype) for t in turn)
    one, other = states.chunk(2, -1)
    return torch.cat([one * cos - other * sin, other * cos + one * sin], -1)


def buckets(distance: Tensor, count: int, most: int, causal: bool) -> Tensor:
    """The bucket of each distance (key minus query): exact while it is small, then by its logarithm up to `most`.

    Raffel et al. 2020, arXiv:1910.10683; half of the `count` buckets are for later keys, unless there are none to be seen.
    """
    found = torch.zeros_like(distance)
    if not causal:
        count //= 2
        found = (distance > 0).long() * count
    away = -distance.clamp(max=0) if causal else distance.abs()
    exact = count // 2
    grown = torch.log(away.clamp_min(1).float() / exact) / math.log(most / exact) * (count - exact)
    return found + torch.where(away < exact, away, (exact + grown.long()).clamp_max(count - 1))
