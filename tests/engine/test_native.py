"""A run with the kernels: it learns as one in float32 does, goes on with the same bits, and says what it uses."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainformer.core.roles import Callback, StepReport
from trainformer.engine.engine import Engine
from trainformer.engine.limits import Interrupted
from trainformer.nn.native.adamw import AdamW
from trainformer.nn.native.library import NoLibrary, load
from trainformer.nn.native.linear import Linear, half_of
from trainformer.nn.native.residual import AddNorm

Make = Callable[..., Engine]
METHODS: list[list[str]] = [["llrd", "ema"], ["fgm", "ema"], ["lora", "rdrop"]]


@pytest.fixture(autouse=True)
def _compiled() -> None:
    try:
        load()
    except NoLibrary as reason:
        pytest.skip(str(reason))


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
    assert curves["float32"][-4:].mean() < 0.6 * curves["float32"][:4].mean(), "there is something to learn"
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


def test_the_copies_are_those_of_the_weights_after_a_run(engine: Make) -> None:
    loop = engine("run", method=["llrd", "ema"], precision="bfloat16", native="on", epochs=1)
    loop.fit()
    layers = [m for m in loop.model.modules() if isinstance(m, Linear)]
    assert layers and all(half_of(m.weight).equal(m.weight.detach().to(torch.bfloat16)) for m in layers)


def test_what_is_used_is_said(engine: Make) -> None:
    on = engine("on", precision="bfloat16")
    assert on.native and on.said == ["kernels: compiled here for bfloat16 (--set train.native=off: plain PyTorch)"]
    assert isinstance(on.optimizer, AdamW) and any(isinstance(m, AddNorm) for m in on.model.modules())
    off = engine("off", precision="bfloat16", native="off")
    assert not off.native and off.said == [] and type(off.optimizer) is torch.optim.AdamW
    single = engine("single", precision="float32")
    assert not single.native and not any(isinstance(m, Linear | AddNorm) for m in single.model.modules())
