"""How far a window of requests is from the training data: PSI, KS and MMD."""

import math

import torch
from torch import Tensor

BINS = 10
PERMUTATIONS = 200
LEAST = 20
"""Fewer values than this say nothing; then there is no number."""


def psi(reference: Tensor, window: Tensor, bins: int = BINS) -> float:
    """Population stability index of numbers "N" and "M", in bins of equal share of the reference.

    Below 0.1 is called stable, above 0.25 another population (Siddiqi 2006). Equal edges make fewer bins.
    """
    places = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    edges = torch.unique(torch.quantile(reference.double(), places))
    counts = [torch.bincount(torch.bucketize(each.double(), edges), minlength=len(edges) + 1) for each in (reference, window)]
    return psi_of_counts(*counts)


def psi_of_counts(reference: Tensor, window: Tensor) -> float:
    """The same of counts by class; half a count is added to each, so that an empty one costs much and not infinity."""
    p, q = ((each.double() + 0.5) / (each.double() + 0.5).sum() for each in (reference, window))
    return float(((p - q) * (p / q).log()).sum())


def ks(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Kolmogorov-Smirnov's largest difference of the two distribution functions, and how likely it is by chance.

    The chance is that of the limit (Kolmogorov 1933), for samples of some tens and more.
    """
    a, b = one.double().sort().values, other.double().sort().values
    both = torch.cat([a, b])
    gap = torch.searchsorted(a, both, right=True).double() / len(a) - torch.searchsorted(b, both, right=True).double() / len(b)
    largest = float(gap.abs().max())
    x = largest * math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    if x < 0.2:  # the series needs many terms there, and the chance is 1 to nine digits
        return largest, 1.0
    series = sum((-1) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101))
    return largest, min(1.0, max(0.0, 2 * series))


def mmd(reference: Tensor, window: Tensor, seed: int = 0) -> tuple[float, float]:
    """Squared maximum mean discrepancy of vectors "N D" and "M D", unbiased, with a Gaussian kernel as wide as the median
    distance (Gretton et al. 2012, jmlr.org/papers/v13/gretton12a), and the share of random divisions that are as far apart."""
    points = torch.cat([reference, window]).double()
    squares = torch.cdist(points, points).square()
    off = squares[~torch.eye(len(points), dtype=torch.bool)]
    kernel = torch.exp(-squares / (2 * off.median().clamp_min(1e-12)))
    n = len(reference)
    found = _mmd(kernel, torch.arange(len(points)), n)
    draw = torch.Generator().manual_seed(seed)
    others = [_mmd(kernel, torch.randperm(len(points), generator=draw), n) for _ in range(PERMUTATIONS)]
    return found, (1 + sum(other >= found for other in others)) / (1 + PERMUTATIONS)


def _mmd(kernel: Tensor, order: Tensor, n: int) -> float:
    one, other = order[:n], order[n:]
    within = [(kernel[i][:, i].sum() - len(i)) / (len(i) * (len(i) - 1)) for i in (one, other)]
    return float(within[0] + within[1] - 2 * kernel[one][:, other].mean())
