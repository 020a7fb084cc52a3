"""The move and the divergence of SMART, worked out by hand for a model of one direction."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Model
from trainformer.losses.regression import squared_error
from trainformer.methods.smart import Smart


def zero(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch) * 0


@pytest.mark.parametrize(("epsilon", "rate", "length"), [(1.0, 0.1, 0.1), (0.05, 0.1, 0.05)])
def test_the_move_goes_to_the_corner_of_the_cube(epsilon: float, rate: float, length: float, bag: Model, batch: Batch) -> None:
    """The answer is 3 a + 4 b, its squared change (3 x + 4 y)^2: the gradient is along (3, 4), by max (0.75, 1) * rate."""
    task: Any = SimpleNamespace(divergence=squared_error)
    method = Smart(alpha=2.0, epsilon=epsilon, rate=rate, noise=1e-6)
    method.prepare(bag, Facts(task, steps=1, seed=0))
    value = method.wrap_loss(zero)(bag, batch)
    x = min(0.75 * rate, epsilon)
    change = 3 * x + 4 * min(length, epsilon)
    assert value.item() == pytest.approx(2.0 * change**2, rel=1e-3)


def test_steps_stay_near_the_averaged_weights(bag: Model, batch: Batch) -> None:
    """The answer of the row (1, 2) is 11 with the weights (3, 4). They go to (5, 4), whose answer is 13; the average follows."""
    task: Any = SimpleNamespace(divergence=squared_error)
    method = Smart(alpha=1e-9, proximal=0.5)
    method.prepare(bag, Facts(task, steps=10, seed=0))
    smooth = method.wrap_loss(zero)
    assert smooth(bag, batch).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        bag.head.weight.copy_(torch.tensor([5.0, 4.0]))
    value = smooth(bag, batch)
    assert value.item() == pytest.approx(0.5 * (13 - 11) ** 2)
    value.sum().backward()
    assert bag.head.weight.grad.tolist() == pytest.approx([0.5 * 2 * 2 * 1, 0.5 * 2 * 2 * 2], rel=1e-5)
    # After 1 of 10 steps 0.99 is kept, 0.99 * 3 + 0.01 * 5 = 3.02; then 0.999, 0.999 * 3.02 + 0.001 * 5 = 3.02198.
    for step, near in ((1, 3.02), (2, 3.02198)):
        method.after_step(bag, step)
        assert smooth(bag, batch).item() == pytest.approx(0.5 * (13 - (near + 8)) ** 2, rel=1e-5)
    assert bag.head.weight.tolist() == [5, 4]


def test_without_the_proximal_half_no_average_is_kept(bag: Model, batch: Batch) -> None:
    task: Any = SimpleNamespace(divergence=squared_error)
    method = Smart(alpha=1e-9, proximal=0)
    method.prepare(bag, Facts(task, steps=10, seed=0))
    bag.head.weight.data.fill_(5.0)
    assert method.wrap_loss(zero)(bag, batch).item() == pytest.approx(0, abs=1e-6)
    assert set(method.state()) == {"step"}


def test_an_average_of_other_weights_is_refused(bag: Model, stack: Model) -> None:
    task: Any = SimpleNamespace(divergence=squared_error)
    one, other = Smart(), Smart()
    one.prepare(bag, Facts(task, steps=10, seed=0))
    other.prepare(stack, Facts(task, steps=10, seed=0))
    with pytest.raises(UserError, match=r"smart: .*do not train the same weights"):
        other.restore(one.state())


def test_both_answers_learn(bag: Model, batch: Batch) -> None:
    """The gradient to the weight w of (w r)^2 is 2 (w r) r at the move r, and none is left of the row itself."""
    task: Any = SimpleNamespace(divergence=squared_error)
    method = Smart(alpha=1.0, epsilon=1.0, rate=0.1, noise=1e-6)
    method.prepare(bag, Facts(task, steps=1, seed=0))
    method.wrap_loss(zero)(bag, batch).sum().backward()
    r = torch.tensor([0.075, 0.1])
    sign = torch.sign(bag.head.weight.grad[0])
    assert torch.allclose(bag.head.weight.grad, sign * sign * 2 * (3 * 0.075 + 4 * 0.1) * r, rtol=1e-3)
