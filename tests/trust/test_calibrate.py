"""Against scipy and scikit-learn; what is fitted never makes validation worse."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import f1_score, precision_recall_curve

from trainformer.core.config import DecisionSettings
from trainformer.core.errors import UserError
from trainformer.core.roles import Decision
from trainformer.metrics.decide import AnyOf, OneOf
from trainformer.tasks.multi_label import MultiLabel
from trainformer.tasks.regression import Regression
from trainformer.tasks.text_classification import TextClassification
from trainformer.trust.calibrate import best_f1_threshold, fit, fit_abstain, fit_temperature

LABELS = ["a", "b", "c"]
ONE, ANY = TextClassification(labels=LABELS), MultiLabel(labels=LABELS)


def draw(rows=400, sharpness=4.0, seed=0):
    """Outputs whose honest logits are made `sharpness` times too sure."""
    g = torch.Generator().manual_seed(seed)
    honest = torch.randn(rows, 3, generator=g) * 1.5
    target = torch.multinomial(honest.softmax(-1), 1, generator=g)[:, 0]
    return honest * sharpness, target


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_temperature_is_the_optimum_that_scipy_finds(sharpness):
    output, target = draw(sharpness=sharpness)
    rule = OneOf(LABELS)
    best = minimize_scalar(
        lambda t: float(rule.loss(output, target, math.exp(t)).mean()), bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}
    )
    found, notes = fit_temperature(rule, output, target)
    assert found == pytest.approx(math.exp(best.x), rel=1e-5) and notes == []
    assert found == pytest.approx(sharpness, rel=0.25)


def test_temperature_of_many_labels():
    g = torch.Generator().manual_seed(3)
    honest = torch.randn(500, 3, generator=g)
    target = (torch.rand(500, 3, generator=g) < honest.sigmoid()).float()
    found, _ = fit_temperature(AnyOf(LABELS), honest * 3, target)
    assert found == pytest.approx(3.0, rel=0.2)


def test_temperature_stays_where_nothing_is_wrong_or_gained():
    output, _ = draw()
    found, notes = fit_temperature(OneOf(LABELS), output, output.argmax(-1))
    assert found == 1.0 and "all 400 validation rows are right" in notes[0]
    found, notes = fit_temperature(OneOf(LABELS), output, (output.argmax(-1) + 1) % 3)
    assert found > 19 and "next to nothing" in notes[0]


@pytest.mark.parametrize("seed", range(10))
def test_a_fitted_decision_is_never_worse(seed):
    output, target = draw(rows=30, sharpness=1.2, seed=seed)
    decision, _ = fit(ONE, output, target, DecisionSettings(thresholds="f1"))
    rule = OneOf(LABELS)
    assert rule.loss(output, target, decision.temperature).mean() <= rule.loss(output, target).mean()

    def f1(d):
        said = rule.said(rule.scores(output, d.temperature), d).argmax(-1)
        return f1_score(target, said, average="macro")

    assert f1(decision) >= f1(Decision()) - 1e-12


def test_threshold_is_the_best_of_sklearns_curve():
    g = torch.Generator().manual_seed(5)
    true = torch.rand(200, generator=g) < 0.2
    scores = (torch.rand(200, generator=g) * 0.6 + true * 0.3).mul(20).round().div(20)
    precision, recall, _ = precision_recall_curve(true, scores)
    best = (2 * precision * recall / (precision + recall).clip(1e-12)).max()
    found = best_f1_threshold(scores, true)
    assert f1_score(true, scores >= found) == pytest.approx(best)


def test_threshold_by_hand():
    # said from 0.4 on: 2 hits of 3 said, 2 true: F1 0.8; half-way to 0.2
    assert best_f1_threshold(torch.tensor([0.9, 0.6, 0.4, 0.2]), torch.tensor([True, False, True, False])) == pytest.approx(0.3)


def test_thresholds_lift_a_rare_label():
    g = torch.Generator().manual_seed(7)
    target = (torch.rand(400, 3, generator=g) < torch.tensor([0.5, 0.3, 0.1])).float()
    output = torch.randn(400, 3, generator=g) + 2 * target - torch.tensor([0.5, 2.0, 4.0])
    decision, notes = fit(ANY, output, target.flatten(), DecisionSettings(calibrate=False, thresholds="f1"))
    assert set(decision.thresholds) == set(LABELS) and decision.thresholds["c"] < 0.2 and notes == []
    plain, fitted = (ANY.metric(d) for d in (Decision(), decision))
    for metric in (plain, fitted):
        counts = metric.counts
        counts.add(metric.rule.said(metric.rule.scores(output), metric.decision), metric.rule.truth(target))
    assert fitted.counts.macro() > plain.counts.macro() + 0.2


def test_a_label_without_validation_rows_is_named():
    output, target = draw()
    _, notes = fit(ONE, output, target.clamp(max=1), DecisionSettings(thresholds="f1"))
    assert any("no validation row has the label 'c'" in note for note in notes)


def test_silence_keeps_the_error_below_what_is_asked():
    confidence = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    right = torch.tensor([True, True, False, True, False])
    # errors of the first 1..5: 0, 0, 1/3, 1/4, 2/5
    assert fit_abstain(confidence, right, 0.3)[0] == pytest.approx(0.55)
    assert fit_abstain(confidence, right, 0.25)[0] == pytest.approx(0.75)
    assert fit_abstain(confidence, right, 0.5) == (
        None,
        "the error is below 0.5 without abstaining: 5 of 5 validation rows are answered, 2 of them wrong "
        "(95 % interval 11.8% to 76.9%).",
    )
    threshold, note = fit_abstain(confidence, ~right.flip(0) & False, 0.2)
    assert threshold is None and "no band of silence keeps the error below 0.2" in note


def test_silence_through_the_whole_fit():
    output, target = draw()
    decision, notes = fit(ONE, output, target, DecisionSettings(abstain_error=0.1))
    answers = ONE.answer(output, decision)
    said = [(a["label"], LABELS[t]) for a, t in zip(answers, target.tolist(), strict=True) if a["label"] is not None]
    assert 0 < len(said) < 400
    assert sum(a != b for a, b in said) / len(said) < 0.1
    assert f"{len(said)} of 400 validation rows are answered" in notes[-1]


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (ONE, {"costs": {"aa": {"b": 1}}}, "decision.costs: no label 'aa'"),
        (ONE, {"costs": {"a": {"x": 1}}}, "decision.costs.a: no label 'x'"),
        (ONE, {"costs": {"a": {"b": math.inf}}}, "must be finite"),
        (ONE, {"costs": {"a": {"b": 1}}, "thresholds": "f1"}, "both choose the label"),
        (ANY, {"costs": {"a": {"b": 1}}}, "need a task that says one label"),
    ],
)
def test_bad_costs_are_refused(task, settings, message):
    with pytest.raises(UserError, match=message):
        fit(task, torch.zeros(1, 3), torch.zeros(1).long(), DecisionSettings(**settings))


def test_numbers_and_no_rows_are_left_alone():
    assert fit(Regression(), torch.zeros(2, 1), torch.zeros(2), DecisionSettings()) == (Decision(), [])
    assert fit(Regression(), torch.zeros(2, 1), torch.zeros(2), DecisionSettings(thresholds="f1"))[1] != []
    decision, notes = fit(ONE, torch.zeros(0, 3), torch.zeros(0).long(), DecisionSettings())
    assert decision == Decision() and "no validation rows" in notes[0]
