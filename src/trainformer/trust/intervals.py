"""How sure a score is: confidence intervals by formula, the same at every run. `level` is 0..1; bounds are (low, high)."""

from math import atanh, sqrt, tanh
from statistics import NormalDist

Interval = tuple[float, float]


def share(hits: float, rows: int, level: float = 0.95) -> Interval:
    """Of a share of rows, such as accuracy, precision or recall (Wilson 1927). No rows: 0..1, nothing is known."""
    if rows == 0:
        return 0.0, 1.0
    z2 = _z(level) ** 2
    middle = (hits + z2 / 2) / (rows + z2)
    reach = sqrt(z2 * (hits * (rows - hits) / rows + z2 / 4)) / (rows + z2)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def f1(hits: int, said: int, true: int, level: float = 0.95) -> Interval:
    """Of a class's F1, from rows said and true, said, true.

    Wilson's interval of hits / (said or true), carried to F1 = 2 x / (1 + x): the indirect method of Lam et al. 2023
    (arXiv:2309.14621). Nothing said or true: 0..1.
    """
    low, high = share(hits, said + true - hits, level)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def correlation(value: float, rows: int, level: float = 0.95, ranks: bool = False) -> Interval:
    """Of Pearson's correlation (Fisher 1921), or with `ranks` of Spearman's (Bonett and Wright 2000). 3 rows or fewer: -1..1."""
    if rows <= 3:
        return -1.0, 1.0
    if abs(value) == 1:
        return value, value
    reach = _z(level) * sqrt((1 + value**2 / 2 if ranks else 1) / (rows - 3))
    return tanh(atanh(value) - reach), tanh(atanh(value) + reach)


def mean(value: float, deviation: float, rows: int, level: float = 0.95) -> Interval:
    """Of a mean, from the standard deviation of its rows, by the normal law. Fewer than 2 rows: unbounded."""
    if rows < 2:
        return float("-inf"), float("inf")
    reach = _z(level) * deviation / sqrt(rows)
    return value - reach, value + reach


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
