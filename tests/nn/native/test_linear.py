"""The linear layer against float64, and its copy of the weight against every way of writing to a weight."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

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


@pytest.mark.parametrize("write", [_swap, _load, _index, _data])
def test_whatever_writes_to_a_weight_makes_its_copy_old(write: Callable[[nn.Parameter], None]) -> None:
    weight = nn.Parameter(torch.zeros(5, 3))
    first = half_of(weight)
    assert half_of(weight) is first, "it is made once"
    write(weight)
    assert half_of(weight).eq(1).all() and first.eq(0).all(), "a graph that holds the old copy keeps it"


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
