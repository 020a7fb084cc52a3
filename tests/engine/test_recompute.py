"""Layers that compute their inside again: the same bits, with dropout, and less is kept for the backward pass."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainformer.core.batch import cut, join

Make = Callable[..., Any]


@pytest.mark.parametrize("method", ["llrd", "rdrop", "lora"])
def test_the_gradient_has_the_same_bits(engine: Make, method: str) -> None:
    """Of three micro-batches with layouts of their own: the backward pass of each meets its own again."""
    plain, again = engine("plain", method=method), engine("again", method=method, recompute=True)
    found = []
    for loop in (plain, again):
        loop.model.train()
        pieces = cut(join(loop.plan[0]), 3)
        assert len({tuple(b.parts[0].lengths) for b in pieces}) == 3
        loss = loop.gradient(pieces)
        found.append((float(loss), [p.grad for p in loop.trained]))
    assert found[0][0] == found[1][0]
    assert all(one.equal(other) for one, other in zip(found[0][1], found[1][1], strict=True))


def test_a_backward_pass_long_after_meets_its_own_layout(engine: Make) -> None:
    loop = engine("run", recompute=True, model={"dropout": 0})
    one, other = (piece.to(loop.device) for piece in cut(join(loop.plan[0]), 2))
    loop.model.train()
    loop.model(one).sum().backward()
    expected = loop.model.body.embed().weight.grad.clone()
    loop.optimizer.zero_grad()
    first = loop.model(one).sum()
    loop.model(other)
    first.backward()
    assert loop.model.body.embed().weight.grad.equal(expected)


def test_less_is_kept(engine: Make) -> None:
    """Bytes that autograd keeps of one pass: with two layers at least a third less."""
    kept = []
    for recompute in (False, True):
        loop = engine("run", recompute=recompute)
        loop.model.train()
        seen: dict[int, int] = {}

        def note(tensor: torch.Tensor, seen: dict[int, int] = seen) -> torch.Tensor:
            seen[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        batch = join(loop.plan[0])
        weights = {p.data_ptr() for p in loop.model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = loop.model(batch)
        kept.append(sum(size for place, size in seen.items() if place not in weights))
        assert output.requires_grad
    assert kept[1] < kept[0] * 2 / 3


def test_names_stay_and_a_copy_runs_its_own_layers(engine: Make) -> None:
    plain, again = engine("plain"), engine("again", recompute=True)
    assert list(plain.model.state_dict()) == list(again.model.state_dict())
    twin = copy.deepcopy(again.model)
    with torch.no_grad():
        for parameter in twin.body.parameters():
            parameter.zero_()
    batch = join(again.plan[0])
    assert not again.model.eval()(batch).equal(twin.eval()(batch))
