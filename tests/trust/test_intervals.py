"""Against scipy, and the values of textbooks."""

import math

import pytest
from scipy import stats

from trainformer.trust import intervals


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (10, 10), (83, 100), (1, 1)])
def test_share_is_scipys_wilson(hits, rows):
    expected = stats.binomtest(hits, rows).proportion_ci(0.95, method="wilson")
    assert intervals.share(hits, rows) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_share_of_nothing():
    assert intervals.share(0, 0) == (0.0, 1.0)


def test_f1_is_the_share_of_hits_among_said_or_true_carried_over():
    low, high = stats.binomtest(30, 50).proportion_ci(0.9, method="wilson")
    assert intervals.f1(30, 38, 42, 0.9) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    low, high = intervals.f1(30, 38, 42)
    assert low < 2 * 30 / (38 + 42) < high
    assert intervals.f1(0, 0, 0) == (0.0, 1.0)


def test_correlation_is_scipys():
    x, y = [1.0, 2, 3, 4, 5, 6, 7, 8], [2.0, 1, 4, 3, 7, 5, 8, 6]
    found = stats.pearsonr(x, y)
    expected = found.confidence_interval(0.95)
    assert intervals.correlation(found.statistic, 8) == pytest.approx((expected.low, expected.high))
    wide = intervals.correlation(found.statistic, 8, ranks=True)
    assert wide[0] < expected.low and wide[1] > expected.high
    assert intervals.correlation(0.3, 3) == (-1.0, 1.0)
    assert intervals.correlation(1.0, 9) == (1.0, 1.0)


def test_mean_is_the_normal_laws():
    assert intervals.mean(2.0, 3.0, 100) == pytest.approx(stats.norm.interval(0.95, 2.0, 0.3))
    assert intervals.mean(2.0, 0.0, 1) == (-math.inf, math.inf)
