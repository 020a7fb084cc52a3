"""Precision, recall and F1 from counts, with a meaning for labels that never occur."""

from typing import Any

import numpy as np

from trainformer.core.arrays import Array


class Counts:
    """For each of C labels: said and true, said, true."""

    def __init__(self, labels: list[str]):
        self.labels = labels
        self.both, self.said, self.true = (np.zeros(len(labels), dtype=np.int64) for _ in range(3))

    def add(self, said: Array, truth: Array) -> None:
        """Both "U C" of bool."""
        self.both += (said & truth).sum(0)
        self.said += said.sum(0)
        self.true += truth.sum(0)

    def f1(self) -> Array:
        """F1 "C"; 0 for a label that is never hit."""
        return 2 * self.both / np.maximum(self.said + self.true, 1)

    def macro(self) -> float:
        """The mean F1 of the labels that are true or said somewhere; the others can be neither right nor wrong. None: 1."""
        there = (self.said + self.true) > 0
        return float(self.f1()[there].mean()) if there.any() else 1.0

    def micro(self) -> float:
        """F1 of all labels' counts together. Nothing true and nothing said: 1."""
        total = int((self.said + self.true).sum())
        return 2 * int(self.both.sum()) / total if total else 1.0

    def detail(self) -> list[dict[str, Any]]:
        """label, precision, recall, f1, support (rows where it is true) and said; 0 for a share of nothing."""
        rows = zip(self.labels, self.both.tolist(), self.said.tolist(), self.true.tolist(), self.f1().tolist(), strict=True)
        return [
            {"label": name, "precision": b / max(s, 1), "recall": b / max(t, 1), "f1": f, "support": t, "said": s, "hits": b}
            for name, b, s, t, f in rows
        ]
