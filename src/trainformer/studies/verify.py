"""Proves on the user's own run that killing it, anywhere and any number of times, does not change a bit of its end."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from trainformer.core.errors import UserError
from trainformer.core.files import sha256
from trainformer.engine import checkpoint

Say = Callable[[str], None]
CLOCK = {"seconds"}
"""What differs between two runs of the same bits: how long things took."""


@dataclass
class Verdict:
    """How many kills there were, in how many runs, and those runs that ended otherwise than the one that was left alone."""

    kills: int = 0
    runs: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        end = "every run ended with the bits of the one that was left alone" if not self.wrong else "NOT the same bits"
        return f"{self.kills} kills in {self.runs} runs: {end}"


def verify(config: Path, kills: int, seed: int, folder: Path, say: Say) -> Verdict:
    """Runs a configuration once undisturbed, then with SIGKILL at random instants and `--resume`, until it was killed so often.

    Raises UserError if the undisturbed run fails.
    """
    return torture(Training(partial(_start, config), differences), kills, random.Random(seed), folder, say)


@dataclass(frozen=True)
class Training:
    """A training that can be killed: how its process starts or goes on in a folder, and what differs between two that ended."""

    start: Callable[[Path], subprocess.Popen[bytes]]
    differences: Callable[[Path, Path], list[str]]


def torture(training: Training, kills: int, draw: random.Random, folder: Path, say: Say) -> Verdict:
    """Each kill falls at an instant drawn evenly over the life of an undisturbed run: of the last one that no kill met.

    A run that ends before its kill is compared, and the next one starts.
    """
    began = time.monotonic()
    whole = folder / "whole"
    if (code := training.start(whole).wait()) != 0:
        raise UserError(f"the run that is left alone ended with exit code {code}: {_told(whole)}", where=str(folder))
    life = time.monotonic() - began
    say(f"left alone, the run took {life:.1f} s")
    verdict = Verdict()
    while True:
        verdict.runs += 1
        run, before, began = folder / f"killed-{verdict.runs}", verdict.kills, time.monotonic()
        code = _killed_often(training, run, partial(draw.uniform, 0, life), (verdict, kills, say))
        found = training.differences(whole, run) if code == 0 else [f"it ended with exit code {code}: {_told(run)}"]
        if code == 0 and verdict.kills == before:
            life = time.monotonic() - began  # the machine may have become faster: kills must go on to meet runs
        verdict.wrong += [f"{run.name}: {'; '.join(found)}"] if found else []
        say(f"run {verdict.runs} ended after {verdict.kills} kills: {'; '.join(found) or 'the same bits'}")
        if verdict.kills >= kills or (code != 0 and verdict.kills == before):
            return verdict


def _killed_often(training: Training, run: Path, instant: Callable[[], float], tally: tuple[Verdict, int, Say]) -> int:
    """The exit code of a run that was killed and resumed until it ended before its next kill, or all kills were spent."""
    verdict, kills, say = tally
    while True:
        child, after = training.start(run), instant()
        try:
            return child.wait(after if verdict.kills < kills else None)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            verdict.kills += 1
            say(f"kill {verdict.kills} of {kills}: after {after:.2f} s")


def _start(config: Path, run: Path) -> subprocess.Popen[bytes]:
    """The run as a process of its own; what it prints is kept beside its folder."""
    words = [sys.executable, "-m", "trainformer", "train", str(config), "--out", str(run), "--resume"]
    with run.with_suffix(".txt").open("ab") as printed:
        return subprocess.Popen(words, stdout=printed, stderr=printed, stdin=subprocess.DEVNULL)


def _told(run: Path) -> str:
    """The last line that a run printed."""
    lines = run.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    return lines[-1] if lines else "it printed nothing"


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two finished runs: the bundle's weights, decision and scores, the last state, the log, the scores."""
    found = []
    if sha256(one / "bundle" / "model.safetensors") != sha256(other / "bundle" / "model.safetensors"):
        found.append(f"weights of the bundle: {_unequal(*(r / 'bundle' / 'model.safetensors' for r in (one, other)))}")
    states = [_last(run) for run in (one, other)]
    if sha256(states[0] / "state.safetensors") != sha256(states[1] / "state.safetensors"):
        found.append(f"last state: {_unequal(*(s / 'state.safetensors' for s in states))}")
    for name, paths in (
        ("progress of the last state", [s / "state.json" for s in states]),
        ("scores", [r / "scores.json" for r in (one, other)]),
        ("baselines", [r / "baselines.json" for r in (one, other)]),
    ):
        if _timeless(json.loads(paths[0].read_text())) != _timeless(json.loads(paths[1].read_text())):
            found.append(name)
    decisions = [json.loads((r / "bundle" / "trainformer.json").read_text())["decision"] for r in (one, other)]
    return found + ["decision"] * (decisions[0] != decisions[1]) + _lines(one / "log.jsonl", other / "log.jsonl")


def _last(run: Path) -> Path:
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None and found[0].path is not None, "a finished run has a checkpoint"
    return found[0].path


def _unequal(one: Path, other: Path) -> str:
    a, b = load_file(one), load_file(other)
    names = [name for name in sorted({*a, *b}) if name not in a or name not in b or not a[name].equal(b[name])]
    return f"{len(names)} of {len(a)} tensors, {names[0]} first" if names else "the bytes of the files"


def _lines(one: Path, other: Path) -> list[str]:
    """The first line at which two logs differ, but for the clock."""
    logs = [[_timeless(json.loads(line)) for line in path.read_text().splitlines()] for path in (one, other)]
    if logs[0] == logs[1]:
        return []
    at = next((i for i, (a, b) in enumerate(zip(*logs, strict=False)) if a != b), min(map(len, logs)))
    return [f"log.jsonl line {at + 1} ({len(logs[0])} and {len(logs[1])} lines)"]


def _timeless(value: Any) -> Any:
    """A JSON value without what the clock has put there."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in CLOCK}
    return [_timeless(v) for v in value] if isinstance(value, list) else value
