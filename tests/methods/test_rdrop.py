"""The value of R-Drop by its formula."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.roles import Facts, Model
from trainformer.methods.rdrop import Rdrop

MEAN_LOSS = (0.2876820724 + 0.6931471806) / 2
"""Of -ln 0.75 and -ln 0.5."""
DIVERGENCE = (0.1308120 + 0.1438410) / 2
"""Of KL(p|q) = 0.25 ln 0.5 + 0.75 ln 1.5 and KL(q|p) = 0.5 ln 2 + 0.5 ln(2/3)."""


class Twofold(nn.Module):
    """Says p = (1/4, 3/4), then q = (1/2, 1/2), and so on: as if dropout had changed it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.calls = 0

    def forward(self, batch: Batch) -> Tensor:
        self.calls += 1
        logits = torch.tensor([[0.0, 1.0986122887]]) if self.calls % 2 else torch.zeros(1, 2)
        return self.weight * logits


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch), batch.target, reduction="none")


def symmetric(one: Tensor, other: Tensor) -> Tensor:
    p, q = one.log_softmax(-1), other.log_softmax(-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1) / 2


@pytest.fixture
def wrapped(bag: Model) -> Callable[..., Any]:
    def make(alpha: float, inside: Any = cross_entropy) -> Any:
        method, task = Rdrop(alpha=alpha), SimpleNamespace(divergence=symmetric)
        method.prepare(bag, Facts(task, steps=1, seed=0))  # type: ignore[arg-type]
        return method.wrap_loss(inside)

    return make


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
def test_the_mean_of_both_losses_and_alpha_times_the_divergence(alpha: float, wrapped: Callable[..., Any], batch: Batch) -> None:
    loss = wrapped(alpha)(Twofold(), batch)
    assert loss.tolist() == pytest.approx([MEAN_LOSS + alpha * DIVERGENCE], rel=1e-5)


def test_gradients_flow_through_both_passes(wrapped: Callable[..., Any], batch: Batch) -> None:
    model = Twofold()
    wrapped(1.0)(model, batch).sum().backward()
    # Only p depends on the weight w: d/dw [CE(p)/2 + D(p,q)] with logit z = w ln 3 and s = 3/4:
    # (s - 1)/2 * ln 3 from the loss; D = (s - 1/2) z / 2, so dD/dw = (s (1 - s) z + (s - 1/2)) / 2 * ln 3
    z, s = 1.0986122887, 0.75
    assert float(model.weight.grad) == pytest.approx((s - 1) / 2 * z + (s * (1 - s) * z + (s - 0.5)) / 2 * z, rel=1e-5)


def test_a_look_without_gradients_is_not_compared(wrapped: Callable[..., Any], batch: Batch) -> None:
    def inside(model: nn.Module, batch: Batch) -> Tensor:
        first = cross_entropy(model, batch)
        with torch.no_grad():
            model(batch), model(batch)
        return first

    assert wrapped(1.0, inside)(Twofold(), batch).tolist() == pytest.approx([MEAN_LOSS + DIVERGENCE], rel=1e-5)


def test_the_model_inside_is_the_very_model_and_keeps_no_hook(wrapped: Callable[..., Any], batch: Batch) -> None:
    seen, model = [], Twofold()

    def inside(given: nn.Module, batch: Batch) -> Tensor:
        seen.append(given)
        return cross_entropy(given, batch)

    wrapped(1.0, inside)(model, batch)
    assert seen == [model, model] and not model._forward_hooks


def test_a_loss_that_runs_the_model_twice_has_the_mean_divergence(wrapped: Callable[..., Any], batch: Batch) -> None:
    def inside(model: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(model, batch) + 0 * cross_entropy(model, batch)

    # both passes see p, then q: like is compared with like, and is not apart
    assert wrapped(1.0, inside)(Twofold(), batch).tolist() == pytest.approx([0.2876820724], rel=1e-5)
