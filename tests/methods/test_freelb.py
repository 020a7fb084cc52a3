"""The mean over the steps of the adversary, worked out by hand: the loss of a token is its row (1, 2) times (3, 4)."""

import pytest
import torch
from torch import Tensor

from trainformer.core.batch import Batch
from trainformer.core.roles import Facts, Grad, Model
from trainformer.methods.freelb import Freelb


def plain(model: Model) -> Grad:
    def grad(batches: list[Batch]) -> Tensor:
        losses = [model(batch).sum() for batch in batches]
        for loss in losses:
            loss.backward()
        return torch.stack(losses).sum().detach()

    return grad


def test_loss_and_gradient_are_means_over_the_moves(bag: Model, batch: Batch, facts: Facts) -> None:
    # moves of length 0, 0.5, 1.0 and then 1.2, the ball's, along (0.6, 0.8): the head's gradients are the moved rows
    method = Freelb(steps=4, rate=0.5, epsilon=1.2, start=0.0)
    method.prepare(bag, facts)
    loss = method.wrap_grad(plain(bag), bag)([batch])
    mean = (0 + 0.5 + 1.0 + 1.2) / 4
    assert float(loss) == pytest.approx(11 + 5 * mean, rel=1e-6)
    assert bag.head.weight.grad.tolist() == pytest.approx([1 + 0.6 * mean, 2 + 0.8 * mean], rel=1e-6)


def test_earlier_gradients_are_not_divided(bag: Model, batch: Batch, facts: Facts) -> None:
    bag.head.weight.grad = torch.tensor([100.0, 200.0])
    method = Freelb(steps=2, rate=0.5, epsilon=10.0, start=0.0)
    method.prepare(bag, facts)
    method.wrap_grad(plain(bag), bag)([batch])
    assert bag.head.weight.grad.tolist() == pytest.approx([101 + 0.6 * 0.25, 202 + 0.8 * 0.25], rel=1e-6)


def test_the_start_is_small_and_drawn_anew_for_each_step(bag: Model, batch: Batch, facts: Facts) -> None:
    """Uniform in -start..start, divided by the root of 1 token times 2 numbers."""
    method = Freelb(steps=1, start=0.3)
    method.prepare(bag, facts)
    seen = []
    for step in range(50):
        seen.append(float(method.wrap_grad(plain(bag), bag)([batch])) - 11)
        method.after_step(bag, step)
    most = 0.3 / 2**0.5 * (3 + 4)
    assert len(set(seen)) == 50 and max(map(abs, seen)) <= most and max(map(abs, seen)) > most / 2
