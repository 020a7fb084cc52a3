"""Steps and ball worked out by hand: the loss of a token is its row (1, 2) times the head's weight (3, 4)."""

import pytest
import torch
from torch import Tensor

from trainformer.core.batch import Batch, Encoded, Part, pack
from trainformer.core.roles import Grad, Model
from trainformer.methods.pgd import Pgd


def plain(model: Model) -> Grad:
    def grad(batches: list[Batch]) -> Tensor:
        losses = [model(batch).sum() for batch in batches]
        for loss in losses:
            loss.backward()
        return torch.stack(losses).sum().detach()

    return grad


@pytest.mark.parametrize(("epsilon", "steps", "length"), [(10.0, 1, 0.5), (10.0, 3, 1.5), (0.8, 3, 0.8)])
def test_steps_go_uphill_within_the_ball(epsilon: float, steps: int, length: float, bag: Model, batch: Batch) -> None:
    loss = Pgd(epsilon=epsilon, rate=0.5, steps=steps).wrap_grad(plain(bag), bag)([batch])
    assert float(loss) == 11.0, "the loss at the embeddings"
    # every gradient of the row is (3, 4), of length 5: each step moves it by 0.5 * (0.6, 0.8); the head's gradient is the row
    assert bag.head.weight.grad.tolist() == pytest.approx([1 + 1 + 0.6 * length, 2 + 2 + 0.8 * length], rel=1e-6)
    assert bag.body.embed().weight.grad.tolist() == [[6.0, 8.0], [0.0, 0.0], [0.0, 0.0]], "the ascent's own are thrown away"


def test_each_row_has_its_own_ball(bag: Model, batch: Batch) -> None:
    """Beside a row of two tokens, whose gradient is sqrt 2 times as long, the first row moves as it does alone."""
    other = pack([Encoded((Part(torch.tensor([1, 2]), [2]),), torch.tensor([1]), row=1)])
    Pgd(epsilon=10.0, rate=0.5, steps=1).wrap_grad(plain(bag), bag)([batch, other])
    clean = torch.tensor([1.0 + 5 + 7, 2.0 + 6 + 8])
    move = torch.tensor([0.6, 0.8]) * 0.5 * (1 + 2 * 0.5**0.5)
    assert torch.allclose(bag.head.weight.grad, 2 * clean + move)


def test_frozen_embeddings_are_moved_too(bag: Model, batch: Batch) -> None:
    bag.body.embed().weight.requires_grad_(False)
    Pgd(epsilon=10.0, rate=0.5, steps=1).wrap_grad(plain(bag), bag)([batch])
    assert bag.head.weight.grad.tolist() == pytest.approx([2.3, 4.4])
    assert bag.body.embed().weight.grad is None
