"""Scores of a vocabulary by blocks of rows: against float64, for any number of rows, and where nothing is cut."""

import pytest
import torch
from torch import Tensor, nn

from trainformer.nn.blocks import ROWS, ByBlocks, by_blocks

HALF = 2.0**-8
"""Rounding to bfloat16 moves a number by at most this share of it."""


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, ROWS // 4, ROWS - 1, ROWS, 2 * ROWS + 65])
def test_output_and_gradients(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(24, 97, bias=bias)
    x, grad = torch.randn(rows, 24, requires_grad=True), torch.randn(rows, 97).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = by_blocks(x, layer.weight, layer.bias)
    assert y.dtype == torch.bfloat16
    y.backward(grad)
    exact = [t.detach().bfloat16().double().requires_grad_() for t in (x, layer.weight)]
    expected = exact[0] @ exact[1].t() + (layer.bias.detach().double() if bias else 0)
    expected.backward(grad.double())
    _close(y, expected)
    _close(x.grad, exact[0].grad)
    _close(layer.weight.grad, exact[1].grad)
    if bias:
        _close(layer.bias.grad, grad.double().sum(0))


def _close(found: Tensor | None, expected: Tensor | None) -> None:
    assert found is not None and expected is not None
    found, expected = found.detach(), expected.detach()
    size = float(expected.abs().max()) if expected.numel() else 0.0
    assert found.shape == expected.shape and bool(((found.double() - expected).abs() <= 2 * HALF * size).all())


def test_only_what_has_a_gradient() -> None:
    layer = nn.Linear(8, 16)
    layer.weight.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        by_blocks(torch.randn(3, 8), layer.weight, layer.bias).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is not None and layer.bias.grad.eq(3).all()


def test_elsewhere_it_is_the_plain_layer() -> None:
    """In float32, where no gradient is asked for, and for states that are no rows."""
    layer = ByBlocks(8, 16)
    plain = nn.functional.linear
    x = torch.randn(5, 8)
    assert torch.equal(layer(x), plain(x, layer.weight, layer.bias))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(layer(x), plain(x, layer.weight, layer.bias))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x[None]).shape == (1, 5, 16)
