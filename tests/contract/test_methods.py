"""What every method must do. A new file in methods/ is picked up by its name."""

import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from trainformer.core import registry
from trainformer.core.batch import Batch
from trainformer.core.roles import Method

NAMES = registry.names(Method)
PAIRS = list(itertools.permutations(NAMES, 2))
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
"""The same for all workers of a run, and another for each run."""
SAMPLE = 3
"""One of so many pairs is tried in a run, another third in the next; all of them with `-m "slow or not slow"`."""
Build = Callable[..., Any]
ANOTHER_LOSS = {
    "distil": "the teacher's answers too",
    "freelb": "of moved embeddings",
    "group_dro": "of groups that weigh unequally",
    "mixup": "of mixed rows",
    "neftune": "of embeddings with noise",
    "simcse": "and how a row finds itself",
    "smart": "and how smooth the answers are",
    "supcon": "and how labels lie together",
    "vat": "and how smooth the answers are",
}
"""Methods that report another loss than the task's, without dropout and before the first step: which one."""

every_method = pytest.mark.parametrize("name", NAMES)


class _Plain(Method):
    """A method that changes nothing."""


class _Stop(Exception):
    """Stands for whatever can go wrong inside a gradient."""


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_five_methods_prove_the_roles() -> None:
    assert {"llrd", "ema", "rdrop", "fgm", "lora"} <= set(NAMES)


def test_defaults_are_the_identity(loop: Build, batch: Batch) -> None:
    run, method = loop(), _Plain()
    before, rules = run.weights(), dict(run.rules)
    method.extend(run.model)
    method.groups(run.model, run.rules)
    method.after_step(run.model, 1)
    method.swap(run.model)
    method.fold(run.model)
    method.restore(method.state())
    assert method.wrap_loss(run.loss) is run.loss
    assert method.wrap_grad(run.grad, run.model) is run.grad
    assert method.state() == {} and run.rules == rules and same(run.weights(), before)


@every_method
def test_its_settings_are_explained_and_rebuild_it(name: str) -> None:
    method = registry.build(Method, name, None)
    assert all(field.description for field in type(method).model_fields.values())
    assert type(method).summary().endswith(".") or ":" in type(method).summary()
    assert registry.build(Method, name, method.settings()).settings() == method.settings()


@every_method
def test_it_says_what_it_is_when_to_use_it_and_what_it_costs(name: str) -> None:
    """docs/methods.md is made of it: a summary, what it does, and four parts."""
    doc = vars(registry.find(Method, name))["__doc__"]  # type: ignore[type-abstract]
    summary, what, rest = re.fullmatch(r"(.+)\n\n((?:.+\n)+)\n((?:.+\n)+) *", doc).groups()  # type: ignore[union-attr]
    _, *parts = re.split(r"^ *(When|Cost|With|See|Command): ", rest, flags=re.MULTILINE)
    assert [part for part in parts[::2] if part != "Command"] == ["When", "Cost", "With", "See"]
    sentences = [summary, what, *(text for part, text in zip(parts[::2], parts[1::2], strict=True) if part != "Command")]
    assert all(text.strip().endswith(".") for text in sentences)
    assert "arXiv:" in parts[7]


@every_method
def test_it_learns_and_gives_the_plain_loss(name: str, loop: Build, batch: Batch) -> None:
    run = loop(name)
    before = run.plain(batch)
    losses = [run.step([batch]) for _ in range(20)]
    assert run.plain(batch) < before and all(loss == loss for loss in losses)
    if name not in ANOTHER_LOSS:
        assert losses[0] == pytest.approx(before, abs=1e-6)


@every_method
def test_the_loss_is_one_value_a_unit(name: str, loop: Build, batch: Batch) -> None:
    run = loop(name, dropout=0.2)
    losses = run.loss(run.model, batch)
    assert losses.shape == batch.weight.shape and bool(torch.isfinite(losses).all())


@every_method
def test_a_resumed_run_goes_on_with_the_same_bits(name: str, loop: Build, batch: Batch, pieces: list[Batch]) -> None:
    first = loop(name, dropout=0.2)
    for _ in range(3):
        first.step(pieces)
    saved = save({k: v.contiguous() for k, v in first.methods[0].state().items()})
    second = loop(name, dropout=0.2, weights=first.weights())
    second.methods[0].restore(load(saved))
    second.done = first.done
    for run in (first, second):
        run.step(pieces)
        run.step([batch])
    assert same(first.weights(), second.weights())
    assert same(first.methods[0].state(), second.methods[0].state())
    first.swap()
    second.swap()
    assert same(first.weights(), second.weights())


@every_method
def test_state_is_a_snapshot(name: str, loop: Build, batch: Batch) -> None:
    run = loop(name)
    run.step([batch])
    state = run.methods[0].state()
    before = {k: v.clone() for k, v in state.items()}
    run.step([batch])
    assert same(state, before)


@every_method
def test_what_is_frozen_keeps_its_bits(name: str, loop: Build, batch: Batch, pieces: list[Batch]) -> None:
    run = loop(name, dropout=0.2)
    frozen = {n for n, p in run.model.named_parameters() if not p.requires_grad}
    before = run.weights()
    for _ in range(3):
        run.step(pieces)
    after = run.weights()
    assert all(torch.equal(after[n], before[n]) for n in frozen)
    assert any(not torch.equal(after[n], before[n]) for n in set(before) - frozen)
    assert not frozen & set(run.rules), "the optimiser is not told of what is frozen"


@every_method
def test_swapping_twice_changes_no_bit(name: str, loop: Build, batch: Batch) -> None:
    run = loop(name)
    for _ in range(3):
        run.step([batch])
    before, state = run.weights(), run.methods[0].state()
    run.swap()
    run.swap()
    assert same(run.weights(), before) and same(run.methods[0].state(), state)


@every_method
def test_folding_keeps_the_outputs(name: str, loop: Build, batch: Batch) -> None:
    run = loop(name)
    for _ in range(3):
        run.step([batch])
    run.swap()
    before = run.outputs(batch)
    run.methods[0].fold(run.model)
    assert torch.allclose(run.outputs(batch), before, atol=1e-5)
    plain = loop(real=run.real).weights()
    if run.methods[0].stays:
        assert set(plain) < set(run.weights()), "what stays adds names and renames none"
    else:
        assert run.weights().keys() == plain.keys()


@every_method
@pytest.mark.parametrize("failing", [None, 1, 2])
def test_a_gradient_leaves_weights_and_switches_alone(name: str, failing: int | None, loop: Build, batch: Batch) -> None:
    run, calls = loop(name), itertools.count(1)

    def inner(batches: list[Batch]) -> Tensor:
        loss: Tensor = run.inner(batches)
        if next(calls) == failing:
            raise _Stop
        return loss

    grad = run.methods[0].wrap_grad(inner, run.model)
    before, trained = run.weights(), [p.requires_grad for p in run.model.parameters()]
    try:
        grad([batch])
    except _Stop:
        assert failing is not None
    assert same(run.weights(), before)
    assert [p.requires_grad for p in run.model.parameters()] == trained
    assert all(p.grad is None for p in run.model.parameters() if not p.requires_grad)


@every_method
def test_gradients_are_added_to_earlier_ones(name: str, loop: Build, batch: Batch) -> None:
    run = loop(name)
    run.grad([batch])
    once = run.gradients()
    run.grad([batch])
    assert all(torch.allclose(run.gradients()[n], 2 * once[n], atol=1e-5) for n in once)


@every_method
def test_micro_batches_change_nothing(name: str, loop: Build, batch: Batch, pieces: list[Batch]) -> None:
    whole, in_pieces = loop(name), loop(name)
    one, other = whole.grad([batch]), in_pieces.grad(pieces)
    assert torch.allclose(one, other, atol=1e-5)
    assert whole.gradients().keys() == in_pieces.gradients().keys()
    assert all(torch.allclose(g, in_pieces.gradients()[n], atol=1e-5) for n, g in whole.gradients().items())


@pytest.mark.parametrize(
    "pair",
    [pytest.param(p, marks=() if crc32("-".join((RUN, *p)).encode()) % SAMPLE == 0 else pytest.mark.slow) for p in PAIRS],
    ids="-".join,
)
def test_a_pair_works_or_is_refused_with_a_reason(pair: tuple[str, str], loop: Build, batch: Batch, pieces: list[Batch]) -> None:
    one, other = (registry.find(Method, name) for name in pair)  # type: ignore[type-abstract]
    if pair[1] in one.clashes or pair[0] in other.clashes:
        assert one.clashes.get(pair[1]) or other.clashes.get(pair[0])
        return
    run = loop(*pair)
    before = run.plain(batch)
    steps = 20 if "distil" in pair else 8  # the teacher has learnt nothing, and holds its pupil back at first
    losses = [run.step(pieces) for _ in range(steps)]
    assert run.plain(batch) < before and all(loss == loss for loss in losses)
    if not set(pair) & ANOTHER_LOSS.keys():
        assert losses[0] == pytest.approx(before, abs=1e-5)
    assert all(bool(torch.isfinite(value).all()) for value in run.weights().values())
    run.swap()
    before = run.outputs(batch)
    for method in run.methods:
        method.fold(run.model)
    assert torch.allclose(run.outputs(batch), before, atol=1e-5)


@every_method
def test_its_file_is_short_and_says_what_it_is_for(name: str) -> None:
    module = registry.find(Method, name).__module__  # type: ignore[type-abstract]
    lines = Path(__import__(module, fromlist=["_"]).__file__).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120 and lines[0].startswith('"""') and lines[0].endswith('"""')
