"""Whether two models differ, judged on the same rows: paired bootstrap, McNemar's exact test, and Holm's correction."""

from collections.abc import Callable

import torch
from torch import Tensor

from trainformer.trust.intervals import Interval

RESAMPLES = 1000
Score = Callable[[Tensor], float]
"""Row numbers "N" (int64, with repeats) -> the score of those rows."""


def bootstrap(one: Score, other: Score, rows: int, seed: int = 0) -> tuple[Interval, float]:
    """95 % interval and two-sided p value of `other - one`, by drawing the same rows for both (Efron and Tibshirani 1993).

    The p value is twice the share of the 1,000 draws in which the difference is not on its side of zero; it is never below
    2 / 1001, which is as much as so many draws can say.
    """
    draw = torch.Generator().manual_seed(seed)
    places = (torch.randint(rows, (rows,), generator=draw) for _ in range(RESAMPLES))
    differences = torch.tensor([other(p) - one(p) for p in places], dtype=torch.float64)
    low, high = torch.quantile(differences, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    least = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return (low, high), min(1.0, 2 * (1 + least) / (RESAMPLES + 1))


def mcnemar(only_one: int, only_other: int) -> float:
    """The exact two-sided p value of McNemar's test (1947), from the rows that only one and only the other has right.

    Under no difference the smaller count is binomial with chance 1/2. Whole numbers throughout, so no count is too large.
    """
    rows = only_one + only_other
    term = total = 1
    for k in range(min(only_one, only_other)):
        term = term * (rows - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**rows)


def holm(values: list[float]) -> list[float]:
    """p values of several comparisons, corrected so that the chance of any false finding stays below the level (Holm 1979)."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    corrected, least = [0.0] * len(values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[i]))
        corrected[i] = least
    return corrected
