"""Two texts, a label or a number."""

import pytest
import torch
from torch.nn import functional as F

from trainformer.core.errors import UserError
from trainformer.core.roles import Decision
from trainformer.tasks.regression import Regression
from trainformer.tasks.text_classification import TextClassification
from trainformer.tasks.text_pair import TextPair

OUTPUT = torch.tensor([[1.0, 0.0], [0.5, 1.0], [-1.0, 2.0]])


def test_both_texts_are_read(learn, tokens):
    task = learn(TextPair(), [0, 1] * 2)
    example = task.parse(("ab", "c"), 1, 7, 2.0)
    encoded = task.encode(example, tokens.pieces(example.texts), tokens, 16)
    assert encoded.parts[0].ids.tolist() == [0, ord("a"), ord("b"), 0, ord("c")]
    assert (encoded.row, encoded.weight, encoded.target.tolist()) == (7, 2.0, [1])


def test_classification_is_that_of_one_text(learn, batch_of):
    pair, single = (learn(kind(class_weights="balanced"), ["a"] * 4 + ["b"] * 2) for kind in (TextPair, TextClassification))
    batch = batch_of(pair, ["a", "b", "b"])
    assert (pair.best, pair.outputs(), pair.pair) == ("accuracy", 2, True)
    torch.testing.assert_close(pair.loss(OUTPUT, batch), single.loss(OUTPUT, batch))
    assert pair.answer(OUTPUT, Decision(2.0)) == single.answer(OUTPUT, Decision(2.0))
    torch.testing.assert_close(pair.divergence(OUTPUT, OUTPUT.flip(0)), single.divergence(OUTPUT, OUTPUT.flip(0)))
    scores = []
    for task in (pair, single):
        metric = task.metric()
        metric.add(OUTPUT, batch)
        scores.append(metric.value())
    assert scores[0] == scores[1]


def test_similarity_is_a_number_inside_the_range_seen(learn, batch_of):
    task = learn(TextPair(kind="similarity"), [0, 1.5, "5"])
    assert (task.best, task.outputs(), task.rule, task.labels) == ("r2", 1, None, None)
    batch = batch_of(task, [0, 5])
    output = batch.target[:, None]
    assert [a["label"] for a in task.answer(output * 3, Decision())] == [0.0, 5.0]
    metric = task.metric()
    metric.add(output * 3, batch)
    assert metric.value()["rmse"] == pytest.approx(0, abs=1e-6)
    other = learn(Regression(), [0, 1.5, 5])
    torch.testing.assert_close(task.loss(output + 1, batch), other.loss(output + 1, batch))
    again = TextPair(**task.settings())
    assert again.answer(output, Decision()) == task.answer(output, Decision())


def test_mistakes(learn):
    with pytest.raises(UserError, match="2 texts expected, 1 given"):
        TextPair().parse(("a",), 1, 0, 1.0)
    with pytest.raises(UserError, match=r"task\.kind=similarity"):
        learn(TextPair(), [i / 7 for i in range(1, 30)])
    with pytest.raises(UserError, match="'same' is not a number"):
        learn(TextPair(kind="similarity"), ["same"])


def test_its_loss_is_torchs(learn, batch_of):
    task = learn(TextPair(), ["a", "b"] * 2)
    batch = batch_of(task, ["a", "b", "b"])
    torch.testing.assert_close(task.loss(OUTPUT, batch), F.cross_entropy(OUTPUT, batch.target, reduction="none"))
