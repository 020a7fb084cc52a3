"""Dropout, residual and norm in one: against float64, and the randomness of what falls."""

import copy
import ctypes

import pytest
import torch
from torch import Tensor, nn

from trainformer.nn.native.library import call
from trainformer.nn.native.residual import AddNorm, drop, quicken

HALF = torch.bfloat16


class Output(nn.Module):
    """What the end of a block looks like in the library."""

    def __init__(self, wide: int = 24, width: int = 32, p: float = 0.1):
        super().__init__()
        self.dense, self.dropout, self.LayerNorm = nn.Linear(wide, width), nn.Dropout(p), nn.LayerNorm(width, eps=1e-7)

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(hidden_states)) + input_tensor)


class Before(Output):
    """The norm elsewhere: it must be left alone."""

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        return self.dropout(self.dense(hidden_states)) + self.LayerNorm(input_tensor)


def fallen(rows: int, width: int, p: float, seed: int = 0) -> Tensor:
    """What the kernel lets fall of ones, "T D"; the norm is undone by its own statistics."""
    torch.manual_seed(seed)
    y, x = torch.ones(rows, width, dtype=HALF), torch.zeros(rows, width, dtype=HALF)
    total, out, stats = torch.empty_like(y), torch.empty_like(y), torch.empty(rows, 2)
    call("norm", y, x, torch.ones(width), torch.zeros(width), total, out, stats, rows, width, ctypes.byref(drop(p, 1e-5)))
    return total


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 7), (65, 33), (200, 768)])
def test_output_and_gradients_without_dropout(threads: int, rows: int, width: int) -> None:
    torch.manual_seed(1)
    block = Output(5, width, p=0.0)
    with torch.no_grad():
        block.LayerNorm.weight.normal_()
        block.LayerNorm.bias.normal_()
    exact = copy.deepcopy(block.LayerNorm).double()
    assert quicken(nn.Sequential(block)) == 1 and isinstance(block, AddNorm) and isinstance(block, Output)
    y, x, grad = (torch.randn(rows, width).to(HALF).requires_grad_() for _ in range(3))
    block.dense = nn.Identity()
    with torch.autocast("cpu", HALF):
        found = block(y, x)
    found.backward(grad)
    yd, xd = (t.detach().double().requires_grad_() for t in (y, x))
    expected = exact(yd + xd)
    expected.backward(grad.detach().double())
    sizes = 2.0**-8
    _close(found, expected, sizes)
    if width > 1:  # of one number the deviation is 0, and what is left is rounding
        _close(y.grad, yd.grad, 3 * sizes)  # the sum is kept in bfloat16 for the way back
        _close(x.grad, xd.grad, 3 * sizes)
        _close(block.LayerNorm.weight.grad, exact.weight.grad, 2 * sizes)
    _close(block.LayerNorm.bias.grad, exact.bias.grad, 1e-5)


def _close(found: Tensor | None, expected: Tensor | None, share: float) -> None:
    assert found is not None and expected is not None
    found, expected = found.detach().double(), expected.detach()
    assert float((found - expected).abs().max()) <= share * float(expected.abs().max())


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_share_and_scale(p: float) -> None:
    ones = fallen(1301, 769, p)
    n = ones.numel()
    assert abs(float((ones == 0).float().mean()) - p) < 4 * (p * (1 - p) / n) ** 0.5  # four standard errors
    assert ones.max().item() == pytest.approx(1 / (1 - p), rel=4e-3)


def test_elements_rows_and_calls_fall_independently() -> None:
    """Of pairs, near and far, both fall in p * p of the cases: four standard errors of 1,000,000 pairs are 9.7e-4."""
    gone = (fallen(1000, 1000, 0.25) == 0).double()
    other = (fallen(1000, 1000, 0.25, seed=1) == 0).double()
    for one, two in [(gone, gone.roll(k, d)) for k in (1, 2, 500) for d in (0, 1)] + [(gone, other), (gone, gone.t())]:
        assert abs(float((one * two).mean()) - 0.0625) < 9.7e-4 + 0.1875 * 1e-3 * (two is not other)


def test_seed_and_threads_decide_the_same() -> None:
    torch.set_num_threads(1)
    one = fallen(70, 48, 0.3)
    torch.set_num_threads(3)
    assert fallen(70, 48, 0.3).equal(one) and not fallen(70, 48, 0.3, seed=1).equal(one)


def test_what_fell_gets_no_gradient_and_the_rest_the_scale() -> None:
    """With a weight of one and a gradient whose mean and slope along the norm are zero, the gradient passes as it is."""
    torch.manual_seed(0)
    block = Output(4, 64, p=0.5)
    quicken(nn.Sequential(block))
    block.dense = nn.Identity()
    y = torch.randn(50, 64).to(HALF).requires_grad_()
    x = torch.zeros(50, 64, dtype=HALF, requires_grad=True)
    with torch.autocast("cpu", HALF):
        block(y, x).backward(torch.randn(50, 64).to(HALF))
    assert y.grad is not None and x.grad is not None
    fell = y.grad == 0
    assert 0.4 < float(fell.float().mean()) < 0.6
    assert torch.allclose(y.grad[~fell].float(), 2 * x.grad[~fell].float(), rtol=2.0**-7)


def test_gradients_for_any_number_of_threads() -> None:
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        block = Output(4, 96, p=0.1)
        quicken(nn.Sequential(block))
        block.dense = nn.Identity()
        y, x = (torch.randn(333, 96).to(HALF).requires_grad_() for _ in range(2))
        with torch.autocast("cpu", HALF):
            block(y, x).backward(torch.randn(333, 96).to(HALF))
        found.append([y.grad, x.grad, block.LayerNorm.weight.grad, block.LayerNorm.bias.grad])
    assert all(a.equal(b) for other in found[1:] for a, b in zip(found[0], other, strict=True))  # type: ignore[union-attr]


def test_another_order_is_left_alone() -> None:
    block = Before(32, 32)
    assert quicken(nn.Sequential(block)) == 0 and type(block) is Before and block.training


def test_elsewhere_it_is_the_plain_block() -> None:
    block = Output()
    plain, x, y = copy.deepcopy(block).eval(), torch.randn(3, 24), torch.randn(3, 32)
    quicken(nn.Sequential(block))
    assert block.eval()(x, y).equal(plain(x, y))
    torch.manual_seed(0)
    one = block.train()(x, y)
    torch.manual_seed(0)
    assert plain.train()(x, y).equal(one), "float32"
