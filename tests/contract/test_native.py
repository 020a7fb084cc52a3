"""Every method with the kernels: it learns from their gradients what it would without them, and never from old weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainformer.core import registry
from trainformer.core.batch import Batch
from trainformer.core.roles import Method
from trainformer.nn.native import linear, speed_up

Build = Callable[..., Any]
NAMES = registry.names(Method)
LOOSE = {"vat": 0.2}
"""Where a gradient may be farther off: the direction of VAT is that of a difference between two passes, and both are rounded."""
AUTOCAST = partial(torch.autocast, "cpu", torch.bfloat16)
pytestmark = pytest.mark.usefixtures("kernels")


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_as_near_to_float32_as_without(name: str, loop: Build, pieces: list[Batch], copies: list[Tensor]) -> None:
    """Of a BERT, without dropout; after three more steps and a look at the weights to ship the copies are still right."""
    runs = {"float32": loop(name, real=True), "plain": loop(name, real=True, numbers=AUTOCAST)}
    runs["native"] = loop(name, real=True, numbers=AUTOCAST)
    speed_up(runs["native"].model.body)
    found = {}
    for kind, run in runs.items():
        run.step(pieces)
        found[kind] = torch.cat([g.flatten() for g in run.gradients().values()])
    with AUTOCAST():
        assert {t.dtype for t in runs["native"].model.train().body(pieces[0])} == {torch.float32}, "as it is without kernels"
    size = float(found["float32"].norm())
    far = {kind: float((found[kind] - found["float32"]).norm()) / size for kind in ("plain", "native")}
    assert far["native"] < 1.5 * far["plain"] + LOOSE.get(name, 0.01), far
    assert copies or not any(type(m) is linear.Linear for m in runs["native"].model.modules())
    for _ in range(2):
        runs["native"].step(pieces)
        runs["native"].swap()
        runs["native"].outputs(pieces[0])
        runs["native"].swap()
    runs["native"].step(pieces)
    assert all(bool(torch.isfinite(value).all()) for value in runs["native"].weights().values())


@pytest.mark.parametrize("name", NAMES)
def test_folding_keeps_the_outputs(name: str, loop: Build, batch: Batch) -> None:
    run = loop(name, real=True, numbers=AUTOCAST)
    speed_up(run.model.body)
    for _ in range(3):
        run.step([batch])
    run.swap()
    before = run.outputs(batch)
    run.methods[0].fold(run.model)
    assert torch.allclose(run.outputs(batch), before, atol=1e-5)
    assert any(isinstance(m, nn.Linear) for m in run.model.modules())
