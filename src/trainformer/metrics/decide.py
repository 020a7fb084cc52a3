"""From the model's output to what is said: the one place for it, so that Python, command line, server and scores agree.

A rule turns outputs "U C" into scores 0..1 and says which labels they amount to; thresholds, costs and the band of silence
come from the decision. Everything is computed in float64 on the CPU.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

from trainformer.core.errors import UserError, nearest
from trainformer.core.roles import Answer, Decision


class Rule(Protocol):
    """What scores mean: one label of many, or any number of them."""

    labels: list[str]

    def scores(self, output: Tensor, temperature: float = 1.0) -> Tensor:
        """Scores "U C" in 0..1."""

    def loss(self, output: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
        """Negative log likelihood "U", in nats."""

    def truth(self, target: Tensor) -> Tensor:
        """Which labels are true, "U C" of bool, from a batch's target."""

    def said(self, scores: Tensor, decision: Decision) -> Tensor:
        """Which labels are said, "U C" of bool, whether or not they are then held back."""

    def confidence(self, scores: Tensor, said: Tensor) -> Tensor:
        """What is compared with `decision.abstain`, "U"."""

    def answers(self, output: Tensor, decision: Decision) -> list[Answer]:
        """label, score and all scores of each unit, and `abstained` where nothing is said."""


@dataclass(frozen=True)
class OneOf:
    """Exactly one of the labels is true: softmax."""

    labels: list[str]

    def scores(self, output: Tensor, temperature: float = 1.0) -> Tensor:
        return (_finite(output) / temperature).softmax(-1)

    def loss(self, output: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
        log_p = (_finite(output) / temperature).log_softmax(-1)
        return -log_p.gather(-1, target.cpu()[:, None]).squeeze(-1)

    def truth(self, target: Tensor) -> Tensor:
        return one_hot(target.cpu(), len(self.labels)).bool()

    def said(self, scores: Tensor, decision: Decision) -> Tensor:
        """Least expected cost if there are costs; else the best label that reaches its threshold, or the best of all."""
        if decision.costs:
            return self._one(-(scores @ self.costs(decision).T))
        if decision.thresholds:
            reaches = scores >= _thresholds(self.labels, decision, 0.0)
            return self._one(torch.where(reaches | ~reaches.any(-1, keepdim=True), scores, -1.0))
        return self._one(scores)

    def confidence(self, scores: Tensor, said: Tensor) -> Tensor:
        """The highest score."""
        return scores.amax(-1)

    def answers(self, output: Tensor, decision: Decision) -> list[Answer]:
        scores = self.scores(output, decision.temperature)
        said = self.said(scores, decision)
        silent = held_back(self.confidence(scores, said), decision)
        return [
            _answer(None if hush else self.labels[i], row[i], dict(zip(self.labels, row, strict=True)), hush)
            for i, row, hush in zip(said.int().argmax(-1).tolist(), scores.tolist(), silent.tolist(), strict=True)
        ]

    def _one(self, values: Tensor) -> Tensor:
        return one_hot(values.argmax(-1), len(self.labels)).bool()

    def costs(self, decision: Decision) -> Tensor:
        """Costs "C C", said by true; a pair that is not given costs 0 if it is right and 1 if it is wrong."""
        rows = [[float(decision.costs.get(s, {}).get(t, float(s != t))) for t in self.labels] for s in self.labels]
        return torch.tensor(rows, dtype=torch.float64)


@dataclass(frozen=True)
class AnyOf:
    """Any number of the labels are true, each for itself: sigmoid. A label is said from 0.5, or from its threshold."""

    labels: list[str]

    def scores(self, output: Tensor, temperature: float = 1.0) -> Tensor:
        return (_finite(output) / temperature).sigmoid()

    def loss(self, output: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
        """The mean over the labels."""
        signs = torch.where(self.truth(target), 1.0, -1.0)
        return -logsigmoid(signs * _finite(output) / temperature).mean(-1)

    def truth(self, target: Tensor) -> Tensor:
        return target.cpu().view(-1, len(self.labels)) > 0.5

    def said(self, scores: Tensor, decision: Decision) -> Tensor:
        return scores >= _thresholds(self.labels, decision, 0.5)

    def confidence(self, scores: Tensor, said: Tensor) -> Tensor:
        """The smallest score among the labels said; where none is, 1 less the largest score: that none fits."""
        return torch.where(said.any(-1), scores.masked_fill(~said, 2.0).amin(-1), 1 - scores.amax(-1))

    def answers(self, output: Tensor, decision: Decision) -> list[Answer]:
        scores = self.scores(output, decision.temperature)
        said = self.said(scores, decision)
        confidence = self.confidence(scores, said)
        silent = held_back(confidence, decision).tolist()
        found = []
        for row, says, sure, hush in zip(scores.tolist(), said.tolist(), confidence.tolist(), silent, strict=True):
            label = None if hush else [name for name, yes in zip(self.labels, says, strict=True) if yes]
            found.append(_answer(label, sure, dict(zip(self.labels, row, strict=True)), hush))
        return found


def held_back(confidence: Tensor, decision: Decision) -> Tensor:
    """Where the answer is not given, "U" of bool."""
    return confidence < (-1.0 if decision.abstain is None else decision.abstain)


def numbers(output: Tensor, mean: float, deviation: float, least: float | None = None, most: float | None = None) -> Tensor:
    """Outputs "U 1", in deviations from the mean, as numbers "U" on the scale of the targets, kept inside a range if given."""
    values = _finite(output).view(-1) * deviation + mean
    return values if least is None and most is None else values.clamp(least, most)


def number_answers(values: Tensor) -> list[Answer]:
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


def _thresholds(labels: list[str], decision: Decision, default: float) -> Tensor:
    return torch.tensor([decision.thresholds.get(label, default) for label in labels], dtype=torch.float64)


def _finite(output: Tensor) -> Tensor:
    """The output in float64 on the CPU. Raises FloatingPointError where the model gave NaN or infinity."""
    output = output.detach().cpu().double()
    if not output.isfinite().all():
        raise FloatingPointError("the model's output is not finite: its weights are broken.")
    return output
