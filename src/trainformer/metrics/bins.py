"""How far scores can be taken at their word: equal-width bins of score against share of hits."""

from typing import Any

import numpy as np

from trainformer.core.arrays import Array

BINS = 15


class Reliability:
    """15 bins (lo, hi] of 0..1 (Guo et al. 2017, arXiv:1706.04599); sums only, so memory is constant."""

    def __init__(self) -> None:
        self.rows, self.scores, self.hits = (np.zeros(BINS) for _ in range(3))

    def add(self, scores: Array, hits: Array) -> None:
        """Scores in 0..1 and whether each came true, both of one shape."""
        scores, hits = scores.ravel(), hits.ravel()
        bins = np.clip(np.ceil(scores * BINS).astype(np.int64), 1, BINS) - 1
        self.rows += np.bincount(bins, minlength=BINS)
        self.scores += np.bincount(bins, scores, BINS)
        self.hits += np.bincount(bins, hits, BINS)

    def error(self) -> float:
        """Expected calibration error, 0..1: |mean score - share of hits| over the bins, by their rows. Nothing seen: 0."""
        return float(np.abs(self.scores - self.hits).sum() / max(self.rows.sum(), 1))

    def detail(self) -> list[dict[str, Any]]:
        """from, to, rows, mean score and share of hits of each bin; the two are None where a bin is empty."""
        return [
            {"from": i / BINS, "to": (i + 1) / BINS, "rows": int(n), "score": s / n if n else None, "hits": h / n if n else None}
            for i, (n, s, h) in enumerate(zip(self.rows.tolist(), self.scores.tolist(), self.hits.tolist(), strict=True))
        ]
