"""Intervals by the delta method, against the spread of many simulated samples and against formulas."""

import random
from statistics import fmean, pstdev

import pytest

from trainformer.trust import delta, words


def macro(table: list[list[int]]) -> float:
    both = [sum(row) + sum(column) for row, column in zip(table, zip(*table, strict=True), strict=True)]
    return fmean(2 * table[i][i] / b for i, b in enumerate(both))


def test_macro_f1_has_the_spread_of_samples() -> None:
    table = [[60, 20, 5], [10, 150, 15], [8, 12, 40]]
    cells = [(i, j) for i in range(3) for j in range(3)]
    draw, found = random.Random(1), []
    for _ in range(2000):
        sample = [[0] * 3 for _ in range(3)]
        for i, j in draw.choices(cells, [table[i][j] for i, j in cells], k=320):
            sample[i][j] += 1
        found.append(macro(sample))
    low, high = delta.f1_macro({"examples": 320, "f1_macro": macro(table)}, {"confusion": table}) or (0.0, 0.0)
    assert (high - low) / 2 == pytest.approx(1.96 * pstdev(found), rel=0.06)
    assert (low + high) / 2 == pytest.approx(macro(table))


def test_symmetric_macro_f1_is_as_sure_as_accuracy() -> None:
    # of two classes, each 80 of 100 right both ways, every slope is that of accuracy: 0.8 +- 1.95996 sqrt(0.8 * 0.2 / 200)
    found = delta.f1_macro({"examples": 200, "f1_macro": 0.8}, {"confusion": [[80, 20], [20, 80]]})
    assert found == pytest.approx((0.744564, 0.855436), abs=1e-6)


def test_where_there_is_no_spread_nothing_is_claimed() -> None:
    assert delta.f1_macro({"examples": 20, "f1_macro": 1.0}, {"confusion": [[10, 0], [0, 10]]}) is None
    assert delta.f1_macro({"examples": 20, "f1_macro": 1.0}, {}) is None
    assert delta.rmse({"examples": 1, "rmse": 1.0}, {"points": [[1.0, 2.0]]}) is None
    assert delta.r2({"examples": 2, "r2": 0.0}, {"points": [[1.0, 2.0], [1.0, 0.0]]}) is None


def test_numbers_have_the_spread_of_samples() -> None:
    draw = random.Random(2)

    def sample() -> tuple[dict[str, float], dict[str, list[list[float]]]]:
        points = [[t, t + draw.gauss(0, 0.6)] for t in (draw.gauss(0, 1) for _ in range(400))]
        middle = fmean(t for t, _ in points)
        error = fmean((s - t) ** 2 for t, s in points)
        whole = fmean((t - middle) ** 2 for t, _ in points)
        return {"examples": 400, "rmse": error**0.5, "r2": 1 - error / whole}, {"points": points}

    made = [sample() for _ in range(600)]
    for key in ("rmse", "r2"):
        spread = pstdev(scores[key] for scores, _ in made)
        widths = [high - low for low, high in (words.bounds(key, *each) or (0.0, 0.0) for each in made[:100])]
        assert fmean(widths) / 2 == pytest.approx(1.96 * spread, rel=0.1)
