"""The decision layer: temperature, thresholds, costs and a band of silence, fitted on validation and never on test."""

from collections.abc import Callable
from dataclasses import replace
from math import exp, isfinite, log, sqrt
from typing import Any

import numpy as np

from trainformer.core.arrays import Array, array
from trainformer.core.config import DecisionSettings
from trainformer.core.errors import UserError
from trainformer.core.roles import Decision, Task
from trainformer.metrics.decide import OneOf, Rule, check_labels
from trainformer.metrics.f1 import Counts
from trainformer.trust import intervals

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures that are tried; an optimum beyond them says that the validation rows cannot tell."""
STEPS = 50


def fit(task: Task, output: Any, target: Any, settings: DecisionSettings) -> tuple[Decision, list[str]]:
    """A decision for a task from its validation outputs "N C" and targets, and notes to be said to the user.

    A temperature or thresholds that do not help on validation are left out. A task without a `rule` (numbers) gets the empty
    decision. Raises UserError for costs of unknown labels, or of tasks that say many labels.
    """
    rule: Rule | None = getattr(task, "rule", None)
    if rule is None:
        asked = settings.thresholds != "none" or settings.abstain_error is not None or settings.costs
        return Decision(), ["thresholds, costs and abstaining do not apply to numbers: left out."] if asked else []
    check_costs(rule, settings)
    decision, notes = Decision(costs=settings.costs), list[str]()
    if len(output) == 0:
        return decision, ["no validation rows: nothing is calibrated."]
    if settings.calibrate:
        temperature, said = fit_temperature(rule, output, target)
        decision, notes = replace(decision, temperature=temperature), notes + said
    scores, truth = rule.scores(output, decision.temperature), rule.truth(target)
    if settings.thresholds == "f1":
        thresholds, said = fit_thresholds(rule, scores, truth)
        decision, notes = replace(decision, thresholds=thresholds), notes + said
    if settings.abstain_error is not None:
        says = rule.said(scores, decision)
        right = (says == truth).all(-1)
        abstain, note = fit_abstain(rule.confidence(scores, says), right, settings.abstain_error)
        decision, notes = replace(decision, abstain=abstain), [*notes, note]
    return decision, notes


def check_costs(rule: Rule | None, settings: DecisionSettings) -> None:
    """Refuses costs of labels that do not exist, that are no finite numbers, or beside another rule that chooses labels."""
    where = "decision.costs"
    if not settings.costs:
        return
    if not isinstance(rule, OneOf):
        raise UserError("costs need a task that says one label.", where=where, fix="Use decision.thresholds.")
    if settings.thresholds != "none":
        raise UserError("costs and thresholds both choose the label.", where=where, fix="Leave out one of the two.")
    check_labels(list(settings.costs), rule.labels, where)
    for said, costs in settings.costs.items():
        check_labels(list(costs), rule.labels, f"{where}.{said}")
        for true, cost in costs.items():
            if not isfinite(cost):
                raise UserError(f"the cost is {cost}: it must be finite.", where=f"{where}.{said}.{true}")


def fit_temperature(rule: Rule, output: Any, target: Any) -> tuple[float, list[str]]:
    """The temperature of least negative log likelihood (Guo et al. 2017, arXiv:1706.04599), 1 where none is better.

    The likelihood has one optimum, found by golden section over log T. Where all validation rows are right the optimum is
    T = 0, full certainty, which few rows cannot vouch for: T stays 1.
    """

    def loss(log_t: float) -> float:
        return float(rule.loss(output, target, exp(log_t)).mean())

    right = (rule.said(rule.scores(output), Decision()) == rule.truth(target)).all()
    if right:
        return 1.0, [f"all {len(output)} validation rows are right, so no temperature can be fitted: it stays 1."]
    temperature = exp(_golden(loss, log(COLDEST), log(HOTTEST)))
    if not loss(log(temperature)) < loss(0.0):
        return 1.0, []
    notes = []
    if temperature > 0.99 * HOTTEST:
        notes = [f"the temperature is the highest that is tried ({HOTTEST}): on validation the scores tell next to nothing."]
    return temperature, notes


def fit_thresholds(rule: Rule, scores: Array, truth: Array) -> tuple[dict[str, float], list[str]]:
    """For each label the threshold of the best F1 on validation; none at all if the mean F1 is not better for them."""
    found = {}
    for place, label in enumerate(rule.labels):
        if truth[:, place].any():
            found[label] = best_f1_threshold(scores[:, place], truth[:, place])
    missing = [label for label in rule.labels if label not in found]
    named = ", ".join(map(repr, missing[:5])) + (f" and {len(missing) - 5} more" if missing[5:] else "")
    notes = [f"no validation row has the label {named}: no threshold of its own."] if missing else []
    plain, fitted = (_macro_f1(rule, scores, truth, Decision(thresholds=t)) for t in ({}, found))
    if fitted > plain:
        return found, notes
    return {}, [*notes, f"thresholds do not raise the mean F1 on validation ({plain:.4f}): left out."]


def best_f1_threshold(scores: Any, true: Any) -> float:
    """The least score "N" to say a label so that F1 against `true` "N" is best; of equals the highest.

    It lies half-way between the last score that is said and the next, so that it does not hang on one row.
    """
    ranked, true = _highest_first(array(scores), array(true))
    said = np.arange(1, len(ranked) + 1)
    f1 = 2 * true.cumsum() / (said + true.sum())
    below = np.append(ranked[1:], 0.0)
    place = int(np.where(_last_of_its_score(ranked), f1, -1.0).argmax())
    return float((ranked[place] + below[place]) / 2)


def fit_abstain(confidence: Any, right: Any, error: float) -> tuple[float | None, str]:
    """The lowest confidence "N" from which the share of answers that are not `right` "N" is below `error`, and a note.

    None if no band is needed, or none is narrow enough.
    """
    rows = len(confidence)
    ranked, right = _highest_first(array(confidence), array(right))
    wrong = (~right).cumsum()
    fits = np.flatnonzero(_last_of_its_score(ranked) & (wrong / np.arange(1, rows + 1) < error))
    if len(fits) == 0:
        return None, f"no band of silence keeps the error below {error:g} on validation: every row is answered."
    kept = int(fits[-1]) + 1
    errors = int(wrong[kept - 1])
    low, high = intervals.share(errors, kept)
    found = f"{kept} of {rows} validation rows are answered, {errors} of them wrong (95 % interval {low:.1%} to {high:.1%})."
    if kept == rows:
        return None, f"the error is below {error:g} without abstaining: {found}"
    return float((ranked[kept - 1] + ranked[kept]) / 2), found


def _highest_first(scores: Array, values: Array) -> tuple[Array, Array]:
    order = np.argsort(-scores, kind="stable")
    return scores[order], values[order]


def _last_of_its_score(ranked: Array) -> Array:
    """Where the next score, if there is one, is lower."""
    return np.append(ranked[1:] < ranked[:-1], True)


def _macro_f1(rule: Rule, scores: Array, truth: Array, decision: Decision) -> float:
    counts = Counts(rule.labels)
    counts.add(rule.said(scores, decision), truth)
    return counts.macro()


def _golden(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum has it, to (high - low) * 0.618^STEPS (Kiefer 1953)."""
    ratio = (sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return (low + high) / 2
