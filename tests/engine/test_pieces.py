"""Gradient caching: the rows of a step joined, a micro-batch in memory at a time, and the gradient that of one big batch."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainformer.core import registry
from trainformer.core.batch import Batch, Encoded, Part, cut, pack, shifted
from trainformer.core.errors import UserError
from trainformer.core.roles import Body, Method, Model, Task
from trainformer.engine.pieces import Loop, Together, base_grad, wrapped
from trainformer.engine.ranks import Ranks
from trainformer.losses.contrastive import in_batch


class Mean(Body):
    """The mean over the tokens of each example of an embedding that has gone through a layer and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 6
        self.table = nn.Embedding(20, 6)
        self.layer = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.3))
        self.runs: list[int] = []

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        self.runs.append(len(batch))
        hidden = self.layer(self.table(batch.parts[0].ids))
        return (torch.segment_reduce(hidden, "mean", lengths=torch.tensor(batch.parts[0].lengths), axis=0),)

    def embed(self) -> nn.Embedding:
        return self.table


class Same(nn.Module):
    def forward(self, hidden: tuple[Tensor, ...], batch: Batch) -> Tensor:
        return hidden[0]


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model(Mean(), Same())


@pytest.fixture
def whole() -> Batch:
    draw = torch.Generator().manual_seed(1)
    ids = [torch.randint(20, (n,), generator=draw) for n in (9, 7, 6, 4, 3, 2, 2, 1)]
    return pack([Encoded((Part(i, [len(i)]),), torch.tensor([row]), row, weight=1 + row % 3) for row, i in enumerate(ids)])


def contrast(model: nn.Module, batch: Batch) -> Tensor:
    """Two passes, each row finding itself."""
    return in_batch(model(batch), model(batch), 0.1)


def gradients(model: Model, batches: list[Batch], couples: bool = True) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    loss = base_grad(model, contrast, Loop(nullcontext, lambda: 0), lambda kind: couples)(batches)
    return float(loss), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("pieces", [2, 3, 8])
def test_any_micro_batches_give_the_loss_and_gradient_of_one_big_batch(pieces: int, model: Model, whole: Batch) -> None:
    model.eval()
    loss, expected = gradients(model, [whole])
    found_loss, found = gradients(model, cut(whole, pieces))
    assert found_loss == pytest.approx(loss, abs=1e-6)
    assert all((found[n] - g).norm() <= 1e-5 * g.norm() for n, g in expected.items())
    apart = gradients(model, cut(whole, pieces), couples=False)[0]
    assert abs(apart - loss) > 0.1, "piece by piece a row has fewer others to be told from"


def test_the_second_run_of_a_piece_has_the_dropout_of_the_first(model: Model, whole: Batch) -> None:
    """The expected gradient keeps every piece in memory, so nothing is run twice."""
    pieces = cut(whole, 3)
    torch.manual_seed(5)
    loss = in_batch(*(torch.cat([model(p) for p in pieces]) for _ in range(2)), temperature=0.1).sum()
    expected = torch.autograd.grad(loss, list(model.parameters()))
    torch.manual_seed(5)
    found = torch.autograd.grad(contrast(Together(model, pieces), whole).sum(), list(model.parameters()))
    assert all(torch.allclose(f, e, atol=1e-6) for f, e in zip(found, expected, strict=True))


def test_one_piece_at_a_time_is_run_and_a_single_one_is_run_once(model: Model, whole: Batch) -> None:
    body: Any = model.body
    gradients(model, cut(whole, 4))
    assert body.runs == [2] * 16, "two passes of four pieces, and each again for its gradient"
    body.runs.clear()
    gradients(model, [whole])
    assert body.runs == [8] * 2


def test_moves_of_embeddings_go_with_their_rows(model: Model, whole: Batch) -> None:
    model.eval()
    shift = torch.randn(len(whole.parts[0].ids), 6, requires_grad=True)
    whole_moved = shifted(whole, [shift])
    loss = contrast(model, whole_moved).sum()
    (expected,) = torch.autograd.grad(loss, shift)
    (found,) = torch.autograd.grad(contrast(Together(model, cut(whole, 3)), whole_moved).sum(), shift)
    assert torch.allclose(found, expected, atol=1e-6)
    own = shift.detach()[: len(whole.parts[0].ids)].split([sum(p.parts[0].lengths) for p in cut(whole, 3)])
    moved = [shifted(p, [s]) for p, s in zip(cut(whole, 3), own, strict=True)]
    assert gradients(model, moved)[0] == pytest.approx(_weighed(model, whole_moved), abs=1e-6)


def _weighed(model: Model, batch: Batch) -> float:
    with torch.no_grad():
        return float((contrast(model, batch) * batch.weight).mean())


def test_several_processes_refuse_a_loss_that_joins_their_rows(model: Model) -> None:
    """Each has a share of the rows alone: the loss would be another one."""
    ranks, task, method = Ranks(), registry.build(Task, "retrieval", None), registry.build(Method, "simcse", None)
    ranks.world = 2
    with pytest.raises(UserError, match=r"the loss of 'retrieval' joins all rows of a step"):
        wrapped(model, task, [], Loop(nullcontext, lambda: 0, ranks))
    with pytest.raises(UserError, match=r"the loss of 'simcse' joins all rows of a step"):
        wrapped(model, registry.build(Task, "text_classification", None), [method], Loop(nullcontext, lambda: 0, ranks))


def narrow(most: int, loss: Any) -> Any:
    """A loss that finds no memory for batches of more rows than `most`."""

    def found(model: nn.Module, batch: Batch) -> Tensor:
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss(model, batch)

    return found


@pytest.mark.parametrize("most", [4, 3, 1])
def test_out_of_memory_cuts_finer_and_gives_the_same(model: Model, whole: Batch, most: int) -> None:
    """The second of two micro-batches of 6 and 2 rows fits, the first does not; gradients of an earlier pass are kept."""
    model.eval()

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        part = batch.parts[0]
        assert part.shift is not None
        moves = torch.segment_reduce(part.shift.sum(1), "sum", lengths=torch.tensor(part.lengths))
        return (model(batch).sum(1) - moves) ** 2

    pieces, told = cut(whole, 2), list[int]()
    draw = torch.Generator().manual_seed(2)
    pieces = [shifted(p, (torch.randn(len(p.parts[0].ids), 6, generator=draw),)) for p in pieces]
    results = []
    for own in (loss, narrow(most, loss)):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        total = base_grad(model, own, Loop(nullcontext, lambda: 0, finer=told.append))(pieces)
        results.append((float(total), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    assert told == {4: [], 3: [4], 1: [4, 8]}[most]
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-6)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_out_of_memory_with_one_row(model: Model, whole: Batch) -> None:
    with pytest.raises(UserError) as refused:
        base_grad(model, narrow(0, contrast), Loop(nullcontext, lambda: 0))(cut(whole, 2))
    assert "too little memory for 8 micro-batches of 1 rows at most" in refused.value.what and "lora" in refused.value.fix
