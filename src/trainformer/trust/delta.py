"""95 % intervals of scores that are no share and no mean, by the delta method: how far each row moves the score."""

from math import sqrt
from statistics import fmean, pstdev
from typing import Any

from trainformer.trust import intervals
from trainformer.trust.intervals import Interval


def f1_macro(scores: dict[str, float], detail: dict[str, Any]) -> Interval | None:
    """From the confusion matrix (Takahashi et al. 2022, doi:10.1007/s10489-021-01635-5).

    None without a matrix, and where all rows are right: then there is no spread to go by.
    """
    table: list[list[int]] = detail.get("confusion", [])
    rows = sum(map(sum, table))
    both = [sum(row) + sum(column) for row, column in zip(table, zip(*table, strict=True), strict=True)]
    weight = [1 / max(1, b) for b in both]
    pull = [2 * table[i][i] * w**2 for i, w in enumerate(weight)]
    cells = [(i, j, count) for i, row in enumerate(table) for j, count in enumerate(row) if count]
    slopes = [(count, 2 * weight[i] * (i == j) - pull[i] - pull[j]) for i, j, count in cells]
    spread = sum(count * slope**2 for count, slope in slopes)  # the mean slope is 0
    if spread < 1e-12:
        return None
    deviation = sqrt(spread * rows) / sum(b > 0 for b in both)
    low, high = intervals.mean(scores["f1_macro"], deviation, rows)
    return max(0.0, low), min(1.0, high)


def rmse(scores: dict[str, float], detail: dict[str, Any]) -> Interval | None:
    """The root of the interval of the mean squared error, from the spread of the rows in `detail`. None for fewer than 2."""
    points, rows = detail.get("points", []), int(scores["examples"])
    if len(points) < 2:
        return None
    deviation = pstdev((said - true) ** 2 for true, said in points)
    low, high = intervals.mean(scores["rmse"] ** 2, deviation, rows)
    return sqrt(max(0.0, low)), sqrt(high)


def r2(scores: dict[str, float], detail: dict[str, Any]) -> Interval | None:
    """From the rows in `detail`: squared error less (1 - R²) times squared deviation, over the variance; None without it."""
    points, rows = detail.get("points", []), int(scores["examples"])
    if len({true for true, _ in points}) < 2:
        return None
    middle = fmean(true for true, _ in points)
    variance = fmean((true - middle) ** 2 for true, _ in points)
    rest = 1 - scores["r2"]
    deviation = pstdev(((said - true) ** 2 - rest * (true - middle) ** 2) / variance for true, said in points)
    low, high = intervals.mean(scores["r2"], deviation, rows)
    return low, min(1.0, high)


RULES = {"f1_macro": f1_macro, "rmse": rmse, "r2": r2}
