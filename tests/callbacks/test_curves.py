"""Curves are read back from the files that TensorBoard and Weights & Biases write; nothing is sent anywhere."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainformer.callbacks.tensorboard import Tensorboard
from trainformer.callbacks.wandb import Wandb
from trainformer.core.errors import MissingExtra, UserError
from trainformer.core.roles import EvalReport, StepReport


def facts(folder: Path, start: int = 0) -> dict[str, Any]:
    return {"run": str(folder), "steps": 4, "start": start, "config": {"train": {"lr": 0.1}}, "model": "tiny"}


def step(number: int, loss: float) -> StepReport:
    return StepReport(number, 4, number / 2, loss, 1e-4, 90, 10, 0.5, 1.0)


def test_tensorboard_reads_back_what_a_run_and_its_continuation_wrote(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first, second = Tensorboard(), Tensorboard()
    first.on_start(facts(tmp_path))
    for number, loss in ((1, 4.0), (2, 3.0), (3, 9.0)):
        first.on_step(step(number, loss))
    first.on_eval(EvalReport(2, 1.0, {"accuracy": 0.75}, True, "accuracy", True))
    first.on_end()
    second.on_start(facts(tmp_path, start=2))  # broken off after step 3, resumed from the checkpoint of step 2
    second.on_step(step(3, 2.0))
    second.on_end()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 4.0), (2, 3.0), (3, 2.0)]
    assert [e.value for e in events.Scalars("train/tokens_per_s")] == [180.0, 180.0, 180.0]
    assert [(e.step, e.value) for e in events.Scalars("validation/accuracy")] == [(2, 0.75)]
    assert events.Scalars("train/lr")[0].value == pytest.approx(1e-4)


class Recorder:
    """Stands for the library of Weights & Biases."""

    def __init__(self, logged_in: bool = True):
        self.logged_in, self.logs, self.started = logged_in, [], {}
        self.Settings = SimpleNamespace
        self.id = "abc"

    def login(self, prompt: bool) -> bool:
        assert prompt is False, "it must never ask"
        return self.logged_in

    def init(self, **settings: Any) -> "Recorder":
        self.started = settings
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.logs.append((step, values))

    def finish(self) -> None:
        self.logs.append("finished")


def test_wandb_gets_steps_and_scores_and_a_resumed_run_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", library)
    first, second = Wandb(project="films", every=2), Wandb()
    first.on_start(facts(tmp_path))
    assert library.started["mode"] == "offline" and library.started["dir"] == str(tmp_path)
    assert library.started["project"] == "films" and library.started["resume"] is None
    for number in (1, 2):
        first.on_step(step(number, 3.0))
    first.on_eval(EvalReport(2, 1.0, {"accuracy": 0.75}, True, "accuracy", True))
    first.on_end()
    train = {"train/loss": 3.0, "train/lr": 1e-4, "train/grad_norm": 1.0, "train/tokens_per_s": 180.0, "epoch": 1.0}
    assert library.logs == [(2, train), (2, {"validation/accuracy": 0.75, "epoch": 1.0}), "finished"]
    second.restore(first.state())
    second.on_start(facts(tmp_path, start=2))
    assert library.started["id"] == "abc" and library.started["resume"] == "allow"


def test_wandb_online_without_a_login_is_the_users_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Recorder(logged_in=False))
    with pytest.raises(UserError, match="nobody is logged in"):
        Wandb(mode="online").on_start(facts(tmp_path))


def test_wandb_offline_writes_into_the_folder_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs the extra 'wandb'")
    for variable in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    (tmp_path / "run").mkdir()
    callback = Wandb()
    callback.on_start(facts(tmp_path / "run"))
    callback.on_step(step(1, 3.0))
    callback.on_end()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))


@pytest.mark.parametrize(("callback", "package"), [(Wandb(), "wandb"), (Tensorboard(), "tensorboard")])
def test_without_the_package_it_says_what_to_install(
    callback: Any, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'trainformer\[{package}\]'"):
        callback.on_start(facts(tmp_path))
