"""The commands of docs/many_machines.md, each run as it stands with two processes: torchrun, two machines, SLURM, Ray Train.

Only data and model are small, and the machines are this one: a second torchrun, and an `srun` that starts two.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "many_machines.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [text.strip() for kind, text in BLOCKS if kind == "sh"]
SECONDS = 300
SRUN = '#!/bin/sh\n"$@" & one=$!\n"$@" & other=$!\nwait $one && wait $other\n'
SCONTROL = '#!/bin/sh\n[ "$*" = "show hostnames here,there" ] && printf "localhost\\nlocalhost\\n"\n'


@pytest.fixture
def folder(tmp_path: Path, rows: Any) -> Path:
    lines = ["text,label", *(f"{row['text']},{row['label']}" for row in rows(64))]
    (tmp_path / "reviews.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"PATH": path, "TRAINFORMER_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


def small(command: str, model: Path) -> str:
    """The command with a tiny model and one epoch."""
    sets = "--set train.epochs=1 --set train.precision=float32 --set train.device=cpu"
    return command.replace("--data reviews.csv", f"--data reviews.csv --model {model} {sets}")


def run(command: list[str], folder: Path, environment: dict[str, str], machines: int = 1) -> None:
    """On several machines at once, or on one."""
    start = {"cwd": folder, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [subprocess.Popen(command, **start) for _ in range(machines)]  # type: ignore[call-overload]
    try:
        for process in started:
            told, _ = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, f"{command}\n{told}"
    finally:
        for process in started:
            process.kill()


def finished(run: Path) -> None:
    """Two processes trained it to its end."""
    assert json.loads((run / "scores.json").read_text())["test"]
    assert "2 processes share the rows of each step" in (run / "report.html").read_text(encoding="utf-8")


def test_one_machine(folder: Path, environment: dict[str, str], tiny_model: Path) -> None:
    """Trained, then made to look like a run that was stopped after its last checkpoint, and gone on with."""
    train, go_on = COMMANDS[:2]
    assert train.startswith("torchrun ") and go_on.endswith(" --out run --resume")
    run(shlex.split(small(train, tiny_model)), folder, environment)
    finished(folder / "run")
    (folder / "run" / "scores.json").unlink()
    shutil.rmtree(folder / "run" / "bundle")
    run(shlex.split(go_on), folder, environment)
    finished(folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS[2:], ids=lambda command: command.split("--out ")[1].split()[0])
def test_the_other_commands(folder: Path, environment: dict[str, str], tiny_model: Path, command: str) -> None:
    words = shlex.split(small(command, tiny_model))
    run(words, folder, environment, machines=2 if "--nnodes" in words else 1)
    finished(folder / words[words.index("--out") + 1])


@pytest.mark.slow
def test_slurm(folder: Path, environment: dict[str, str], tiny_model: Path) -> None:
    (script,) = (text for kind, text in BLOCKS if kind == "bash")
    (folder / "job.sh").write_text(small(script, tiny_model))
    (folder / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "here,there", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7"}
    run(["bash", "job.sh"], folder, environment | job)
    finished(folder / "run_slurm")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'ray[train]'")
def test_ray(folder: Path, environment: dict[str, str], tiny_model: Path) -> None:
    (program,) = (text for kind, text in BLOCKS if kind == "python")
    words = f', model="{tiny_model}", set={{"train.epochs": 1, "train.precision": "float32"}})'
    program = program.replace('out=settings["out"])', f'out=settings["out"]{words}').replace("/data/", f"{folder}/")
    (folder / "job.py").write_text(program, encoding="utf-8")
    run([sys.executable, "job.py"], folder, environment | {"RAY_USAGE_STATS_ENABLED": "0"})
    finished(folder / "run_ray")


def test_the_page_has_what_these_tests_run() -> None:
    assert [kind for kind, _ in BLOCKS] == ["sh", "sh", "sh", "sh", "sh", "bash", "python"]
    assert all(command.startswith("torchrun ") and "\n" not in command for command in COMMANDS)
