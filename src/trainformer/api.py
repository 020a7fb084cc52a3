"""Training and checking from Python: the same words as on the command line, and frames as well as files."""

from pathlib import Path
from typing import Any

from rich.console import Console

from trainformer.core import config as settings
from trainformer.core.config import Config
from trainformer.core.errors import UserError, nearest
from trainformer.data.check import CheckReport
from trainformer.data.check_text import render
from trainformer.run import Result, Run
from trainformer.run import check as run_check
from trainformer.run import train as run_train

SPLITS = ("train", "validation", "test")
STUDY_SECTIONS = ("search", "study")
"""Sections of a YAML file that only a search has."""
CONFIG = "config.yaml"
"""The settings of a run, in its folder."""
WORDS = {"task": "task", "model": "model.name", "text": "data.text", "text_b": "data.text_b", "label": "data.label"}


def train(data: Any = None, *, out: str | Path, resume: bool = False, strict: bool = False, **words: Any) -> Result:
    """Trains a model from rows and writes the run's folder; the result has `.bundle` and `.scores`.

    `data` is a file, a pandas frame or a `datasets` object; so may be `validation` and `test`. Words: `task`, `model`,
    `text`, `text_b`, `label`, `method` (a list), `config` (a YAML file or a mapping), and `set`, a mapping from
    "section.key" to a value. Raises UserError for bad input.
    """
    refuse_existing(Path(out), resume, told=data is not None or "config" in words)
    if resume and data is None and "config" not in words:
        words["config"] = Path(out) / CONFIG
    run = _run(data, Path(out), strict, words)
    return run_train(run, resume)


def check(data: Any = None, **words: Any) -> CheckReport:
    """The pre-flight report of the same data words as `train`; nothing is trained."""
    return run_check(_run(data, Path("."), False, words))


def _run(data: Any, out: Path, strict: bool, words: dict[str, Any]) -> Run:
    console = Console(stderr=True, soft_wrap=True)
    given = {"train": data} | {s: words.pop(s, None) for s in SPLITS[1:]}
    frames = {s: v for s, v in given.items() if v is not None and not isinstance(v, str | Path)}
    files = {s: str(v) for s, v in given.items() if isinstance(v, str | Path)}
    config = configured(words.pop("config", None), files, words)
    return Run(config, out, lambda line: console.print(line, highlight=False, markup=False), frames, strict,
               lambda report: render(report, console))  # fmt: skip


def configured(base: Any, files: dict[str, str], words: dict[str, Any]) -> Config:
    """One checked configuration from a YAML file or mapping, the words for it, and `set` over both."""
    values, where = gathered(base, files, words)
    for section in STUDY_SECTIONS:
        if section in values:
            what = f"the section '{section}' is for `trainformer search`."
            raise UserError(what, where=where, fix="trainformer search CONFIG.yaml --out STUDY")
    return settings.parse(values, where)


def gathered(base: Any, files: dict[str, str], words: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The values of `configured` before they are checked, and where they stand."""
    values: dict[str, Any] = settings.read_yaml(Path(base)) if isinstance(base, str | Path) else dict(base or {})
    where = str(base) if isinstance(base, str | Path) else "settings"
    extra = words.pop("set", None) or {}
    assignments = [f"{k}={v}" for k, v in extra.items()] if isinstance(extra, dict) else list(extra)
    for kind in ("method", "callback"):
        named = words.pop(kind, None)
        if named:
            values["callbacks" if kind == "callback" else kind] = _listed(values, kind, named)
    unknown = [w for w in words if w not in WORDS]
    if unknown:
        raise UserError(f"no word '{unknown[0]}'.", fix=nearest(unknown[0], [*WORDS, "method", "set", "config"]))
    if words.get("text_b") and not words.get("task") and "task" not in values:
        words["task"] = "text_pair"
    for split, file in files.items():
        _put(values, f"data.{split}", file)
    for word, value in words.items():
        if value is not None:
            _put(values, WORDS[word], value)
    return settings.override(values, assignments), where


def _listed(values: dict[str, Any], kind: str, named: Any) -> dict[str, Any]:
    """The named methods in their order; callbacks are added to those that are there already."""
    names = [named] if isinstance(named, str) else list(named)
    if kind == "method":
        before = values.get("method") or {}
        return {name: (before.get(name) or {}) if isinstance(before, dict) else {} for name in names}
    before = values.get("callbacks", settings.CALLBACKS)
    before = before if isinstance(before, dict) else {name: {} for name in before}
    return before | {name: {} for name in names if name not in before}


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    section, _, key = path.partition(".")
    inner = values.get(section, {})
    if isinstance(inner, str):
        inner = {"name": inner}
    if not key:
        values[section] = {**inner, "name": value} if inner and inner.get("name") == value else {"name": value}
        return
    values[section] = {**inner, key: value}


def refuse_existing(folder: Path, resume: bool, told: bool) -> None:
    """Nothing is written over: a folder with anything in it is refused, unless its run goes on.

    With `resume` a run that has not begun starts, if it is `told` what to train on.
    """
    if folder.is_file():
        raise UserError("it is a file; a run is a folder.", where=f"--out {folder}", fix="Choose another name.")
    fresh = not folder.is_dir() or not any(not p.match(f".{CONFIG}.*") for p in folder.iterdir())
    begun, finished = (folder / CONFIG).is_file(), (folder / "scores.json").is_file()
    if resume and not begun and not (told and fresh):
        what = "there is no run to go on with: it has no config.yaml."
        raise UserError(what, where=f"--out {folder}", fix="Name the data to start one.")
    if not (resume or fresh):
        fix = "Choose another name." + " To go on with it: --resume." * (begun and not finished)
        raise UserError("it exists and is not empty; nothing is written over.", where=f"--out {folder}", fix=fix)
