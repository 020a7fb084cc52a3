"""Optimisers of our own, step by step in float64 beside their formulas; those of PyTorch where it has them."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from trainformer.core.config import TrainSettings, parse
from trainformer.core.errors import UserError
from trainformer.engine import checkpoint, optim
from trainformer.engine.optimizers.lion import Lion
from trainformer.engine.optimizers.muon import Muon
from trainformer.engine.optimizers.schedule_free import ScheduleFree

RATES = [0.02, 0.1, 0.1, 0.05, 0.1]


def gradient(w: Tensor) -> Tensor:
    """Of the sum of w^4 / 4 - w."""
    return w**3 - 1


def start() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64))


def walk(optimizer: Any, w: torch.nn.Parameter) -> None:
    for lr in RATES:
        optimizer.param_groups[0]["lr"] = lr
        w.grad = gradient(w.detach())
        optimizer.step()


def test_lion_by_its_formula() -> None:
    w = start()
    walk(Lion([{"params": [w], "weight_decay": 0.1}], lr=0.0), w)
    expected = start().tolist()
    average = [0.0] * 3
    for lr in RATES:
        for i, value in enumerate(expected):
            g = value**3 - 1
            expected[i] -= lr * (math.copysign(1, 0.9 * average[i] + 0.1 * g) + 0.1 * value)
            average[i] = 0.99 * average[i] + 0.01 * g
    assert w.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_schedule_free_by_its_three_sequences(decay: float) -> None:
    """z, x and y as in the paper: z steps, x is the mean of z weighed by the square of the highest rate, y lies between."""
    w = start()
    optimizer = ScheduleFree([{"params": [w], "weight_decay": decay}], 0.0, (0.9, 0.99), 1e-8)
    walk(optimizer, w)
    z, x, y = (start().detach() for _ in range(3))
    square, highest, total = torch.zeros(3, dtype=torch.float64), 0.0, 0.0
    for n, lr in enumerate(RATES, start=1):
        g = gradient(y)
        square = 0.99 * square + 0.01 * g**2
        z = z - lr * (g / ((square / (1 - 0.99**n)).sqrt() + 1e-8) + decay * y)
        highest = max(highest, lr)
        total += highest**2
        x = x + highest**2 / total * (z - x)
        y = 0.1 * z + 0.9 * x
    assert torch.allclose(w.detach(), y, rtol=1e-5)
    before = w.detach().clone()
    optimizer.swap()
    assert torch.allclose(w.detach(), x, rtol=1e-5)
    optimizer.swap()
    assert torch.equal(w.detach(), before)


def test_muon_is_pytorchs_for_matrices_and_adamw_for_the_rest() -> None:
    torch.manual_seed(0)
    matrix, bias = (torch.nn.Parameter(torch.randn(*shape)) for shape in ((4, 3), (3,)))
    alone, other = (torch.nn.Parameter(p.detach().clone()) for p in (matrix, bias))
    groups = [
        {"params": [bias], "matrices": False, "weight_decay": 0.0},
        {"params": [matrix], "matrices": True, "weight_decay": 0.1},
    ]
    ours = Muon(groups, 0.1, (0.9, 0.99), 1e-8)
    theirs = torch.optim.Muon([alone], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([other], lr=0.1, betas=(0.9, 0.99), weight_decay=0.0)
    for step in range(4):
        if step == 2:  # as a run that goes on does
            saved = {k: v.clone() for k, v in checkpoint.optimizer_tensors(ours).items()}
            ours = Muon(groups, 0.1, (0.9, 0.99), 1e-8)
            checkpoint.restore_optimizer(ours, saved)
        for group in [*ours.param_groups, *theirs.param_groups, *adamw.param_groups]:
            group["lr"] = 0.1 / (step + 1)
        for one, same in ((matrix, alone), (bias, other)):
            one.grad = torch.randn_like(one)
            same.grad = one.grad.clone()
        for optimizer in (ours, theirs, adamw):
            optimizer.step()
    assert torch.equal(matrix, alone) and torch.equal(bias, other)


def test_which_weights_muon_takes(engine: Any) -> None:
    loop = engine("run", optimizer="muon")
    taken = {id(p) for g in loop.optimizer.param_groups if g["matrices"] for p in g["params"]}
    for name, parameter in loop.model.named_parameters():
        wanted = name.startswith("body.") and name.endswith("weight") and "LayerNorm" not in name and "embeddings" not in name
        assert (id(parameter) in taken) == wanted, name


@pytest.mark.parametrize("name", sorted(optim.KNOWN))
def test_each_learns(name: str, engine: Any) -> None:
    loop = engine("run", method=["llrd"], optimizer=name, lr=1e-3 * optim.KNOWN[name].factor, epochs=8)
    before = loop.evaluate(loop.job.validation).value()["loss"]
    loop.fit()
    assert loop.evaluate(loop.job.validation).value()["loss"] < before


def test_two_averages_are_refused(engine: Any) -> None:
    with pytest.raises(UserError, match=r"'ema' and schedule_free both average the weights.*--method llrd"):
        engine("run", method=["ema"], optimizer="schedule_free")


def test_every_name_is_known_and_a_wrong_one_is_refused() -> None:
    assert set(optim.KNOWN) == set(TrainSettings.model_fields["optimizer"].annotation.__args__)  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"train\.optimizer"):
        parse({"train": {"optimizer": "lyon"}})
