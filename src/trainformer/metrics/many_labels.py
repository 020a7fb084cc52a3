"""Scores of tasks that give any number of labels: F1, exact sets, loss, and whether the scores can be believed."""

from typing import Any

from trainformer.core.protocols import Scored
from trainformer.core.roles import Decision
from trainformer.metrics.bins import Reliability
from trainformer.metrics.decide import AnyOf, held_back
from trainformer.metrics.f1 import Counts


class ManyLabels:
    """The labels said under a decision, against those that are true; memory C, whatever the rows.

    f1_micro, f1_macro, subset_accuracy (all labels of the row right): of what would be said, whether or not it is held back.
    loss: negative log likelihood in nats under the temperature, brier: squared error, both the mean over labels and rows.
    ece: over all pairs of row and label, score against truth. With a band of silence also `answered` (share) and
    `answered_accuracy` (exact sets; 0 where nothing is answered). No rows: `examples` alone.
    """

    def __init__(self, labels: list[str], decision: Decision | None = None):
        self.rule, self.decision = AnyOf(labels), decision or Decision()
        self.counts, self.reliability = Counts(labels), Reliability()
        self.rows = self.right = self.answered = self.answered_right = 0
        self.loss = self.brier = 0.0

    def add(self, output: Any, batch: Scored) -> None:
        """Output "U C" and the batch whose target is the 0-or-1 rows "C", end to end."""
        rule, decision = self.rule, self.decision
        scores, truth = rule.scores(output, decision.temperature), rule.truth(batch.target)
        assert truth.shape == scores.shape, "scores need labels"
        said = rule.said(scores, decision)
        right = (said == truth).all(-1)
        given = ~held_back(rule.confidence(scores, said), decision)
        self.rows += len(truth)
        self.right += int(right.sum())
        self.answered += int(given.sum())
        self.answered_right += int((given & right).sum())
        self.loss += float(rule.loss(output, batch.target, decision.temperature).sum())
        self.brier += float(((scores - truth) ** 2).mean(-1).sum())
        self.counts.add(said, truth)
        self.reliability.add(scores, truth)

    def value(self) -> dict[str, float]:
        if not self.rows:
            return {"examples": 0}
        scores = {"examples": self.rows, "f1_micro": self.counts.micro(), "f1_macro": self.counts.macro()}
        scores |= {"subset_accuracy": self.right / self.rows, "loss": self.loss / self.rows}
        scores |= {"ece": self.reliability.error(), "brier": self.brier / self.rows}
        if self.decision.abstain is not None:
            scores["answered"] = self.answered / self.rows
            scores["answered_accuracy"] = self.answered_right / max(self.answered, 1)
        return scores

    def detail(self) -> dict[str, Any]:
        """labels, classes (precision, recall, F1, support of each), reliability."""
        return {"labels": self.rule.labels, "classes": self.counts.detail(), "reliability": self.reliability.detail()}
