"""Sets of labels in, lists of labels out."""

import pytest
import torch
from torch.nn import functional as F

from trainformer.core.errors import UserError
from trainformer.core.roles import Decision
from trainformer.tasks.multi_label import MultiLabel

ROWS = [["x", "y"], ["x"], [], ["y"], []]
OUTPUT = torch.tensor([[1.0, -1.0], [-2.0, 0.5]])


def test_targets_and_answers(learn, batch_of):
    task = learn(MultiLabel(), ROWS)
    assert (task.labels, task.class_counts, task.training_rows) == (["x", "y"], [2, 2], 5)
    batch = batch_of(task, [["y"], ["y", "x", "y"], []])
    assert batch.target.view(-1, 2).tolist() == [[0, 1], [1, 1], [0, 0]] and batch.units == [0, 1, 2, 3]
    assert [a["label"] for a in task.answer(OUTPUT, Decision())] == [["x"], ["y"]]


def test_loss_and_weights(learn, batch_of):
    task = learn(MultiLabel(class_weights="balanced"), [["x"], ["x", "y"], ["x", "y"], []])
    batch = batch_of(task, [["x"], ["y"]])
    weight = torch.tensor([1 / 3, 1.0])
    target = batch.target.view(-1, 2)
    expected = F.binary_cross_entropy_with_logits(OUTPUT, target, pos_weight=weight, reduction="none").mean(-1)
    torch.testing.assert_close(task.loss(OUTPUT, batch), expected)
    assert task.divergence(OUTPUT, OUTPUT).tolist() == [0.0, 0.0]


def test_labels_in_one_string(learn, batch_of):
    task = learn(MultiLabel(separator=";"), ["x; y", "x", "", "y;"])
    assert task.class_counts == [2, 2]
    assert MultiLabel(**task.settings()).separator == ";"


def test_rows_without_labels_can_be_answered(learn, batch_of):
    assert batch_of(learn(MultiLabel(), ROWS), [..., ...]).target.numel() == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["x"], None], "the labels are null, not a list"),
        (["x;y"], r"the labels are 'x;y', not a list.*task.separator"),
        ([["x", None]], "the label is null"),
        ([[], []], "no training row has a label"),
        ([["x", "y"]] * 2, "all 2 training rows have the label 'x', 'y'"),
        ([["x"], ["x", "y"], []], "'y' has only one training row"),
    ],
)
def test_bad_labels_are_refused(learn, labels, message):
    with pytest.raises(UserError, match=message):
        learn(MultiLabel(), labels)


def test_unseen_labels_are_refused(learn, batch_of):
    with pytest.raises(UserError, match="the label 'z' was not seen in training"):
        batch_of(learn(MultiLabel(), ROWS), [["x", "z"]])


def test_answers_and_scores_agree(learn, batch_of):
    task, truth = learn(MultiLabel(), ROWS), [["x"], []]
    decision = Decision(thresholds={"y": 0.9})
    metric = task.metric(decision)
    metric.add(OUTPUT, batch_of(task, truth))
    assert [a["label"] for a in task.answer(OUTPUT, decision)] == truth
    assert metric.value()["subset_accuracy"] == 1.0
