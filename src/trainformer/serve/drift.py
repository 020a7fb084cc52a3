"""How far a window of requests is from the training data: PSI, KS and MMD."""

import math
from typing import Any

import numpy as np

from trainformer.core.arrays import Array, array

BINS = 10
PERMUTATIONS = 200
LEAST = 20
"""Fewer values than this say nothing; then there is no number."""


def psi(reference: Any, window: Any, bins: int = BINS) -> float:
    """Population stability index of numbers "N" and "M", in bins of equal share of the reference.

    Below 0.1 is called stable, above 0.25 another population (Siddiqi 2006). Equal edges make fewer bins.
    """
    one, other = (array(each).astype(np.float64) for each in (reference, window))
    edges = np.unique(np.quantile(one, np.linspace(0, 1, bins + 1)[1:-1]))
    counts = [np.bincount(np.searchsorted(edges, each), minlength=len(edges) + 1) for each in (one, other)]
    return psi_of_counts(*counts)


def psi_of_counts(reference: Any, window: Any) -> float:
    """The same of counts by class; half a count is added to each, so that an empty one costs much and not infinity."""
    p, q = ((array(each) + 0.5) / (array(each) + 0.5).sum() for each in (reference, window))
    return float(((p - q) * np.log(p / q)).sum())


def ks(one: Any, other: Any) -> tuple[float, float]:
    """Kolmogorov-Smirnov's largest difference of the two distribution functions, and how likely it is by chance.

    The chance is that of the limit (Kolmogorov 1933), for samples of some tens and more.
    """
    a, b = np.sort(array(one)), np.sort(array(other))
    both = np.concatenate([a, b])
    gap = np.searchsorted(a, both, "right") / len(a) - np.searchsorted(b, both, "right") / len(b)
    largest = float(np.abs(gap).max())
    x = largest * math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    if x < 0.2:  # the series needs many terms there, and the chance is 1 to nine digits
        return largest, 1.0
    series = sum((-1) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101))
    return largest, min(1.0, max(0.0, 2 * series))


def mmd(reference: Any, window: Any, seed: int = 0) -> tuple[float, float]:
    """Squared maximum mean discrepancy of vectors "N D" and "M D", unbiased, with a Gaussian kernel as wide as the median
    distance (Gretton et al. 2012, jmlr.org/papers/v13/gretton12a), and the share of random divisions that are as far apart."""
    points = np.concatenate([array(reference), array(window)]).astype(np.float64)
    lengths = np.square(points).sum(-1)
    squares = np.maximum(lengths[:, None] + lengths - 2 * points @ points.T, 0.0)
    off = np.sort(squares[~np.eye(len(points), dtype=bool)])
    kernel = np.exp(-squares / (2 * max(float(off[(len(off) - 1) // 2]), 1e-12)))
    n = len(reference)
    found = _mmd(kernel, np.arange(len(points)), n)
    draw = np.random.default_rng(seed)
    others = [_mmd(kernel, draw.permutation(len(points)), n) for _ in range(PERMUTATIONS)]
    return found, (1 + sum(other >= found for other in others)) / (1 + PERMUTATIONS)


def _mmd(kernel: Array, order: Array, n: int) -> float:
    one, other = order[:n], order[n:]
    within = [(kernel[i][:, i].sum() - len(i)) / (len(i) * (len(i) - 1)) for i in (one, other)]
    return float(within[0] + within[1] - 2 * kernel[one][:, other].mean())
