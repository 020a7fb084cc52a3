"""Length and direction of the step, worked out by hand: the loss of a token is its row times the head's weight (3, 4)."""

import pytest
import torch
from torch import Tensor

from trainformer.core.batch import Batch, Encoded, Part, pack
from trainformer.core.roles import Grad, Model
from trainformer.methods.fgm import Fgm


def plain(model: Model) -> Grad:
    """The gradient of the sum over all tokens."""

    def grad(batches: list[Batch]) -> Tensor:
        losses = [model(batch).sum() for batch in batches]
        for loss in losses:
            loss.backward()
        return torch.stack(losses).sum().detach()

    return grad


def test_embeddings_move_by_epsilon_along_the_gradient(bag: Model, batch: Batch) -> None:
    loss = Fgm(epsilon=0.5).wrap_grad(plain(bag), bag)([batch])
    assert float(loss) == 1 * 3 + 2 * 4  # the clean loss, not that of the moved row
    # g = (3, 4), ||g|| = 5: the row (1, 2) moves by 0.5 * (0.6, 0.8); the head's gradient is the row, before and after
    assert bag.head.weight.grad.tolist() == pytest.approx([1 + 1.3, 2 + 2.4])
    assert bag.body.embed().weight.grad.tolist() == [[6.0, 8.0], [0.0, 0.0], [0.0, 0.0]]
    assert bag.body.embed().weight.tolist() == [[1.0, 2.0], [5.0, 6.0], [7.0, 8.0]]


def test_the_norm_is_that_of_the_whole_step(bag: Model, batch: Batch) -> None:
    other = pack([Encoded((Part(torch.tensor([1]), [1]),), torch.tensor([1]), row=1)])
    Fgm(epsilon=1.0).wrap_grad(plain(bag), bag)([batch, other])
    # two rows have the gradient (3, 4): the norm is 5 sqrt 2, each moves by (3, 4) / (5 sqrt 2)
    move = [6 / (5 * 2**0.5), 8 / (5 * 2**0.5)]
    assert bag.head.weight.grad.tolist() == pytest.approx([2 * (1 + 5) + move[0], 2 * (2 + 6) + move[1]])


def test_earlier_gradients_are_added_once(bag: Model, batch: Batch) -> None:
    bag.head.weight.grad = torch.tensor([100.0, 200.0])
    seen = []

    def inner(batches: list[Batch]) -> Tensor:
        seen.append(bag.head.weight.grad)
        return plain(bag)(batches)

    Fgm(epsilon=0.5).wrap_grad(inner, bag)([batch])
    assert seen == [None, None]
    assert bag.head.weight.grad.tolist() == pytest.approx([102.3, 204.4])


def test_frozen_embeddings_are_moved_too_and_stay_frozen(bag: Model, batch: Batch) -> None:
    table = bag.body.embed().weight.requires_grad_(False)
    Fgm(epsilon=0.5).wrap_grad(plain(bag), bag)([batch])
    assert bag.head.weight.grad.tolist() == pytest.approx([2.3, 4.4])
    assert table.grad is None and not table.requires_grad


@pytest.mark.parametrize("used", [True, False])
def test_without_a_direction_nothing_moves(used: bool, bag: Model, batch: Batch) -> None:
    """A gradient of zero, and none at all."""

    def grad(batches: list[Batch]) -> Tensor:
        loss = (bag.head.weight * (bag.body(batches[0])[0] * 0.0 if used else 0.0) + bag.head.weight).sum()
        loss.backward()
        return loss.detach()

    assert float(Fgm().wrap_grad(grad, bag)([batch])) == 7.0
    assert bag.head.weight.grad.tolist() == [2.0, 2.0]


def test_weights_and_gradients_are_put_back_when_the_second_pass_fails(bag: Model, batch: Batch) -> None:
    torch.manual_seed(0)
    bag.body.embed().weight.data = torch.randn(3, 2) * 1e-3
    before, calls = bag.body.embed().weight.detach().clone(), []

    def failing(batches: list[Batch]) -> Tensor:
        calls.append(bag.body.embed().weight.detach().clone())
        if len(calls) == 2:
            raise MemoryError
        return plain(bag)(batches)

    with pytest.raises(MemoryError):
        Fgm().wrap_grad(failing, bag)([batch])
    assert not torch.equal(calls[1], before) and torch.equal(bag.body.embed().weight, before)
