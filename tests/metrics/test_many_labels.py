"""Against scikit-learn."""

import json

import pytest
import torch
from sklearn import metrics as peer

from trainformer.core.roles import Decision
from trainformer.metrics.many_labels import ManyLabels

LABELS = ["a", "b", "c", "d"]


def draw(rows=300):
    g = torch.Generator().manual_seed(1)
    target = (torch.rand(rows, 4, generator=g) < 0.4).float()
    return torch.randn(rows, 4, generator=g) + target, target


def filled(output, target, batch_of, decision=None):
    metric = ManyLabels(LABELS, decision)
    for i in range(0, len(target), 50):
        metric.add(output[i : i + 50], batch_of(target[i : i + 50]))
    return metric


def test_every_score_is_sklearns(batch_of):
    output, target = draw()
    metric = filled(output, target, batch_of)
    scores, said, p = metric.value(), (output >= 0).int(), output.double().sigmoid()
    assert scores["f1_micro"] == pytest.approx(peer.f1_score(target, said, average="micro"))
    assert scores["f1_macro"] == pytest.approx(peer.f1_score(target, said, average="macro"))
    assert scores["subset_accuracy"] == pytest.approx(peer.accuracy_score(target, said))
    columns = [peer.log_loss(target[:, i], p[:, i]) for i in range(4)]
    assert scores["loss"] == pytest.approx(sum(columns) / 4, rel=1e-9)
    assert scores["brier"] == pytest.approx(((p - target) ** 2).mean().item(), rel=1e-9)
    assert json.dumps(metric.detail(), allow_nan=False)


def test_thresholds_and_silence(batch_of):
    output, target = draw()
    decision = Decision(thresholds={"a": 0.3, "c": 0.7}, abstain=0.6)
    scores = filled(output, target, batch_of, decision).value()
    said = (output.double().sigmoid() >= torch.tensor([0.3, 0.5, 0.7, 0.5])).int()
    assert scores["f1_micro"] == pytest.approx(peer.f1_score(target, said, average="micro"))
    assert 0 < scores["answered"] < 1


def test_no_rows_no_label_said_or_true(batch_of):
    assert ManyLabels(LABELS).value() == {"examples": 0}
    scores = filled(torch.full((3, 4), -4.0), torch.zeros(3, 4), batch_of).value()
    assert (scores["f1_micro"], scores["f1_macro"], scores["subset_accuracy"]) == (1.0, 1.0, 1.0)
    scores = filled(torch.full((3, 4), -4.0), torch.ones(3, 4), batch_of).value()
    assert (scores["f1_micro"], scores["f1_macro"], scores["subset_accuracy"]) == (0.0, 0.0, 0.0)
