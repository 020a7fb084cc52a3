"""From the model's output to what is said: the one place for it, so that Python, command line, server and scores agree.

A rule turns outputs "U C" into scores 0..1 and says which labels they amount to; thresholds, costs and the band of silence
come from the decision. Everything is computed in float64 by NumPy; outputs and targets may be arrays, or tensors of any device.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trainformer.core.arrays import Array, array
from trainformer.core.errors import UserError, nearest
from trainformer.core.roles import Answer, Decision


class Rule(Protocol):
    """What scores mean: one label of many, or any number of them."""

    labels: list[str]

    def scores(self, output: Any, temperature: float = 1.0) -> Array:
        """Scores "U C" in 0..1."""

    def loss(self, output: Any, target: Any, temperature: float = 1.0) -> Array:
        """Negative log likelihood "U", in nats."""

    def truth(self, target: Any) -> Array:
        """Which labels are true, "U C" of bool, from a batch's target."""

    def said(self, scores: Any, decision: Decision) -> Array:
        """Which labels are said, "U C" of bool, whether or not they are then held back."""

    def confidence(self, scores: Any, said: Any) -> Array:
        """What is compared with `decision.abstain`, "U"."""

    def answers(self, output: Any, decision: Decision) -> list[Answer]:
        """label, score and all scores of each unit, and `abstained` where nothing is said."""


@dataclass(frozen=True)
class OneOf:
    """Exactly one of the labels is true: softmax."""

    labels: list[str]

    def scores(self, output: Any, temperature: float = 1.0) -> Array:
        return np.exp(_log_softmax(_finite(output) / temperature))

    def loss(self, output: Any, target: Any, temperature: float = 1.0) -> Array:
        log_p = _log_softmax(_finite(output) / temperature)
        return -np.take_along_axis(log_p, array(target)[:, None], -1)[:, 0]

    def truth(self, target: Any) -> Array:
        return self._places(array(target))

    def said(self, scores: Any, decision: Decision) -> Array:
        """Least expected cost if there are costs; else the best label that reaches its threshold, or the best of all."""
        if decision.costs:
            return self._places((array(scores) @ self.costs(decision).T).argmin(-1))
        scores = array(scores)
        if decision.thresholds:
            reaches = scores >= _thresholds(self.labels, decision, 0.0)
            scores = np.where(reaches | ~reaches.any(-1, keepdims=True), scores, -1.0)
        return self._places(scores.argmax(-1))

    def confidence(self, scores: Any, said: Any) -> Array:
        """The highest score."""
        return array(scores).max(-1)

    def answers(self, output: Any, decision: Decision) -> list[Answer]:
        scores = self.scores(output, decision.temperature)
        said = self.said(scores, decision)
        silent = held_back(self.confidence(scores, said), decision)
        return [
            _answer(None if hush else self.labels[i], row[i], dict(zip(self.labels, row, strict=True)), hush)
            for i, row, hush in zip(said.argmax(-1).tolist(), scores.tolist(), silent.tolist(), strict=True)
        ]

    def _places(self, chosen: Array) -> Array:
        """Places "U" among the labels as "U C" of bool."""
        return chosen[:, None] == np.arange(len(self.labels))

    def costs(self, decision: Decision) -> Array:
        """Costs "C C", said by true; a pair that is not given costs 0 if it is right and 1 if it is wrong."""
        rows = [[float(decision.costs.get(s, {}).get(t, float(s != t))) for t in self.labels] for s in self.labels]
        return np.array(rows, dtype=np.float64)


@dataclass(frozen=True)
class AnyOf:
    """Any number of the labels are true, each for itself: sigmoid. A label is said from 0.5, or from its threshold."""

    labels: list[str]

    def scores(self, output: Any, temperature: float = 1.0) -> Array:
        return np.exp(-np.logaddexp(0.0, -_finite(output) / temperature))

    def loss(self, output: Any, target: Any, temperature: float = 1.0) -> Array:
        """The mean over the labels."""
        signs = np.where(self.truth(target), 1.0, -1.0)
        return np.logaddexp(0.0, -signs * _finite(output) / temperature).mean(-1)

    def truth(self, target: Any) -> Array:
        return array(target).reshape(-1, len(self.labels)) > 0.5

    def said(self, scores: Any, decision: Decision) -> Array:
        return array(scores) >= _thresholds(self.labels, decision, 0.5)

    def confidence(self, scores: Any, said: Any) -> Array:
        """The smallest score among the labels said; where none is, 1 less the largest score: that none fits."""
        scores, said = array(scores), array(said)
        return np.where(said.any(-1), np.where(said, scores, 2.0).min(-1), 1 - scores.max(-1))

    def answers(self, output: Any, decision: Decision) -> list[Answer]:
        scores = self.scores(output, decision.temperature)
        said = self.said(scores, decision)
        confidence = self.confidence(scores, said)
        silent = held_back(confidence, decision).tolist()
        found = []
        for row, says, sure, hush in zip(scores.tolist(), said.tolist(), confidence.tolist(), silent, strict=True):
            label = None if hush else [name for name, yes in zip(self.labels, says, strict=True) if yes]
            found.append(_answer(label, sure, dict(zip(self.labels, row, strict=True)), hush))
        return found


def held_back(confidence: Any, decision: Decision) -> Array:
    """Where the answer is not given, "U" of bool."""
    return array(confidence) < (-1.0 if decision.abstain is None else decision.abstain)


def numbers(output: Any, mean: float, deviation: float, least: float | None = None, most: float | None = None) -> Array:
    """Outputs "U 1", in deviations from the mean, as numbers "U" on the scale of the targets, kept inside a range if given."""
    values = _finite(output).reshape(-1) * deviation + mean
    return values if least is None and most is None else np.clip(values, least, most)


def number_answers(values: Array) -> list[Answer]:
    """An answer for each number; it has no score."""
    return [{"label": value, "score": None, "scores": {}} for value in values.tolist()]


def check_labels(words: list[str], labels: list[str], where: str) -> None:
    """Refuses a label that the task does not have."""
    for word in words:
        if word not in labels:
            raise UserError(f"no label '{word:.60}'.", where=where, fix=nearest(word, labels))


def _answer(label: str | list[str] | None, score: float, scores: dict[str, float], hush: bool) -> Answer:
    answer: Answer = {"label": label, "score": score, "scores": scores}
    return answer | {"abstained": True} if hush else answer


def _thresholds(labels: list[str], decision: Decision, default: float) -> Array:
    return np.array([decision.thresholds.get(label, default) for label in labels], dtype=np.float64)


def _finite(output: Any) -> Array:
    """The output in float64. Raises FloatingPointError where the model gave NaN or infinity."""
    values = array(output).astype(np.float64)
    if not np.isfinite(values).all():
        raise FloatingPointError("the model's output is not finite: its weights are broken.")
    return values


def _log_softmax(values: Array) -> Array:
    values = values - values.max(-1, keepdims=True)
    return values - np.log(np.exp(values).sum(-1, keepdims=True))
