"""Dropout: the share that falls, the scale of what stays, and the same mask in both passes."""

import pytest
import torch

from trainformer.nn.dropout import Dropout, quicken


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_share_and_scale(p: float, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    n = 999_999
    x = torch.ones(n, dtype=kind, requires_grad=True)
    y = Dropout(p)(x)
    fallen = float((y == 0).float().mean())
    assert abs(fallen - p) < 4 * (p * (1 - p) / n) ** 0.5  # four standard errors of a binomial share
    assert y.max().item() == pytest.approx(1 / (1 - p), rel=4e-3 if kind == torch.bfloat16 else 1e-4)
    y.sum().backward()
    assert x.grad is not None and x.grad.equal(y.detach())


def test_neighbours_fall_independently() -> None:
    """Four neighbours share a draw of 64 bits: of pairs both fall in p * p of the cases."""
    torch.manual_seed(0)
    fallen = (Dropout(0.25)(torch.ones(1_000_000)) == 0).view(-1, 4).double()
    together = fallen.T @ fallen / len(fallen)
    assert torch.allclose(together, torch.full((4, 4), 0.0625).double() + 0.1875 * torch.eye(4).double(), atol=3e-3)


def test_seed_and_evaluation() -> None:
    layer, x = Dropout(0.3), torch.randn(7, 5)
    torch.manual_seed(3)
    one = layer(x)
    torch.manual_seed(3)
    assert layer(x).equal(one) and not layer(x).equal(one)
    assert layer.eval()(x).equal(x)
    assert Dropout(0.0)(x).equal(x)


def test_everything_may_fall() -> None:
    assert Dropout(1.0)(torch.ones(50)).abs().sum() == 0


def test_quicken() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Sequential(torch.nn.Dropout2d(0.2)))
    quicken(model)
    assert type(model[0]) is Dropout and type(model[1][0]) is torch.nn.Dropout2d
