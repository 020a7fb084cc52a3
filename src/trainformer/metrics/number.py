"""Scores of tasks that give a number, on the scale of the targets: errors, explained variance, correlations."""

import random
from math import sqrt
from typing import Any

import numpy as np

from trainformer.core.arrays import Array, array
from trainformer.core.protocols import Scored
from trainformer.metrics.decide import numbers

KEPT_ROWS = 10_000


class Number:
    """Answers against targets; sums of powers (Chan et al. 1979) and at most 10,000 rows are kept, whatever the rows.

    rmse, mae: on the scale of the targets. r2: share of the targets' variance that is explained; if all targets are the same,
    1 if all answers are right and else 0. pearson, spearman: 0 where either side is constant. spearman is that of a uniform
    sample of 10,000 rows (Vitter 1985, algorithm R, seed 0), so it is exact up to there. loss: mean squared error in standard
    deviations of the training targets, before answers are kept inside a range. No rows: `examples` alone.
    """

    def __init__(self, mean: float, deviation: float, least: float | None = None, most: float | None = None):
        self.scale, self.range = (mean, deviation), (least, most)
        self.rows = 0
        self.loss = self.absolute = self.squared = 0.0
        self.means, self.moments = np.zeros(2), np.zeros((2, 2))
        self.lows, self.highs = np.full(2, np.inf), np.full(2, -np.inf)
        self.kept: list[tuple[float, float]] = []
        self.draw = random.Random(0)

    def add(self, output: Any, batch: Scored) -> None:
        """Output "U 1" and the batch whose target is "U", both in deviations from the mean."""
        output, target = array(output), array(batch.target)
        assert target.size == output.size, "scores need targets"
        true, said = numbers(target, *self.scale), numbers(output, *self.scale, *self.range)
        self.absolute += float(np.abs(said - true).sum())
        self.squared += float(((said - true) ** 2).sum())
        self.loss += float(((output.ravel().astype(np.float64) - target.ravel()) ** 2).sum())
        self._merge(np.stack([true, said]))
        self._keep(list(zip(true.tolist(), said.tolist(), strict=True)))

    def value(self) -> dict[str, float]:
        if not self.rows:
            return {"examples": 0}
        varies = self.highs > self.lows  # else rounding would pass for variance
        total, answers = (self.moments.diagonal() * varies).tolist()
        scores = {"examples": self.rows, "rmse": sqrt(self.squared / self.rows), "mae": self.absolute / self.rows}
        scores["r2"] = 1 - self.squared / total if total else float(self.squared == 0)
        scores["pearson"] = _correlation(float(self.moments[0, 1]), total, answers)
        return scores | {"spearman": _spearman(self.kept), "loss": self.loss / self.rows}

    def detail(self) -> dict[str, Any]:
        """points: [true, said] of at most 1,000 of the rows kept; spearman_rows: how many rows that score is made of."""
        return {"points": [list(pair) for pair in self.kept[:1000]], "spearman_rows": len(self.kept)}

    def _merge(self, both: Array) -> None:
        count = both.shape[1]
        means = both.mean(1)
        centred = both - means[:, None]
        apart = means - self.means
        whole = self.rows + count
        self.moments += centred @ centred.T + np.outer(apart, apart) * (self.rows * count / whole)
        self.lows, self.highs = np.minimum(self.lows, both.min(1)), np.maximum(self.highs, both.max(1))
        self.means += apart * (count / whole)
        self.rows = whole

    def _keep(self, pairs: list[tuple[float, float]]) -> None:
        first = self.rows - len(pairs)
        for seen, pair in enumerate(pairs, start=first):
            if seen < KEPT_ROWS:
                self.kept.append(pair)
            elif (place := self.draw.randrange(seen + 1)) < KEPT_ROWS:
                self.kept[place] = pair


def _correlation(shared: float, one: float, other: float) -> float:
    return max(-1.0, min(1.0, shared / sqrt(one) / sqrt(other))) if one > 0 and other > 0 else 0.0


def _spearman(pairs: list[tuple[float, float]]) -> float:
    """Pearson's correlation of the ranks; equal values share the mean of theirs."""
    ranks = np.stack([_ranks(column) for column in np.array(pairs).T])
    ranks = ranks - ranks.mean(1, keepdims=True)
    one, shared, other = (ranks[0] @ ranks[0], ranks[0] @ ranks[1], ranks[1] @ ranks[1])
    return _correlation(float(shared), float(one), float(other))


def _ranks(values: Array) -> Array:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (counts.cumsum() - (counts - 1) / 2)[place]
    return ranks
