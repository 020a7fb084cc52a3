"""A run that was broken off and goes on by the command line ends in the same bundle as one that was not."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.fixture
def train(write: Any, rows: Any, cli: Cli, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`train("run")`: 3 epochs of 4 steps with a moving average. Modules of the folder `breaking` can be named."""
    monkeypatch.syspath_prepend(str(tmp_path))
    data = write("rows.jsonl", rows(80))
    sets = ("--set", "train.epochs=3", "--set", "train.precision=float32", "--method", "ema")
    yield lambda name, *words: cli("train", "--data", data, "--model", tiny_model, "--out", tmp_path / name, *sets, *words)
    for module in [m for m in sys.modules if m.partition(".")[0] == "breaking"]:
        del sys.modules[module]


def bundle(run: Path) -> dict[str, Any]:
    """What of a bundle follows from data and settings alone."""
    facts = json.loads((run / "bundle" / "trainformer.json").read_text())
    return {
        "weights": (run / "bundle" / "model.safetensors").read_bytes(),
        "scores": facts["scores"],
        "decision": facts["decision"],
    }


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) | {"seconds": None} for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("at", [1, 6, 8])
def test_go_on(train: Cli, cli: Cli, tmp_path: Path, at: int) -> None:
    """Broken off in the first epoch, in the second, and between the end of the second and its score."""
    assert train("whole").code == 0
    (tmp_path / "breaking").mkdir()
    (tmp_path / "breaking" / "off.py").write_text(
        "import os, signal\nfrom trainformer.core.roles import Callback\n"
        'class Off(Callback):\n    """Break off."""\n'
        f"    def on_step(self, report):\n        if report.step == {at}:\n            os.kill(os.getpid(), signal.SIGINT)\n"
    )
    off = train("broken", "--callback", "breaking.off")
    assert off.code == 130, off.err
    run = tmp_path / "broken"
    assert off.err.splitlines()[-1] == (
        f"stopped by SIGINT at step {at}; its checkpoint is kept. Go on with: trainformer train --out {run} --resume"
    )
    assert not (run / "bundle").exists()
    on = cli("train", "--out", run, "--resume")
    assert on.code == 0 and f"going on from step {at} of 12" in on.err, on.err
    assert bundle(run) == bundle(tmp_path / "whole")
    assert log(run) == log(tmp_path / "whole")


def test_killed_before_the_first_checkpoint(train: Cli, cli: Cli, tmp_path: Path) -> None:
    """The start was scored and the baselines were written, but no step was saved: all is done anew, the probe too."""
    assert train("whole").code == 0
    run = Path(shutil.copytree(tmp_path / "whole", tmp_path / "killed"))
    for name in (
        "bundle",
        "scores.json",
        "report.html",
        *(f"checkpoints/{p.name}" for p in (run / "checkpoints").glob("step-*")),
    ):
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    on = cli("train", "--out", run, "--resume")
    assert on.code == 0 and "no checkpoint yet: starting from the beginning" in on.err
    assert bundle(run) == bundle(tmp_path / "whole")
    assert log(run) == log(tmp_path / "whole")


def test_the_start_is_scored_with_the_probe_in_the_average(train: Cli, tmp_path: Path) -> None:
    """The moving average starts at the weights that the probe has given the head: it scores what the probe scored."""
    assert train("run").code == 0
    probe = json.loads((tmp_path / "run" / "baselines.json").read_text())[-1]
    start = log(tmp_path / "run")[0]
    assert (probe["name"], start["step"]) == ("linear probe", 0)
    assert start["validation"]["accuracy"] == probe["validation"]["accuracy"]
    assert start["validation"]["loss"] == pytest.approx(probe["validation"]["loss"], rel=0.05)
