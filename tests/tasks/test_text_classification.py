"""Labels in, labels out; what cannot be learnt is refused; settings rebuild the task."""

import json
import os
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from trainformer.core.errors import UserError
from trainformer.core.roles import Decision
from trainformer.tasks.text_classification import TextClassification

OUTPUT = torch.tensor([[1.0, 0.0], [0.5, 1.0], [-1.0, 2.0]])


def test_labels_come_out_as_they_went_in(learn, batch_of):
    task = learn(TextClassification(), ["pos", "neg", "neg", "pos"])
    assert (task.labels, task.class_counts, task.outputs()) == (["neg", "pos"], [2, 2], 2)
    batch = batch_of(task, ["pos", "neg"])
    assert batch.target.tolist() == [1, 0] and batch.target.dtype == torch.long
    assert [a["label"] for a in task.answer(OUTPUT[:2], Decision())] == ["neg", "pos"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([10, 9, 10, 9], ["9", "10"]),
        ([True, False] * 2, ["false", "true"]),
        ([1.0, 0.0] * 2, ["0", "1"]),
        (["b", "a"] * 2, ["a", "b"]),
    ],
)
def test_order_of_labels(learn, labels, expected):
    assert learn(TextClassification(), labels).labels == expected


def test_given_labels_keep_their_order(learn):
    task = learn(TextClassification(labels=["pos", "neg", "mixed"]), ["neg", "pos"] * 2)
    assert task.labels == ["pos", "neg", "mixed"] and task.class_counts == [2, 2, 0]
    assert TextClassification(labels=[1, 0]).labels == ["1", "0"]


def test_settings_rebuild_the_task(learn, batch_of):
    task = learn(TextClassification(class_weights="balanced", focal_gamma=2.0, label_smoothing=0.1), ["a"] * 6 + ["b"] * 2)
    again = TextClassification(**json.loads(json.dumps(task.settings())))
    assert again == task or again.settings() == task.settings()
    batch = batch_of(again, ["a", "b", "b"])
    torch.testing.assert_close(again.loss(OUTPUT, batch), task.loss(OUTPUT, batch), rtol=0, atol=0)


def test_class_weights(learn, batch_of):
    labels = ["a"] * 6 + ["b"] * 2
    batch = batch_of(learn(TextClassification(), labels), ["a", "b", "b"])
    plain = F.cross_entropy(OUTPUT, batch.target, reduction="none")
    torch.testing.assert_close(learn(TextClassification(), labels).loss(OUTPUT, batch), plain)
    balanced = learn(TextClassification(class_weights="balanced"), labels)
    torch.testing.assert_close(balanced.loss(OUTPUT, batch), plain * torch.tensor([8 / 12, 2.0, 2.0]))
    given = learn(TextClassification(class_weights={"b": 5.0}), labels)
    torch.testing.assert_close(given.loss(OUTPUT, batch), plain * torch.tensor([1.0, 5.0, 5.0]))


def test_rows_without_a_label_can_be_answered(learn, batch_of):
    task = learn(TextClassification(), ["a", "b"] * 2)
    batch = batch_of(task, [..., ...])
    assert batch.target.numel() == 0 and batch.units == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "there are no training rows"),
        (["a"] * 3, "all 3 training rows have the label 'a'"),
        (["a", "a", "b"], "'b' has only one training row"),
        (["a", "a", "b", "c"], "'b', 'c' have only one training row each"),
        ([i + 0.5 for i in range(30)], "30 different numbers in 30 rows look like a scale.*--task regression"),
        ([i + 0.5 for i in range(5)], "only one training row each.*--task regression"),
        (["a", None], "the label is null"),
        ([["a"]], "--task multi_label"),
    ],
)
def test_what_cannot_be_learnt_is_refused(learn, labels, message):
    with pytest.raises(UserError, match=message):
        learn(TextClassification(), labels)


def test_many_whole_numbers_are_classes(learn):
    assert learn(TextClassification(), [i for i in range(40) for _ in "ab"]).outputs() == 40


def test_unseen_labels_are_refused_with_the_nearest(learn, batch_of):
    task = learn(TextClassification(), ["positive", "negative"] * 2)
    with pytest.raises(UserError, match=r"the label 'positiv' was not seen in training. Did you mean 'positive'\?"):
        batch_of(task, ["positiv"])
    with pytest.raises(UserError, match=r"is not among task\.labels"):
        TextClassification(labels=["a", "b"]).parse(("x",), "c", 0, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ["a", "a"]}, "'a' stands twice"),
        ({"class_weights": {"a": -1.0}}, "greater than 0"),
        ({"class_weights": "balance"}, "balanced"),
        ({"label_smoothing": 1.0}, "less than 1"),
        ({"focal_gamma": True}, "not a number"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TextClassification(**settings)


def test_weights_of_unknown_labels_are_refused(learn):
    with pytest.raises(UserError, match=r"no label 'bb' to weigh. Did you mean 'b'|There is: a, b"):
        learn(TextClassification(class_weights={"bb": 2.0}), ["a", "b"] * 2)


def test_answers_and_scores_agree_under_any_decision(learn, batch_of):
    task = learn(TextClassification(), ["a", "b"] * 2)
    truth = ["b", "b", "a"]
    for decision in (Decision(), Decision(3.0), Decision(thresholds={"a": 0.8}), Decision(costs={"b": {"a": 4.0}})):
        metric = task.metric(decision)
        metric.add(OUTPUT, batch_of(task, truth))
        said = [a["label"] for a in task.answer(OUTPUT, decision)]
        assert metric.value()["accuracy"] == sum(map(str.__eq__, said, truth)) / 3


def test_real_labels(learn):
    shared = Path(os.environ.get("TRAINFORMER_SHARED", Path(__file__).parents[3] / "shared"))
    path = shared / "data/zh_topic_thucnews/train.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path.name} of zh_topic_thucnews (TRAINFORMER_SHARED)")
    with path.open(encoding="utf-8") as f:
        labels = [json.loads(line)["label"] for line, _ in zip(f, range(2000), strict=False)]
    task = learn(TextClassification(), labels)
    assert task.labels == sorted(set(labels)) and sum(task.class_counts) == 2000
