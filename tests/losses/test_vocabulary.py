"""The loss of a vocabulary, piece by piece, beside PyTorch's: losses, gradients, in bfloat16 too."""

import pytest
import torch
from torch.nn import functional

from trainformer.losses import vocabulary
from trainformer.losses.classification import cross_entropy
from trainformer.losses.vocabulary import token_cross_entropy


@pytest.fixture(params=[1, 3 * 41, 2**19])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time, three of them, all at once."""
    monkeypatch.setattr(vocabulary, "AT_ONCE", request.param)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("rows", [0, 1, 8])
def test_like_the_library(pieces: None, rows: int, smoothing: float) -> None:
    torch.manual_seed(0)
    scores, target, weight = 4 * torch.randn(rows, 41), torch.randint(41, (rows,)), torch.rand(rows)
    one, other = (scores.clone().requires_grad_() for _ in range(2))
    found = token_cross_entropy(one, target, smoothing)
    expected = functional.cross_entropy(other.double(), target, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-7)


def test_in_bfloat16(pieces: None) -> None:
    torch.manual_seed(0)
    scores, target = torch.randn(8, 41).bfloat16(), torch.randint(41, (8,))
    one, other = (scores.clone().requires_grad_() for _ in range(2))
    found, expected = token_cross_entropy(one, target, 0.1), cross_entropy(other.float(), target, smoothing=0.1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    expected.sum().backward()
    assert one.grad is not None and one.grad.dtype == torch.bfloat16
    torch.testing.assert_close(one.grad, other.grad)


def test_large_scores_and_none() -> None:
    """Neither overflows; a score that is no number makes its loss none, and no other's."""
    scores = torch.tensor([[1e30, -1e30, 0.0], [torch.nan, 0.0, 0.0], [-torch.inf, 0.0, 0.0]])
    loss = token_cross_entropy(scores, torch.tensor([0, 1, 2]))
    assert loss[0] == 0 and loss[1].isnan() and loss[2] == pytest.approx(0.6931472)
