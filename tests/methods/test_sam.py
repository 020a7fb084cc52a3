"""SAM's gradient beside the formula: the gradient at w + rho g / |g|."""

import pytest
import torch
from torch import Tensor

from trainformer.core.batch import Batch
from trainformer.core.roles import Grad, Model
from trainformer.methods.sam import Sam


def quadratic(model: Model) -> Grad:
    """Half the sum of a w^2 over the head's weight (w1, w2), a = (1, 3): the gradient is (w1, 3 w2)."""

    def grad(batches: list[Batch]) -> Tensor:
        loss = (torch.tensor([1.0, 3.0]) * model.head.weight**2).sum() / 2
        loss.backward()
        return loss.detach()

    return grad


def test_the_gradient_is_that_of_the_worst_weights_nearby(bag: Model, batch: Batch) -> None:
    # w = (3, 4), g = (3, 12), |g| = sqrt 153; at w + rho g / |g| the gradient is (3 + r 3, 3 (4 + r 12)), r = rho / sqrt 153
    r = 0.5 / 153**0.5
    loss = Sam(rho=0.5).wrap_grad(quadratic(bag), bag)([batch])
    assert float(loss) == (9 + 3 * 16) / 2, "the loss where the weights are"
    assert bag.head.weight.grad.tolist() == pytest.approx([3 + 3 * r, 12 + 36 * r], rel=1e-6)
    assert bag.head.weight.tolist() == [3.0, 4.0]


def test_earlier_gradients_are_added_once_and_do_not_turn_the_direction(bag: Model, batch: Batch) -> None:
    bag.head.weight.grad = torch.tensor([100.0, 0.0])
    r = 0.5 / 153**0.5
    Sam(rho=0.5).wrap_grad(quadratic(bag), bag)([batch])
    assert bag.head.weight.grad.tolist() == pytest.approx([103 + 3 * r, 12 + 36 * r], rel=1e-6)


def test_without_a_gradient_nothing_moves(bag: Model, batch: Batch) -> None:
    with torch.no_grad():
        bag.head.weight.zero_()
    Sam().wrap_grad(quadratic(bag), bag)([batch])
    assert bag.head.weight.grad.tolist() == [0.0, 0.0]
