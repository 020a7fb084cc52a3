"""What a smaller model may lose: its score on validation, overall and for each class, held against the bundle it came from."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from trainformer.bundle import Bundle
from trainformer.bundle.outputs import scored
from trainformer.core.batch import Example
from trainformer.core.config import DecisionSettings
from trainformer.core.errors import UserError
from trainformer.core.roles import Decision, Task
from trainformer.trust import calibrate, words


@dataclass(frozen=True)
class Held:
    """What two models say to the same rows, each through its own decision layer."""

    key: str
    before: dict[str, float]
    after: dict[str, float]
    classes: list[dict[str, Any]]
    """label, support and F1 `before` and `after` of each class that occurs."""
    equal_labels: float | None
    """Share of the rows that get the same label; None for numbers."""
    largest: float
    """Largest difference of a raw output."""

    @property
    def losses(self) -> list[tuple[str, float, float, float]]:
        """(of what, before, after, points lost) for the score and for each class, the worst first."""
        listed = [(words.name(self.key), self.before[self.key], self.after[self.key])]
        listed += [(f"F1 of '{c['label']}'", c["before"], c["after"]) for c in self.classes]
        return sorted(((name, b, a, 100 * (b - a)) for name, b, a in listed), key=lambda each: -each[3])


def hold(before: Bundle, after: Bundle, examples: list[Example]) -> tuple[Held, list[str]]:
    """Asks both the same labelled rows; the new one's decision layer is fitted on them first. What to say of that too."""
    if not examples:
        raise UserError("there are no rows to hold the models against each other with.", where="--data")
    task = before.task
    old, target = before.raw(examples)
    new, _ = after.raw(examples)
    after.decision, notes = refitted(task, new, target, before.decision)
    one, two = (scored(task, output, target, bundle.decision) for output, bundle in ((old, before), (new, after)))
    then = {c["label"]: c["f1"] for c in two.detail().get("classes", [])}
    classes = [
        {"label": c["label"], "support": c["support"], "before": c["f1"], "after": then[c["label"]]}
        for c in one.detail().get("classes", [])
        if c["support"]
    ]
    same = None
    if getattr(task, "rule", None) is not None:
        answers = zip(task.answer(old, before.decision), task.answer(new, after.decision), strict=True)
        same = sum(a["label"] == b["label"] for a, b in answers) / len(examples)
    return Held(task.best, one.value(), two.value(), classes, same, float((old - new).abs().max())), notes


def refitted(task: Task, output: Tensor, target: Tensor, old: Decision) -> tuple[Decision, list[str]]:
    """The decision layer of the kind that there was, fitted anew; costs and the band of silence stay as they are."""
    asked = DecisionSettings(thresholds="f1" if old.thresholds else "none", costs=old.costs)
    new, notes = calibrate.fit(task, output, target, asked)
    rule = getattr(task, "rule", None)
    if rule is not None and _loss(rule, output, target, old) < _loss(rule, output, target, new):
        new = replace(new, temperature=old.temperature)
    return replace(new, abstain=old.abstain), notes


def _loss(rule: Any, output: Tensor, target: Tensor, decision: Decision) -> float:
    return float(rule.loss(output, target, decision.temperature).mean())


def lost(held: Held, most: float) -> list[tuple[str, float, float, float]]:
    """The losses of more than so many points (hundredths)."""
    return [each for each in held.losses if not each[3] <= most + 1e-9]


def require(held: Held, most: float) -> None:
    """Raises UserError with the numbers where a score falls by more than so many points (hundredths)."""
    found = lost(held, most)
    if found:
        shown = "; ".join(f"{name} by {points:.2f} points ({100 * b:.2f} to {100 * a:.2f})" for name, b, a, points in found[:8])
        more = f" and {len(found) - 8} more" if found[8:] else ""
        what = f"too much is lost on {held.before['examples']} rows: {shown}{more}. Nothing is written."
        raise UserError(what, where=f"--max-loss {most:g}", fix="Take out less, or allow a larger loss.")
