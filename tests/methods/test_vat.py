"""The power method beside the analytic answer for a linear-softmax model."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.roles import Facts, Model
from trainformer.losses.classification import symmetric_kl
from trainformer.methods.smart import Smart
from trainformer.methods.vat import Vat

WEIGHT = torch.tensor([[1.0, 0.2], [-0.4, 0.9], [0.3, -2.0]])


class Linear(nn.Module):
    """Logits "1 3" of the one token: W times its state."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())

    def forward(self, hidden: tuple[Tensor, ...], batch: Batch) -> Tensor:
        return hidden[0] @ self.weight.T


@pytest.fixture
def softmax(bag: Model) -> Model:
    bag.head = Linear()
    return bag


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch), batch.target, reduction="none")


def prepared(method: Any, model: Model) -> Any:
    task: Any = SimpleNamespace(divergence=symmetric_kl)
    method.prepare(model, Facts(task, steps=1, seed=0))
    return method


def test_the_direction_is_the_first_eigenvector_of_the_fisher_information(softmax: Model, batch: Batch) -> None:
    """Near 0 half the symmetric divergence is r F r / 2 with F = W^T (diag p - p p^T) W, largest along its first eigenvector."""
    seen: list[Tensor] = []
    softmax.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].parts[0].shift))
    epsilon = 0.01
    method = prepared(Vat(alpha=1.0, epsilon=epsilon, probe=0.003, iterations=10), softmax)
    value = method.wrap_loss(loss)(softmax, batch) - loss(softmax, batch)
    p = (torch.tensor([[1.0, 2.0]]) @ WEIGHT.T).softmax(-1)[0].double()
    fisher = WEIGHT.T.double() @ (torch.diag(p) - torch.outer(p, p)) @ WEIGHT.double()
    values, vectors = torch.linalg.eigh(fisher)
    move = next(s for s in reversed(seen) if s is not None)[0].detach().double()
    assert float(move.norm()) == pytest.approx(epsilon, rel=1e-5)
    assert float((move / epsilon @ vectors[:, -1]).abs()) == pytest.approx(1, abs=1e-3)
    assert value.item() == pytest.approx(float(values[-1]) * epsilon**2 / 2, rel=0.02)


def test_only_the_moved_answer_learns(softmax: Model, batch: Batch) -> None:
    """The gradient is that of the divergence from a fixed answer at the same move."""
    seen: list[Tensor] = []
    method = prepared(Vat(alpha=2.0, epsilon=0.5), softmax)
    handle = softmax.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].parts[0].shift))
    method.wrap_loss(lambda model, batch: loss(model, batch) * 0)(softmax, batch).sum().backward()
    handle.remove()
    found = softmax.head.weight.grad.clone()
    move = next(s for s in reversed(seen) if s is not None).detach()
    softmax.zero_grad()
    first = softmax(batch).detach()
    (2.0 * symmetric_kl(first, (softmax.body(batch)[0] + move) @ softmax.head.weight.T)).sum().backward()
    assert torch.allclose(found, softmax.head.weight.grad, atol=1e-6)


@pytest.mark.parametrize("method", [Vat(), Smart()])
def test_dropout_alone_is_no_change(method: Any, softmax: Model, batch: Batch) -> None:
    """Both answers have the same dropout: where the move is next to nothing, so is the divergence."""
    softmax.head = nn.ModuleDict({"inner": softmax.head, "dropout": nn.Dropout(0.5)})
    softmax.head.forward = lambda hidden, batch: softmax.head["inner"]((softmax.head["dropout"](hidden[0]),), batch)
    tiny = type(method)(**method.settings() | {"epsilon": 1e-4})
    for seed in range(8):
        torch.manual_seed(seed)
        with_it = prepared(tiny, softmax).wrap_loss(loss)(softmax.train(), batch)
        torch.manual_seed(seed)
        assert with_it.item() == pytest.approx(loss(softmax, batch).item(), abs=1e-5)


def test_a_look_without_gradients_is_the_plain_loss(softmax: Model, batch: Batch) -> None:
    with torch.no_grad():
        assert torch.equal(prepared(Vat(), softmax).wrap_loss(loss)(softmax, batch), loss(softmax, batch))
