"""What every callback must do. A new file in callbacks/ is picked up by its name."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainformer.core import registry
from trainformer.core.errors import MissingExtra
from trainformer.core.roles import Callback, EvalReport, StepReport

every_callback = pytest.mark.parametrize("name", registry.names(Callback))


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written outside of the test's folder, and nothing is sent."""
    for variable in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))


def facts(folder: Path, start: int = 0) -> dict[str, Any]:
    return {"run": str(folder), "steps": 4, "start": start, "config": {"train": {"seed": 0}}, "model": "tiny"}


def step(number: int) -> StepReport:
    return StepReport(number, 4, number / 2, 1 / number, 1e-4, 90, 10, 0.01, 1.0)


def evaluation(number: int, score: float) -> EvalReport:
    return EvalReport(number, number / 2, {"accuracy": score, "loss": 1 - score}, score > 0.5, "accuracy", True)


def start(callback: Callback, folder: Path, first: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    try:
        callback.on_start(facts(folder, first))
    except MissingExtra as missing:
        pytest.skip(str(missing))


@every_callback
def test_its_settings_are_explained_and_rebuild_it(name: str) -> None:
    callback = registry.build(Callback, name, None)
    assert all(field.description for field in type(callback).model_fields.values())
    assert type(callback).summary()
    assert registry.build(Callback, name, callback.settings()).settings() == callback.settings()


@every_callback
def test_it_sees_a_run_and_goes_on_with_its_state(name: str, tmp_path: Path) -> None:
    first = registry.build(Callback, name, None)
    start(first, tmp_path / "run")
    first.on_step(step(1))
    first.on_step(step(2))
    assert first.on_eval(evaluation(2, 0.7)) is False
    state = json.loads(json.dumps(first.state()))
    first.on_end()
    second = registry.build(Callback, name, None)
    second.restore(state)
    assert second.state() == state
    start(second, tmp_path / "run", first=2)
    second.on_step(step(3))
    assert second.on_eval(evaluation(4, 0.8)) is False
    second.on_end()


@every_callback
def test_a_run_may_break_off_at_any_time(name: str, tmp_path: Path) -> None:
    callback = registry.build(Callback, name, None)
    callback.on_end()
    start(callback, tmp_path / "run")
    callback.on_end()
    callback.on_end()
