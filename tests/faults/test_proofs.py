"""What proves exactness and memory to a user: `verify-resume`, `make torture`, the predicted peak; with real processes."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainformer.studies import verify
from trainformer.studies.verify import Training, torture

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("TRAINFORMER_SHARED", ROOT.parent / "shared"))
MINILM = SHARED / "models" / "all-MiniLM-L6-v2"
Cli = Callable[..., Any]


@pytest.fixture
def config(write: Any, rows: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of settings: 3 epochs of 3 steps of the default recipe."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = {"train": write("rows.jsonl", rows(64)), "cache": str(tmp_path / "cache")}
    train = {"epochs": 3, "precision": "float32", "checkpoint_steps": 2, "baselines": False}
    return write("config.yaml", yaml.safe_dump({"data": data, "model": {"name": str(tiny_model)}, "train": train}))


@pytest.mark.slow
def test_verify_resume(cli: Cli, config: str, tmp_path: Path) -> None:
    """20 kills of real processes."""
    outcome = cli("verify-resume", config, "--kills", 20, "--seed", 1, "--out", tmp_path / "proof")
    assert outcome.code == 0, outcome.out + outcome.err
    assert outcome.out.startswith("20 kills in ") and outcome.out.endswith("ended with the bits of the one that was left alone\n")
    assert (tmp_path / "proof" / "whole" / "bundle").is_dir() and (tmp_path / "proof" / "killed-1" / "bundle").is_dir()


def test_verify_resume_says_what_differs(cli: Cli, trained: Path, config: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Processes that only copy a finished run; in the killed one a line of the log and a bit of the weights are others."""
    spoil = (
        "import json, pathlib, shutil, sys\n"
        "out = pathlib.Path(sys.argv[2])\n"
        "shutil.copytree(sys.argv[1], out, dirs_exist_ok=True)\n"
        "if out.name != 'whole':\n"
        "    log = out / 'log.jsonl'\n"
        "    lines = [json.loads(x) for x in log.read_text().splitlines()]\n"
        "    lines[2]['loss'] += 1e-7\n"
        "    log.write_text(''.join(json.dumps(x) + '\\n' for x in lines))\n"
        "    path = out / 'bundle' / 'model.safetensors'\n"
        "    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))\n"
    )

    def start(_: Path, run: Path) -> subprocess.Popen[bytes]:
        run.with_suffix(".txt").touch()
        return subprocess.Popen([sys.executable, "-c", spoil, trained, run])

    monkeypatch.setattr(verify, "_start", start)
    outcome = cli("verify-resume", config, "--kills", 1, "--out", tmp_path / "proof")
    assert outcome.code == 1
    told = outcome.out.splitlines()
    assert "killed-1: weights of the bundle: 1 of " in told[0] and "log.jsonl line 3" in told[0]
    assert told[-1].startswith("1 kills in ") and told[-1].endswith("NOT the same bits")


def test_verify_resume_of_a_run_that_fails(cli: Cli, config: str, tmp_path: Path) -> None:
    Path(config).write_text(Path(config).read_text().replace("rows.jsonl", "none.jsonl"))
    outcome = cli("verify-resume", config, "--kills", 1)
    assert outcome.code == 2
    assert "the run that is left alone ended with exit code 2: error: " in outcome.err and "no such file" in outcome.err


def test_kills_go_on_to_meet_runs_that_have_become_faster(tmp_path: Path) -> None:
    """The run that is left alone takes ten times as long as those after it, as on a machine that was busy at first."""
    seconds = iter([3.0])

    def start(run: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", str(next(seconds, 0.3))])

    verdict = torture(Training(start, lambda one, other: []), 20, random.Random(0), tmp_path, lambda line: None)
    assert verdict.kills == 20 and verdict.runs <= 15, "of kills drawn over 3 s nine in ten would miss"


@pytest.mark.slow
def test_torture_counts_ours_and_the_peer(tmp_path: Path) -> None:
    """3 kills each; ours ends with the same bits, and the table has a row for both."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- torture -->\nold\n<!-- /torture -->\nafter\n")
    words = [sys.executable, ROOT / "benchmarks" / "torture.py", "--kills", "3", "--docs", page]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    text = page.read_text()
    assert text.startswith("before\n<!-- torture -->\n|") and text.endswith("<!-- /torture -->\nafter\n") and "old" not in text
    rows = {
        line.split(" | ")[0]: line.strip("| ").split(" | ")[1:]
        for line in text.splitlines()
        if line.startswith("| T") or "Hugging" in line
    }
    assert rows["| Trainformer"][0] == rows["| Hugging Face Trainer"][0] == "3"
    assert rows["| Trainformer"][2:] == ["0", "0", "0"]


PEAK = """
import json, resource, sys
from trainformer.core import config
from trainformer.run import Run, train
from pathlib import Path
values = json.loads(sys.argv[1])
seen = []
train(Run(config.parse(values), Path(sys.argv[2]), print, show=lambda report: seen.append(report.forecast["peak_memory_mib"])))
print(json.dumps([seen[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not MINILM.is_dir(), reason="needs shared/models/all-MiniLM-L6-v2")
@pytest.mark.parametrize(
    "settings", [{"precision": "float32"}, {"precision": "bfloat16", "micro_tokens": 1000}], ids=["one", "cut"]
)
def test_the_peak_of_memory_is_predicted(tmp_path: Path, write: Any, rows: Any, settings: dict[str, Any]) -> None:
    """Within 25 % of what a process of its own held at most, for texts of 5 to 200 tokens."""
    texts = rows(160)
    long = [row | {"text": " ".join(r["text"] for r in texts[i : i + 1 + i % 20])} for i, row in enumerate(texts)]
    values = {
        "data": {"train": write("rows.jsonl", long), "test_share": 0, "cache": str(tmp_path / "cache")},
        "model": {"name": str(MINILM)},
        "train": {"epochs": 1, "baselines": False} | settings,
    }
    words = [sys.executable, "-c", PEAK, json.dumps(values), str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    predicted, measured = json.loads(done.stdout.splitlines()[-1])
    assert predicted == pytest.approx(measured, rel=0.25)
