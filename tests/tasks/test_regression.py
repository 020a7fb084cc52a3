"""Learnt in deviations from the mean, answered on the scale of the targets."""

import json
import statistics

import pytest
import torch

from trainformer.core.errors import UserError
from trainformer.core.roles import Decision
from trainformer.tasks.regression import Regression

TARGETS = [1.0, 4, "2.5", 10]


def test_scale_is_that_of_the_training_targets(learn):
    task = learn(Regression(), TARGETS)
    values = [float(t) for t in TARGETS]
    assert task.mean == pytest.approx(statistics.mean(values))
    assert task.deviation == pytest.approx(statistics.pstdev(values))
    assert (task.least, task.most) == (1.0, 10.0)
    assert Regression(**json.loads(json.dumps(task.settings()))).settings() == task.settings()


def test_scale_keeps_its_digits_far_from_zero(learn):
    task = learn(Regression(), [1.7e9 + i for i in range(10)])
    assert task.deviation == pytest.approx(statistics.pstdev(range(10)), rel=1e-9)


def test_what_is_learnt_and_answered(learn, batch_of):
    task = learn(Regression(), TARGETS)
    batch = batch_of(task, [4, 10])
    perfect = batch.target[:, None]
    assert [a["label"] for a in task.answer(perfect, Decision())] == pytest.approx([4.0, 10.0], rel=1e-6)
    assert task.loss(perfect, batch).tolist() == [0.0, 0.0]
    torch.testing.assert_close(task.loss(perfect + 2, batch), torch.tensor([4.0, 4.0]))
    torch.testing.assert_close(Regression(huber_delta=1.0).loss(perfect + 2, batch), torch.tensor([3.0, 3.0]))
    metric = task.metric()
    metric.add(perfect + 1, batch)
    assert metric.value()["rmse"] == pytest.approx(task.deviation, rel=1e-6)
    assert task.divergence(perfect, perfect + 3).tolist() == pytest.approx([9.0, 9.0])


def test_rows_without_a_target_can_be_answered(learn, batch_of):
    assert batch_of(learn(Regression(), TARGETS), [..., ...]).target.numel() == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "there are no training rows"),
        ([2, 2, 2], "all 3 training targets are 2.0"),
        ([1, float("nan")], "it must be finite"),
        ([1e200, -1e200], "do not fit floating-point numbers"),
        (["good"], "'good' is not a number.*--task text_classification"),
    ],
)
def test_bad_targets_are_refused(learn, labels, message):
    with pytest.raises(UserError, match=message):
        learn(Regression(), labels)
