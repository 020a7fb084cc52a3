"""A run with the kernels: it learns as one in float32 does, goes on with the same bits, and says what it uses."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainformer.core.batch import Batch, cut, join
from trainformer.core.errors import UserError
from trainformer.core.roles import Callback, StepReport
from trainformer.engine import optim
from trainformer.engine.engine import Engine
from trainformer.engine.limits import Interrupted
from trainformer.engine.optim import KNOWN
from trainformer.nn.native import linear
from trainformer.nn.native.adamw import AdamW
from trainformer.nn.native.library import NoLibrary
from trainformer.nn.native.linear import Linear
from trainformer.nn.native.residual import AddNorm

Make = Callable[..., Engine]
METHODS: list[list[str]] = [["llrd", "ema"], ["sam", "ema"], ["lora", "rdrop"]]
KEPT = "kernels: compiled on this machine, for bfloat16 (--set train.native=off: plain PyTorch)"
pytestmark = pytest.mark.usefixtures("kernels")


def losses(log: Any, loop: Engine) -> list[float]:
    return [line["loss"] for line in log(loop) if "loss" in line]


def test_it_learns_as_float32_does(engine: Make, log: Any) -> None:
    """Dropout off, so that the curves can be laid side by side: bfloat16 moves each loss by little."""
    curves = {}
    for name, words in {"float32": {"precision": "float32"}, "plain": {"native": "off"}, "native": {"native": "on"}}.items():
        loop = engine(name, method=["ema"], **{"precision": "bfloat16", "epochs": 6} | words)
        for module in loop.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        loop.fit()
        curves[name] = torch.tensor(losses(log, loop))
    assert curves["float32"][-4:].mean() < 0.8 * curves["float32"][:4].mean(), "there is something to learn"
    far = {name: float((curves[name] - curves["float32"]).abs().max()) for name in ("plain", "native")}
    assert far["native"] < 0.05 and far["native"] < 2 * far["plain"] + 0.01, far


class Breaks(Callback):
    """Ctrl-C after a step."""

    at: int

    def on_step(self, report: StepReport) -> None:
        if report.step == self.at:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("method", METHODS, ids="+".join)
def test_a_run_that_goes_on_gives_the_same_bits(engine: Make, log: Any, bits: Any, method: list[str]) -> None:
    """Several micro-batches a step; stopped in the middle of the second epoch of 4 steps."""
    words: dict[str, Any] = {"method": method, "precision": "bfloat16", "native": "on", "micro_tokens": 60}
    whole = engine("whole", **words)
    whole.fit()
    with pytest.raises(Interrupted):
        engine("broken", callbacks={"breaks": Breaks(at=6)}, **words).fit()
    rest = engine("broken", **words)
    assert rest.resume() == ["going on from step 6 of 12"]
    rest.fit()
    assert log(rest) == log(whole)
    assert all(a.equal(b) for a, b in zip(bits(rest).values(), bits(whole).values(), strict=True))


@pytest.mark.parametrize("optimizer", KNOWN)
@pytest.mark.parametrize("method", [["llrd"], ["sam", "swa"]], ids="+".join)
def test_copies_are_never_old(engine: Make, copies: list[torch.Tensor], optimizer: str, method: list[str]) -> None:
    """Through steps, evaluations with other weights, and the best weights put back at the end; several micro-batches a step."""
    if optimizer == "schedule_free" and "swa" in method:
        method = ["sam"]
    loop = engine("run", method=method, precision="bfloat16", native="on", optimizer=optimizer, micro_tokens=60, epochs=2)
    assert isinstance(loop.optimizer, AdamW) == (optimizer == "adamw")
    loop.fit()
    layers = [m for m in loop.model.modules() if isinstance(m, Linear)]
    assert len(copies) >= 2 * 4 * len(layers) > 0
    loop.ship()
    assert all(linear.half_of(m.weight) is not None for m in layers)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_norm_is_held_down_alike(engine: Make, optimizer: str) -> None:
    """Ours scales as it reads, the library before: the same weights after a step, and the same norm."""
    found = []
    for native in ("on", "off"):
        loop = engine(f"run-{native}", precision="bfloat16", native=native, optimizer=optimizer, clip_norm=0.01)
        draw = torch.Generator().manual_seed(0)
        for step in range(3):
            for parameter in loop.trained:
                parameter.grad = torch.randn(parameter.shape, generator=draw) * (1e-6 if step == 1 else 1.0)
            norm = optim.clip(loop.trained, 0.01, loop.optimizer)
            optim.set_rate(loop.optimizer, 1e-2)
            loop.optimizer.step()
        found.append((norm, [p.detach().clone() for p in loop.trained]))
    assert found[0][0].equal(found[1][0])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_micro_batches_change_little(engine: Make) -> None:
    """Gradients of pieces are added up in float32: they differ from the whole one by the rounding of their parts."""
    loop = engine("run", precision="bfloat16", native="on", model={"dropout": 0})
    loop.model.train()
    found = []
    for pieces in (loop.plan[0], cut(join(loop.plan[0]), 3)):
        loop.gradient(pieces)
        found.append(torch.cat([p.grad.flatten() for p in loop.trained if p.grad is not None]))
        loop.optimizer.zero_grad()
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 2.0**-6


@pytest.mark.parametrize("method", [["llrd"], ["rdrop"], ["lora"]], ids="+".join)
def test_layers_that_are_computed_again_give_the_same_bits(engine: Make, method: list[str]) -> None:
    found = []
    for again in (False, True):
        loop = engine(f"run-{again}", method=method, precision="bfloat16", native="on", recompute=again)
        loop.model.train()
        loss = loop.gradient(cut(join(loop.plan[0]), 3))
        found.append((float(loss), [p.grad for p in loop.trained if p.grad is not None]))
    assert found[0][0] == found[1][0] and len(found[0][1]) == len(found[1][1]) > 0
    assert all(one.equal(other) for one, other in zip(found[0][1], found[1][1], strict=True))


def test_what_is_no_number_is_not_hidden(engine: Make) -> None:
    loop = engine("run", precision="bfloat16", native="on")
    weight, gradient = next(m for m in loop.model.modules() if isinstance(m, Linear)).weight, loop.gradient

    def spoilt(batches: list[Batch]) -> torch.Tensor:
        with torch.no_grad():
            weight[0, 0] = torch.nan
        return gradient(batches)

    loop.gradient = spoilt
    with pytest.raises(UserError, match=r"not finite\. The weights were not changed"):
        loop.fit()


def test_what_is_used_is_said(engine: Make) -> None:
    on = engine("on", precision="bfloat16")
    assert on.native and on.said == [KEPT]
    assert isinstance(on.optimizer, AdamW) and any(isinstance(m, AddNorm) for m in on.model.modules())
    off = engine("off", precision="bfloat16", native="off")
    assert not off.native and off.said == [] and type(off.optimizer) is torch.optim.AdamW
    single = engine("single", precision="float32")
    assert (single.native, single.said) == (False, [])
    assert not any(isinstance(m, Linear | AddNorm) for m in single.model.modules())
    with pytest.raises(UserError, match="no kernels: they are for bfloat16, and this run is in float32") as refused:
        engine("on", precision="float32", native="on")
    assert refused.value.fix == "Set it to auto, or see docs/native.md."


def test_without_a_compiler(engine: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """auto goes on without, and says so; on is refused, with the reason."""

    def none() -> None:
        raise NoLibrary("there is no C compiler (cc)")

    monkeypatch.setattr("trainformer.engine.native.load", none)
    loop = engine("auto", precision="bfloat16")
    assert (loop.native, loop.said) == (False, ["kernels: none, there is no C compiler (cc); plain PyTorch instead"])
    assert not any(isinstance(m, Linear | AddNorm) for m in loop.model.modules())
    with pytest.raises(UserError, match="no kernels: there is no C compiler"):
        engine("on", precision="bfloat16", native="on")
