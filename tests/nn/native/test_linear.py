"""The linear layer against float64, and its copy of the weight against every way of writing to a weight."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import trainformer
from trainformer.nn.native import speed_up, watch_optimisers
from trainformer.nn.native.library import call
from trainformer.nn.native.linear import Linear, half_of, quicken

HALF = 2.0**-8
"""Rounding to bfloat16 moves a number by at most this share of it."""


def test_rounding_is_that_of_the_library() -> None:
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 3.4e38, 1e-45, 1.00390625, 1.01171875])
    numbers = torch.cat([special, torch.randn(50_001) * 10.0 ** torch.randint(-30, 30, (50_001,))])
    short, back = torch.empty(len(numbers), dtype=torch.bfloat16), torch.empty(len(numbers))
    call("to_half", numbers, short, len(numbers))
    call("to_float", short, back, len(numbers))
    expected = numbers.to(torch.bfloat16)
    assert torch.equal(short.nan_to_num(7), expected.nan_to_num(7)) and short.isnan().equal(expected.isnan())
    assert torch.equal(back.nan_to_num(7), expected.float().nan_to_num(7))


@pytest.mark.parametrize("rows", [1, 7, 8, 64, 395])
@pytest.mark.parametrize("columns", [1, 8, 31, 33, 129, 768])
def test_turned(threads: int, rows: int, columns: int) -> None:
    grad = torch.randn(rows, columns).to(torch.bfloat16)
    turned, sums = torch.empty(columns, rows, dtype=torch.bfloat16), torch.empty(columns)
    call("turn_and_sum", grad, turned, sums, rows, columns)
    assert turned.equal(grad.t())
    assert torch.allclose(sums.double(), grad.double().sum(0), rtol=0, atol=1e-6 * rows)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "wide", "out"), [((2, 37), 48, 96), ((395,), 33, 129), ((1,), 1, 1)])
def test_output_and_gradients(threads: int, rows: tuple[int, ...], wide: int, out: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(wide, out, bias=bias)
    assert quicken(nn.Sequential(layer)) == 1 and type(layer) is Linear
    x = torch.randn(*rows, wide, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16 and y.shape == (*rows, out)
    grad = torch.randn(y.shape).to(torch.bfloat16)
    y.backward(grad)
    exact = [t.detach().double().to(torch.bfloat16).double().requires_grad_() for t in (x, layer.weight)]
    expected = exact[0] @ exact[1].t() + (layer.bias.detach().to(torch.bfloat16).double() if bias else 0)
    expected.backward(grad.double())
    _close(y, expected)
    _close(x.grad, exact[0].grad)
    _close(layer.weight.grad, exact[1].grad)
    if bias:
        assert layer.bias.grad is not None and layer.bias.grad.dtype == torch.float32
        assert torch.allclose(layer.bias.grad.double(), grad.double().reshape(-1, out).sum(0), rtol=0, atol=1e-4)


def _close(found: Tensor | None, expected: Tensor | None) -> None:
    assert found is not None and expected is not None
    found, expected = found.detach(), expected.detach()
    size = float(expected.abs().max())
    assert float((found.double() - expected).abs().max()) <= HALF * size


def test_gradients_are_added() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 24), torch.randn(9, 16)
    quicken(nn.Sequential(layer))
    found = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            layer(x).float().pow(2).sum().backward()
        assert layer.weight.grad is not None
        found.append(layer.weight.grad.clone())
    assert found[1].equal(2 * found[0])


def test_a_frozen_weight_gets_no_gradient() -> None:
    layer, x = nn.Linear(16, 24).requires_grad_(False), torch.randn(9, 16, requires_grad=True)
    quicken(nn.Sequential(layer))
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).float().sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is None and x.grad is not None


def _swap(weight: nn.Parameter) -> None:
    with torch.no_grad():
        weight.copy_(torch.ones_like(weight))


def _load(weight: nn.Parameter) -> None:
    holder = nn.Module()
    holder.weight = weight
    holder.load_state_dict({"weight": torch.ones_like(weight)})


def _index(weight: nn.Parameter) -> None:
    weight.detach().index_copy_(0, torch.arange(len(weight)), torch.ones_like(weight).detach())


def _data(weight: nn.Parameter) -> None:
    weight.data = torch.ones_like(weight)


def _inference(weight: nn.Parameter) -> None:
    with torch.inference_mode():
        weight.fill_(1.0)


def _foreach(weight: nn.Parameter) -> None:
    with torch.no_grad():
        torch._foreach_add_([weight], 1.0)


def _view(weight: nn.Parameter) -> None:
    weight.detach().view(-1)[:7].fill_(1.0)
    weight.detach().view(-1)[7:].fill_(1.0)


def _fused(weight: nn.Parameter) -> None:
    """From 0, with a gradient of -1 and a rate of 1, to 1: a write that PyTorch does not count."""
    watch_optimisers()
    weight.grad = torch.full_like(weight, -1.0)
    torch.optim.AdamW([weight], lr=1.0, weight_decay=0.0, fused=True).step()
    assert weight.detach().sub(1).abs().max() < 1e-4


@pytest.mark.parametrize("write", [_swap, _load, _index, _data, _inference, _foreach, _view, _fused])
def test_whatever_writes_to_a_weight_makes_its_copy_old(write: Callable[[nn.Parameter], None]) -> None:
    weight = nn.Parameter(torch.zeros(5, 3))
    first = half_of(weight)
    assert half_of(weight) is first, "it is made once"
    write(weight)
    assert half_of(weight).eq(1).all() and first.eq(0).all(), "a graph that holds the old copy keeps it"


def test_an_address_that_is_used_again_is_no_proof() -> None:
    """`.data` leaves the count of writes as it is, and the memory of the first numbers would be free for the third."""
    weight = nn.Parameter(torch.zeros(500, 300))
    half_of(weight)
    for value in range(1, 6):
        weight.data = torch.full_like(weight, -1.0).detach()
        weight.data = torch.full_like(weight, value).detach()
        assert half_of(weight).eq(value).all()


def test_no_one_writes_behind_the_count() -> None:
    """`weight.data.add_` is not seen. Of all weights only the one of AdaLoRA that is no matrix is written to like that."""
    home, unseen = Path(trainformer.__file__).parent, re.compile(r"\.data(\.\w+_\(|\[.*\] *=[^=]| *[-+*/]= )")
    found = [
        str(p.relative_to(home))
        for p in home.rglob("*.py")
        for x in p.read_text(encoding="utf-8").splitlines()
        if unseen.search(x)
    ]
    assert found == ["nn/rank_budget.py"]


def test_who_trains_anew_begins_without_copies() -> None:
    layer = nn.Linear(4, 4)
    half_of(layer.weight)
    layer.weight.data.add_(1.0)
    speed_up(layer)
    assert half_of(layer.weight).equal(layer.weight.detach().to(torch.bfloat16))


def test_without_gradients_nothing_is_kept_that_could_not_be_trained() -> None:
    layer, x = nn.Sequential(nn.Linear(8, 8)), torch.randn(3, 8)
    quicken(layer)
    for context in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with context(), torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
    y.float().sum().backward()
    assert layer[0].weight.grad is not None


def test_a_copied_model_has_copies_of_its_own() -> None:
    weight = nn.Parameter(torch.zeros(5, 3))
    half_of(weight)
    assert not hasattr(copy.deepcopy(weight), "_half")


def test_elsewhere_it_is_the_plain_layer() -> None:
    layer = nn.Linear(8, 8)
    plain, x = copy.deepcopy(layer), torch.randn(3, 8)
    quicken(nn.Sequential(layer))
    assert layer(x).equal(plain(x)), "float32"
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.eval()(x).equal(plain(x)), "evaluation"
    assert isinstance(layer, nn.Linear) and not hasattr(layer.weight, "_half")
