"""Drift by the numbers of other libraries: SciPy for KS, the formulas for PSI, scikit-learn's kernel for MMD."""

import math
from typing import Any

import pytest
import torch
from scipy import special, stats
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

from trainformer.serve import drift


def drawn(count: int, shift: float = 0.0, width: int | None = None, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count if width is None else (count, width), generator=draw, dtype=torch.float64) + shift


@pytest.mark.parametrize(
    ("one", "other", "shift"), [(50, 70, 0.0), (200, 100, 0.5), (30, 300, 2.0), (1000, 1000, 0.05), (20, 20, -1)]
)
@pytest.mark.parametrize("rounded", [False, True])
def test_ks_is_that_of_scipy(one: int, other: int, shift: float, rounded: bool) -> None:
    """The statistic to 1e-12, ties too; the chance is Kolmogorov's function of the statistic, to 1e-9."""
    a, b = drawn(one), drawn(other, shift, seed=1)
    if rounded:
        a, b = a.round(), b.round()
    statistic, p = drift.ks(a, b)
    assert statistic == pytest.approx(stats.ks_2samp(a.numpy(), b.numpy()).statistic, abs=1e-12)
    assert p == pytest.approx(special.kolmogorov(statistic * math.sqrt(one * other / (one + other))), abs=1e-9)


def test_psi_of_counts_is_its_formula() -> None:
    """(50.5, 30.5, 20.5) / 101.5 against (20.5, 40.5, 40.5) / 101.5."""
    p, q = [n / 101.5 for n in (50.5, 30.5, 20.5)], [n / 101.5 for n in (20.5, 40.5, 40.5)]
    expected = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert drift.psi_of_counts(torch.tensor([50, 30, 20]), torch.tensor([20, 40, 40])) == pytest.approx(expected, abs=1e-12)
    assert drift.psi_of_counts(torch.tensor([50, 50]), torch.tensor([5000, 5000])) == pytest.approx(0, abs=1e-12)


def test_psi_has_bins_of_equal_share() -> None:
    """1..100 in ten bins of ten; all of the window in the last bin: 9 bins of 10.5/105 against 0.5/105, one against 100.5/105."""
    reference, window = torch.arange(1.0, 101), torch.full((100,), 99.0)
    p, q = 10.5 / 105, (0.5 / 105, 100.5 / 105)
    expected = 9 * (p - q[0]) * math.log(p / q[0]) + (p - q[1]) * math.log(p / q[1])
    assert drift.psi(reference, window) == pytest.approx(expected, abs=1e-9)
    assert drift.psi(reference, reference) == pytest.approx(0, abs=1e-12)
    assert drift.psi(torch.zeros(50), torch.zeros(50)) == pytest.approx(0, abs=1e-12), "values that are all alike make one bin"


def test_mmd_is_its_formula() -> None:
    """The unbiased estimator of Gretton et al. 2012, eq. 3, by scikit-learn's kernel and plain sums."""
    x, y = drawn(40, width=5), drawn(30, 0.7, 5, seed=1)
    both: Any = torch.cat([x, y]).numpy()
    squares = euclidean_distances(both, squared=True)
    off = squares[~torch.eye(70, dtype=torch.bool).numpy()]
    gamma = 1 / (2 * float(torch.tensor(off).median()))
    k = rbf_kernel(both, gamma=gamma)
    one = sum(k[i, j] for i in range(40) for j in range(40) if i != j) / (40 * 39)
    two = sum(k[i, j] for i in range(40, 70) for j in range(40, 70) if i != j) / (30 * 29)
    cross = sum(k[i, j] for i in range(40) for j in range(40, 70)) / (40 * 30)
    found, p = drift.mmd(x, y)
    assert found == pytest.approx(one + two - 2 * cross, abs=1e-9)
    assert p == pytest.approx(1 / 201)


def test_mmd_of_the_same_population_is_likely() -> None:
    """Of ten pairs of samples at most two are called unlikely at 0.1; the estimate is about zero."""
    found = [drift.mmd(drawn(60, width=4, seed=i), drawn(60, width=4, seed=100 + i)) for i in range(10)]
    assert sum(p < 0.1 for _, p in found) <= 2
    assert abs(sum(m for m, _ in found) / 10) < 0.01
