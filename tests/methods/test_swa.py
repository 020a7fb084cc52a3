"""The mean of late weights, worked out by hand."""

from dataclasses import replace

import pytest
import torch

from trainformer.core.config import parse
from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Model
from trainformer.methods.swa import Swa


def run(method: Swa, model: Model, facts: Facts, steps: int) -> Swa:
    """The weights are 1, 2, 3, ... after each step."""
    method.prepare(model, facts)
    for step in range(steps):
        model.head.weight.data.fill_(step + 1)
        method.after_step(model, step)
    return method


@pytest.mark.parametrize(
    ("start", "every", "mean"),
    [(0.7, 1, (8 + 9 + 10) / 3), (0.0, 1, 5.5), (0.5, 2, (7 + 9) / 2), (0.55, 3, (8 + 0) / 1)],
)
def test_the_plain_mean_of_late_weights(start: float, every: int, mean: float, bag: Model, facts: Facts) -> None:
    """10 steps: those after floor(10 start), every so many."""
    method = run(Swa(start=start, every=every), bag, facts, 10)
    method.swap(bag)
    assert bag.head.weight.tolist() == pytest.approx([mean] * 2, rel=1e-6)
    method.swap(bag)
    assert bag.head.weight.tolist() == [10.0, 10.0]


def test_the_last_five_checkpoints(bag: Model, facts: Facts) -> None:
    """As docs/tasks/seq2seq.md says: of 2,000 steps those after 1,600, 1,700, 1,800, 1,900 and 2,000, whose mean is 1,800."""
    method = run(Swa(start=0.75, every=100), bag, replace(facts, steps=2000), 2000)
    assert method._taken == 5
    method.swap(bag)
    assert bag.head.weight.tolist() == pytest.approx([1800.0] * 2, rel=1e-6)


def test_before_there_is_a_mean_the_weights_ship(bag: Model, facts: Facts) -> None:
    method = run(Swa(start=0.7), bag, facts, 7)
    method.swap(bag)
    assert bag.head.weight.tolist() == [7.0, 7.0]


def test_a_second_average_is_refused() -> None:
    with pytest.raises(UserError, match=r"'swa' and 'ema' cannot be used together: both evaluate and ship an average"):
        parse({"method": ["swa", "ema"]})


def test_the_mean_of_other_weights_is_refused(bag: Model, stack: Model, facts: Facts) -> None:
    one, other = run(Swa(), bag, facts, 1), run(Swa(), stack, facts, 0)
    with pytest.raises(UserError, match="do not train the same weights"):
        other.restore(one.state())
    assert torch.is_tensor(one.state()["steps"])
