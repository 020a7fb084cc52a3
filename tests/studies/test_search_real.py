"""Searches with real trials in real processes, on a tiny model: what lies in the folder, what the test rows never did, a kill."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from trainformer.core import config
from trainformer.engine.engine import Engine
from trainformer.studies import trial

Cli = Callable[..., Any]


@pytest.fixture
def study(tiny_model: Path, write: Any, rows: Any, tmp_path: Path) -> Callable[..., str]:
    """`study()`: a YAML file of a search over two rates and a text, with a test file of its own."""

    def make(name: str = "s.yaml", flip: bool = False, **extra: Any) -> str:
        test = rows(30, seed=3)
        if flip:
            test = [r | {"label": {"good": "bad", "bad": "good"}[r["label"]]} for r in test]
        files = {
            "train": write("train.jsonl", rows(64)),
            "validation": write("dev.jsonl", rows(40, seed=1)),
            "test": write(f"{name}.test.jsonl", test),
        }
        values = {
            "data": files,
            "model": str(tiny_model),
            "train": {"epochs": 2, "precision": "float32", "lr": 1e-3},
            "search": {"train.lr": {"log": [1e-4, 1e-1]}, "train.schedule": {"choice": ["linear", "cosine"]}},
            "study": {"trials": 3, "pruner": "none"},
        }
        return write(name, yaml.safe_dump(values | extra))

    return make


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


def without_time(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in e.items() if "seconds" not in k} for e in entries]


def test_a_search_from_the_command_line(study: Any, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "study"
    done = cli("search", study(), "--out", out)
    assert done.code == 0, done.err
    found = lines(out)
    assert [e["trial"] for e in found] == [0, 1, 2]
    # what each trial is said to have scored is what its own log says
    for each in found:
        log = [json.loads(x) for x in (out / "trials" / f"{each['trial']:04d}" / "log.jsonl").read_text().splitlines()]
        scored = [x["validation"]["accuracy"] for x in log if "validation" in x]
        assert each["score"] == max(scored), "the best evaluation counts, for its weights would ship"
        assert each["scores"] == {str(i): max(scored[: i + 1]) for i in range(len(scored))}
    best = max(found, key=lambda e: (e["score"], -e["trial"]))
    assert best["score"] > found[0]["score"], "or this test says nothing about who wins"
    # the winner's weights are what ships: they score the same on validation
    bundle = cli("evaluate", out / "bundle", "--data", tmp_path / "dev.jsonl", "--json").answers[-1]
    assert bundle["accuracy"] == best["score"]
    told = json.loads((out / "scores.json").read_text())
    again = cli("evaluate", out / "bundle", "--data", tmp_path / "s.yaml.test.jsonl", "--json").answers[-1]
    assert told["trial"] == best["trial"] and told["test"]["accuracy"] == again["accuracy"]
    assert done.err.count("test, scored once") == 1
    assert not list((out / "trials").glob("*/bundle"))
    assert [p.parent.name for p in (out / "trials").glob("*/checkpoints")] == [f"{best['trial']:04d}"]
    assert done.out.splitlines()[1].split()[:2] == [str(best["trial"]), "*"], "the table begins with the winner"
    report_is_sound((out / "report.html").read_text())
    # training again by what the study wrote gives the same bits
    reproduced = cli("train", out / "config.yaml", "--out", tmp_path / "again")
    assert reproduced.code == 0, reproduced.err
    one, other = (p / "bundle" / "model.safetensors" for p in (out, tmp_path / "again"))
    weights = one.read_bytes()
    assert weights == other.read_bytes()
    # nothing is left to do; a bundle that was lost is made again from the winner's checkpoint
    shutil.rmtree(out / "bundle")
    done = cli("search", "--out", out, "--resume")
    assert done.code == 0, done.err
    assert one.read_bytes() == weights and without_time(lines(out)) == without_time(found)


def report_is_sound(page: str) -> None:
    """It is whole, its figures are well-formed, and it fetches nothing."""
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) >= 2
    for each in drawings:
        ElementTree.fromstring(each)
    assert not re.search(r'(?:src|href)\s*=\s*"(?!#)', page), "nothing is fetched"
    assert "<script" not in page and "url(" not in page and "@import" not in page
    assert "scored once" in page


@pytest.mark.slow
def test_test_labels_have_no_part_in_the_search(study: Any, cli: Cli, tmp_path: Path) -> None:
    """With every test label wrong, all trials, their scores and the winner are the same; only the test score is another."""
    pages = {"right": study("right.yaml"), "wrong": study("wrong.yaml", flip=True)}
    for name, page in pages.items():
        assert cli("search", page, "--out", tmp_path / name, "--trials", "2").code == 0
    assert without_time(lines(tmp_path / "right")) == without_time(lines(tmp_path / "wrong"))
    right, wrong = (json.loads((tmp_path / n / "scores.json").read_text()) for n in pages)
    assert right["validation"] == wrong["validation"]
    assert right["test"]["accuracy"] == pytest.approx(1 - wrong["test"]["accuracy"])


def test_a_trial_never_scores_test_rows_and_tokenises_nothing_twice(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, so that it can be watched: only validation is evaluated, and the second trial writes no token."""
    monkeypatch.setenv("TRAINFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    values = yaml.safe_load(Path(study()).read_text())
    asked: list[int] = []
    original = Engine.evaluate

    def watched(self: Engine, rows: Any, *more: Any, **named: Any) -> Any:
        asked.append(len(rows))
        return original(self, rows, *more, **named)

    monkeypatch.setattr(Engine, "evaluate", watched)
    monkeypatch.setattr(Engine, "outputs", None)
    said: list[tuple[str, dict[str, Any]]] = []

    class Line:
        def tell(self, kind: str, **facts: Any) -> None:
            said.append((kind, facts))

        def ask(self, kind: str, **facts: Any) -> bool:
            said.append((kind, facts))
            return False

    caches = []
    for number, lr in enumerate((1e-3, 1e-2)):
        folder = tmp_path / f"trial-{number}"
        folder.mkdir()
        plain = {k: v for k, v in values.items() if k not in ("search", "study")}
        plain["train"] = plain["train"] | {"lr": lr}
        (folder / "trial.json").write_text(json.dumps(config.parse(plain).dump()))
        trial.work(folder, Line())
        files = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
        caches.append({p: p.stat().st_mtime_ns for p in files})
        assert not (folder / "bundle").exists() and not (folder / "scores.json").exists()
    assert set(asked) == {40}, "40 validation rows; the 30 test rows are never asked for"
    assert len(asked) == 2 * 3
    assert caches[0] == caches[1] and len([p for p in caches[0] if p.name == "meta.json"]) == 3
    assert [kind for kind, _ in said] == ["ready", "start", "score", "score", "score", "end"] * 2
    assert [f["evaluation"] for kind, f in said if kind == "score"] == [0, 1, 2] * 2


def search(page: str, out: Path, cache: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "trainformer", "search", page, "--out", str(out), *words]
    environment = {**os.environ, "TRAINFORMER_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for(found: Callable[[], bool], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def steps(out: Path, number: int) -> int:
    path = out / "trials" / f"{number:04d}" / "log.jsonl"
    return sum('"loss"' in x and '"lr"' in x for x in path.read_text().splitlines()) if path.is_file() else 0


def at_work(out: Path) -> list[int]:
    """Process numbers of trials of a study, by their command lines."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:  # it has ended meanwhile
            continue
        if "trainformer.studies.trial" in command and any(str(out) in word for word in command):
            found.append(int(process.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_killed_and_gone_on_with(study: Any, cli: Cli, tmp_path: Path, number: signal.Signals) -> None:
    """The trial's process ends with the study's; the trial goes on from its checkpoint, and ends in the bits of a plain run."""
    long = {"train": {"epochs": 30, "precision": "float32", "lr": 1e-3}, "callbacks": {"console": {}}}
    page, out = study(**long), tmp_path / "study"
    process = search(page, out, tmp_path / "cache", "--trials", "1")
    wait_for(lambda: steps(out, 0) > 20)
    process.send_signal(number)
    _, said = process.communicate()
    wait_for(lambda: not at_work(out), 60)
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert f"trial 0 is saved and will go on. Go on with: trainformer train --out {out} --resume" in said
    assert steps(out, 0) < 120, "it was stopped on its way, or this test says nothing"
    done = cli("search", "--out", out, "--resume")
    assert done.code == 0, done.err
    assert "going on from step" in (out / "trials" / "0000" / "output.txt").read_text()
    (only,) = lines(out)
    assert (only["trial"], only["state"], steps(out, 0)) == (0, "done", 120)
    plain = yaml.safe_load(Path(page).read_text())
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump({k: v for k, v in plain.items() if k not in ("search", "study")}))
    assert cli("train", tmp_path / "plain.yaml", "--out", tmp_path / "plain").code == 0
    one, other = (p / "bundle" / "model.safetensors" for p in (out, tmp_path / "plain"))
    assert one.read_bytes() == other.read_bytes()


def test_auto_is_never_below_the_default(study: Any, tiny_model: Path, cli: Cli, tmp_path: Path) -> None:
    """Trial 0 scores what a run without --auto scores on validation, and what ships is not below it."""
    study()
    data = ("--data", tmp_path / "train.jsonl", "--validation", tmp_path / "dev.jsonl", "--test", tmp_path / "s.yaml.test.jsonl")
    words = (*data, "--model", tiny_model, "--set", "train.epochs=2", "--set", "train.precision=float32")
    plain = cli("train", *words, "--out", tmp_path / "plain")
    assert plain.code == 0, plain.err
    auto = cli("train", *words, "--auto", "60", "--set", "study.trials=2", "--out", tmp_path / "auto")
    assert auto.code == 0, auto.err
    default = json.loads((tmp_path / "plain" / "scores.json").read_text())["validation"]["accuracy"]
    found = lines(tmp_path / "auto")
    assert found[0]["score"] == default
    assert json.loads((tmp_path / "auto" / "scores.json").read_text())["validation"]["accuracy"] >= default
    assert "train.epochs" not in found[1]["settings"], "what was set stays"
    assert {"train.lr", "method", "train.weight_decay", "task.label_smoothing"} <= set(found[1]["settings"])
    assert cli("train", "--out", tmp_path / "auto", "--resume").code == 0, "nothing is left to do, and that is no error"
