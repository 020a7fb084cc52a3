"""Scores of tasks that give one label: accuracy, F1, loss, and whether the scores can be believed."""

from typing import Any

import numpy as np

from trainformer.core.arrays import array
from trainformer.core.protocols import Scored
from trainformer.core.roles import Decision
from trainformer.metrics.bins import Reliability
from trainformer.metrics.decide import OneOf, held_back
from trainformer.metrics.f1 import Counts


class OneLabel:
    """What is said under a decision, against what is true; memory C^2, whatever the rows.

    accuracy, f1_macro: of the label that would be said, whether or not it is then held back (see `answered_accuracy`).
    loss: mean negative log likelihood in nats under the temperature; brier: sum over classes of squared errors, 0..2 (1950).
    ece: of the score of the label said. With a band of silence also `answered` (share) and `answered_accuracy` (0 where
    nothing is answered); with costs also `cost`, the mean cost. No rows: `examples` alone.
    """

    def __init__(self, labels: list[str], decision: Decision | None = None):
        self.rule, self.decision = OneOf(labels), decision or Decision()
        self.counts, self.reliability = Counts(labels), Reliability()
        self.confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
        self.rows = self.answered = self.answered_right = 0
        self.loss = self.brier = 0.0

    def add(self, output: Any, batch: Scored) -> None:
        """Output "U C" and the batch whose target "U" is the place of each true label."""
        target, rule = array(batch.target), self.rule
        assert len(target) == len(output), "scores need labels"
        scores, truth = rule.scores(output, self.decision.temperature), rule.truth(target)
        said = rule.said(scores, self.decision)
        place = said.argmax(-1)
        right = place == target
        given = ~held_back(rule.confidence(scores, said), self.decision)
        self.rows += len(target)
        self.answered += int(given.sum())
        self.answered_right += int((given & right).sum())
        self.loss += float(rule.loss(output, target, self.decision.temperature).sum())
        self.brier += float(((scores - truth) ** 2).sum())
        self.counts.add(said, truth)
        self.reliability.add(np.take_along_axis(scores, place[:, None], -1)[:, 0], right)
        np.add.at(self.confusion, (target, place), 1)

    def value(self) -> dict[str, float]:
        if not self.rows:
            return {"examples": 0}
        right = int(self.confusion.trace())
        scores = {"examples": self.rows, "accuracy": right / self.rows, "f1_macro": self.counts.macro()}
        scores |= {"loss": self.loss / self.rows, "ece": self.reliability.error(), "brier": self.brier / self.rows}
        if self.decision.abstain is not None:
            scores["answered"] = self.answered / self.rows
            scores["answered_accuracy"] = self.answered_right / max(self.answered, 1)
        if self.decision.costs:
            costs = self.rule.costs(self.decision).T
            scores["cost"] = float((costs * self.confusion).sum()) / self.rows
        return scores

    def detail(self) -> dict[str, Any]:
        """labels, confusion (a row for each true label, a column for each label said), classes, reliability."""
        found = {"labels": self.rule.labels, "confusion": self.confusion.tolist(), "classes": self.counts.detail()}
        return found | {"reliability": self.reliability.detail()}
