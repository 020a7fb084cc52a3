"""Greedy selection by validation score, worked out by hand."""

from collections.abc import Callable

import pytest
import torch

from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Model
from trainformer.methods.soup import Soup


def cooked(
    model: Model, facts: Facts, weights: list[float], score: Callable[[float], float], keep: int = 4
) -> tuple[Soup, list[float]]:
    """What the head's weight is at each score that is asked for at the end; the last one is what ships."""
    method = Soup(keep=keep)
    method.prepare(model, facts)
    for weight in weights:
        model.head.weight.data.fill_(weight)
        method.scored(model, score(weight))
    asked: list[float] = []

    def ask() -> float:
        asked.append(float(model.head.weight.detach()[0]))
        return score(asked[-1])

    method.finish(model, ask)
    return method, [*asked, float(model.head.weight.detach()[0])]


def near_five(weight: float) -> float:
    return -abs(weight - 5.0)


def test_a_checkpoint_is_mixed_in_if_the_mean_is_no_worse(bag: Model, facts: Facts) -> None:
    """From the best down: 4; 4 and 7 (5.5), nearer; 4, 7 and 8.5 (6.5), further; 4, 7 and 1 (4), further."""
    _, asked = cooked(bag, facts, [1.0, 4.0, 8.5, 7.0], near_five)
    assert asked == pytest.approx([4.0, 5.5, 6.5, 4.0, 5.5])


def test_the_best_ones_are_kept_and_of_equals_the_first(bag: Model, facts: Facts) -> None:
    method, asked = cooked(bag, facts, [3.0, 7.0, 4.0, 20.0, 3.0], near_five, keep=2)
    assert asked[0] == 4.0 and asked[1] == 3.5, "4, and of the equals 3 and 7 the first"
    assert method.state()["scores"].tolist() == [-1.0, -2.0]


def test_one_checkpoint_alone_ships_as_it_is(bag: Model, facts: Facts) -> None:
    assert cooked(bag, facts, [4.0], near_five)[1] == [4.0, 4.0]


def test_it_goes_on_with_what_was_kept(bag: Model, stack: Model, facts: Facts) -> None:
    first, asked = cooked(bag, facts, [1.0, 4.0, 8.5, 7.0], near_five)
    second = Soup()
    second.prepare(bag, facts)
    second.restore(first.state())
    second.finish(bag, lambda: near_five(float(bag.head.weight.detach()[0])))
    assert float(bag.head.weight.detach()[0]) == asked[-1]
    other = Soup()
    other.prepare(stack, facts)
    with pytest.raises(UserError, match="not of one model"):
        other.restore(first.state())
    assert torch.is_tensor(first.state()["scores"])
