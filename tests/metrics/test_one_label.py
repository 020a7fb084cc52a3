"""Against scikit-learn, and numbers worked out by hand."""

import json
import math

import pytest
import torch
from sklearn import metrics as peer

from trainformer.core.roles import Decision
from trainformer.metrics.one_label import OneLabel

LABELS = ["a", "b", "c", "d"]


def draw(rows=500, classes=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (rows,), generator=g)
    output = torch.randn(rows, classes, generator=g)
    output[torch.arange(rows), target] += 1
    return output, target


def filled(output, target, batch_of, labels=LABELS, decision=None, size=64):
    metric = OneLabel(labels, decision)
    for i in range(0, len(target), size):
        metric.add(output[i : i + size], batch_of(target[i : i + size]))
    return metric


def test_every_score_is_sklearns(batch_of):
    output, target = draw()
    scores = filled(output, target, batch_of).value()
    p, said = output.double().softmax(-1), output.argmax(-1)
    assert list(scores) == ["examples", "accuracy", "f1_macro", "loss", "ece", "brier"]
    assert scores["examples"] == 500
    assert scores["accuracy"] == pytest.approx(peer.accuracy_score(target, said))
    assert scores["f1_macro"] == pytest.approx(peer.f1_score(target, said, average="macro"))
    assert scores["loss"] == pytest.approx(peer.log_loss(target, p), rel=1e-9)
    assert scores["brier"] == pytest.approx(peer.brier_score_loss(target, p, scale_by_half=False), rel=1e-9)


def test_detail_is_sklearns_and_plain_json(batch_of):
    output, target = draw()
    detail = filled(output, target, batch_of).detail()
    said = output.argmax(-1)
    assert detail["confusion"] == peer.confusion_matrix(target, said).tolist()
    precision, recall, f1, support = peer.precision_recall_fscore_support(target, said)
    for i, row in enumerate(detail["classes"]):
        assert (row["label"], row["support"]) == (LABELS[i], support[i])
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((precision[i], recall[i], f1[i]))
    assert json.loads(json.dumps(detail, allow_nan=False)) == detail
    assert sum(b["rows"] for b in detail["reliability"]) == 500


def test_calibration_error_by_hand(batch_of):
    # scores 0.9, 0.9, 0.9, 0.6 of the label said; hits 1, 1, 0, 0: |2.7 - 2| / 4 + |0.6 - 0| / 4
    p = torch.tensor([0.9, 0.9, 0.9, 0.6])
    output = torch.stack([p.log(), (1 - p).log()], 1)
    metric = filled(output, torch.tensor([0, 0, 1, 1]), batch_of, ["a", "b"])
    assert metric.value()["ece"] == pytest.approx(0.7 / 4 + 0.6 / 4, abs=1e-7)


def test_the_size_of_batches_does_not_matter(batch_of):
    output, target = draw(100)
    one, other = (filled(output, target, batch_of, size=s).value() for s in (100, 7))
    assert one == pytest.approx(other, rel=1e-12)


def test_a_label_that_never_occurs_is_no_part_of_the_mean(batch_of):
    output, target = draw(200, 3)
    wide = torch.cat([output, torch.full((200, 1), -50.0)], 1)
    metric = filled(wide, target, batch_of)
    assert metric.value()["f1_macro"] == pytest.approx(peer.f1_score(target, output.argmax(-1), average="macro"))
    assert metric.detail()["classes"][3] == {
        "label": "d", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0, "said": 0, "hits": 0
    }  # fmt: skip


def test_no_rows_and_one_class(batch_of):
    metric = OneLabel(["a", "b"])
    assert metric.value() == {"examples": 0}
    assert json.dumps(metric.detail(), allow_nan=False)
    metric.add(torch.tensor([[2.0, 0.0]]), batch_of(torch.tensor([0])))
    scores = metric.value()
    assert (scores["accuracy"], scores["f1_macro"]) == (1.0, 1.0)
    assert scores["loss"] == pytest.approx(math.log(1 + math.exp(-2)))


def test_the_decision_decides(batch_of):
    output = torch.tensor([[0.5, 0.4, 0.1], [0.9, 0.05, 0.05], [0.4, 0.35, 0.25]]).log()
    target = torch.tensor([1, 0, 1])
    decision = Decision(thresholds={"a": 0.6}, abstain=0.45)
    metric = filled(output, target, batch_of, LABELS[:3], decision)
    # a is said from 0.6 only: b, a, b; all right. The last row's best score, 0.4, is held back.
    scores = metric.value()
    assert (scores["accuracy"], scores["answered"], scores["answered_accuracy"]) == (1.0, 2 / 3, 1.0)
    costly = Decision(costs={"a": {"b": 10.0}})
    scores = filled(output, target, batch_of, LABELS[:3], costly).value()
    # expected cost of a: 10 b + c, of b: a + c, of c: a + b; so b, a (0.55 < 0.95), b.
    assert (scores["accuracy"], scores["cost"]) == (1.0, 0.0)
    scores = filled(output, torch.tensor([2, 1, 0]), batch_of, LABELS[:3], costly).value()
    assert scores["cost"] == pytest.approx((1 + 10 + 1) / 3)


def test_temperature_divides_and_changes_no_accuracy(batch_of):
    output, target = draw()
    scores = filled(output, target, batch_of, decision=Decision(temperature=2.5)).value()
    p = (output.double() / 2.5).softmax(-1)
    assert scores["loss"] == pytest.approx(peer.log_loss(target, p), rel=1e-9)
    assert scores["accuracy"] == filled(output, target, batch_of).value()["accuracy"]


def test_broken_outputs_are_no_scores(batch_of):
    with pytest.raises(FloatingPointError, match="not finite"):
        OneLabel(["a", "b"]).add(torch.tensor([[float("nan"), 0.0]]), batch_of(torch.tensor([0])))
