"""Tests on paired rows, against scipy and against formulas."""

import pytest
import torch
from scipy import stats

from trainformer.trust import paired


@pytest.mark.parametrize(("one", "other"), [(0, 0), (1, 0), (5, 1), (12, 30), (300, 251), (7, 7), (10_300, 9_700)])
def test_mcnemar_is_the_exact_binomial_test(one: int, other: int) -> None:
    expected = stats.binomtest(min(one, other), one + other, 0.5).pvalue if one + other else 1.0
    assert paired.mcnemar(one, other) == pytest.approx(expected, rel=1e-9)


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.04 times 3, 2, 1, never falling; then 0.5 stays
    assert paired.holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert paired.holm([0.5]) == [0.5]
    assert paired.holm([0.9, 0.8]) == [1.0, 1.0]
    assert paired.holm([]) == []


def test_the_bootstrap_of_a_mean_has_the_width_of_the_normal_law() -> None:
    draw = torch.Generator().manual_seed(3)
    base = torch.randn(400, generator=draw, dtype=torch.float64)
    gain = 0.1 + 0.5 * torch.randn(400, generator=draw, dtype=torch.float64)
    mean = float(gain.mean())
    (low, high), p = paired.bootstrap(lambda rows: float(base[rows].mean()), lambda rows: float((base + gain)[rows].mean()), 400)
    reach = 1.96 * float(gain.std()) / 20
    assert (low, high) == pytest.approx((mean - reach, mean + reach), abs=0.15 * reach)
    assert p == pytest.approx(2 * stats.norm.sf(mean / (reach / 1.96)), abs=0.01)


def test_the_bootstrap_of_equals_says_nothing() -> None:
    (low, high), p = paired.bootstrap(lambda rows: float(rows.sum()), lambda rows: float(rows.sum()), 50)
    assert (low, high, p) == (0.0, 0.0, 1.0)
