"""Runs beside each other on the same test rows: is one better, and at what cost, size and speed."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from trainformer.bundle import Bundle
from trainformer.bundle.facts import FACTS
from trainformer.bundle.outputs import scored
from trainformer.core.batch import Example
from trainformer.core.config import DataSettings
from trainformer.core.errors import UserError
from trainformer.core.files import total_bytes
from trainformer.core.protocols import Metric
from trainformer.studies.table import plain
from trainformer.trust import paired, words

ROUNDS, TIMED_ROWS = 5, 256


@dataclass
class Compared:
    """A run and what it said to the rows."""

    name: str
    folder: Path
    bundle: Bundle
    examples: list[Example] = field(default_factory=list)
    output: Tensor = field(default_factory=lambda: Tensor())
    target: Tensor = field(default_factory=lambda: Tensor())

    def metric(self, rows: Tensor | None = None) -> Metric:
        """The scores of all rows, or of those that are named by their numbers."""
        at = slice(None) if rows is None else rows
        return scored(self.bundle.task, self.output[at], self.target[at], self.bundle.decision)

    def right(self) -> Tensor | None:
        """Which rows are answered rightly, "N" of bool, all labels of a row together; None for a task that gives numbers."""
        rule = getattr(self.bundle.task, "rule", None)
        if rule is None:
            return None
        scores = rule.scores(self.output, self.bundle.decision.temperature)
        return torch.from_numpy((rule.said(scores, self.bundle.decision) == rule.truth(self.target)).all(-1))


@dataclass(frozen=True)
class Pair:
    """A run against the first. `holm` values are corrected for the number of comparisons."""

    run: str
    against: str
    difference: float
    interval: tuple[float, float]
    p_bootstrap: float
    p_bootstrap_holm: float = 1.0
    only_run_right: int | None = None
    only_first_right: int | None = None
    p_mcnemar: float | None = None
    p_mcnemar_holm: float | None = None


def compare(folders: list[Path], data: Any, settings: DataSettings | None = None) -> dict[str, Any]:
    """Scores, cost, size and speed of each run, and each against the first: paired bootstrap and McNemar's test.

    Plain JSON values: `data`, `rows`, `key`, `runs`, `pairs`. Raises UserError for runs of different tasks or labels.
    """
    runs = _open(folders)
    for run in runs:
        run.examples = list(run.bundle.examples(data, settings))
        run.output, run.target = run.bundle.raw(run.examples)
    speeds = _speeds(runs)
    key = runs[0].bundle.task.best
    return {
        "data": str(data),
        "rows": len(runs[0].examples),
        "key": key,
        "runs": [_facts(run, key, speed) for run, speed in zip(runs, speeds, strict=True)],
        "pairs": [asdict(pair) for pair in _pairs(runs, key)],
    }


def _open(folders: list[Path]) -> list[Compared]:
    """The bundles. Raises UserError unless there are two or more of one task with the same labels."""
    if len(folders) < 2:
        raise UserError("two runs or more are compared.", where="compare", fix="trainformer compare RUN RUN --data FILE")
    for i, folder in enumerate(folders):
        if folder.absolute() in [f.absolute() for f in folders[:i]]:
            raise UserError("this run is named twice.", where=str(folder))
    runs = [_opened(folder) for folder in folders]
    for run in runs[1:]:
        _refuse_other(runs[0], run)
    return runs


def _opened(folder: Path) -> Compared:
    bundle = folder if (folder / FACTS).is_file() or not (folder / "bundle").is_dir() else folder / "bundle"
    return Compared(str(folder), bundle, Bundle.open(bundle))


def _refuse_other(first: Compared, run: Compared) -> None:
    one, other = (type(r.bundle.task).key for r in (first, run))
    if one != other or first.bundle.task.best != run.bundle.task.best:
        what = f"its task is {other} ({run.bundle.task.best}); that of {first.name} is {one} ({first.bundle.task.best})."
        raise UserError(what, where=run.name, fix="Compare runs of one task.")
    strange = sorted(set(first.bundle.labels) ^ set(run.bundle.labels))
    if strange:
        holder = first.name if strange[0] in first.bundle.labels else run.name
        what = f"its labels are not those of {first.name}: only {holder} has '{strange[0]:.60}'."
        raise UserError(what, where=run.name, fix="Compare runs that were trained on the same labels.")


def _speeds(runs: list[Compared]) -> list[float]:
    """Rows a second from texts to answers, the median of rounds in which the runs take turns, each beginning one once."""
    most = [run.examples[:TIMED_ROWS] for run in runs]
    seconds: list[list[float]] = [[] for _ in runs]
    for number in range(ROUNDS + 1):
        for turn in range(len(runs)):
            i = (number + turn) % len(runs)
            start = time.perf_counter()
            for _ in runs[i].bundle.stream(most[i]):
                pass
            if number:  # the first round warms up
                seconds[i].append(time.perf_counter() - start)
    return [round(len(most[0]) / median(taken), 1) for taken in seconds]


def _facts(run: Compared, key: str, speed: float) -> dict[str, Any]:
    """What is known of a run; cost only where the bundle lies in the folder of its run."""
    metric = run.metric()
    scores = metric.value()
    path = run.folder.parent / "scores.json"
    told = json.loads(path.read_text(encoding="utf-8")) if run.folder.name == "bundle" and path.is_file() else {}
    return {
        "run": run.name,
        "scores": scores,
        "interval": words.bounds(key, scores, metric.detail()),
        "seconds": told.get("seconds"),
        "trained_parameters": told.get("trained_parameters"),
        "parameters": sum(p.numel() for p in run.bundle.model.parameters()),
        "bytes": total_bytes([run.folder]),
        "rows_per_s": speed,
    }


def _pairs(runs: list[Compared], key: str) -> list[Pair]:
    found = [_pair(runs[0], run, key) for run in runs[1:]]
    corrected = paired.holm([p.p_bootstrap for p in found])
    tested = [p.p_mcnemar for p in found if p.p_mcnemar is not None]
    exact: list[float | None] = list(paired.holm(tested)) if tested else [None] * len(found)
    return [
        Pair(**{**asdict(pair), "p_bootstrap_holm": boot, "p_mcnemar_holm": test})
        for pair, boot, test in zip(found, corrected, exact, strict=True)
    ]


def _pair(first: Compared, run: Compared, key: str) -> Pair:
    interval, p = paired.bootstrap(
        lambda rows: first.metric(rows).value()[key], lambda rows: run.metric(rows).value()[key], len(first.examples)
    )
    difference = run.metric().value()[key] - first.metric().value()[key]
    pair = Pair(run.name, first.name, difference, interval, p)
    one, other = first.right(), run.right()
    if one is None or other is None:
        return pair
    counts = int((other & ~one).sum()), int((one & ~other).sum())
    told = {"only_run_right": counts[0], "only_first_right": counts[1], "p_mcnemar": paired.mcnemar(*counts)}
    return Pair(**{**asdict(pair), **told})


def render(result: dict[str, Any]) -> str:
    """The result as two plain tables."""
    key = result["key"]
    head = ["run", words.name(key), "95 % interval", "training", "trained", "size", "rows/s"]
    rows = [
        [r["run"], words.value(key, r["scores"][key]), words.interval(key, r["interval"]), _time(r["seconds"]),
         _share(r), f"{r['bytes'] / 1e6:,.1f} MB", f"{r['rows_per_s']:,.0f}"]
        for r in result["runs"]
    ]  # fmt: skip
    first = result["runs"][0]["run"]
    against = ["against " + first, "difference", "95 % interval", "bootstrap p", "only it right", "only first right", "McNemar p"]
    pairs = [_line(pair, key) for pair in result["pairs"]]
    holm = f", corrected for {len(pairs)} comparisons (Holm)" if len(pairs) > 1 else ""
    below = f"p: the chance of so large a difference if there is none{holm}."
    return f"{result['rows']:,} rows of {result['data']}\n\n{plain(head, rows)}\n\n{plain(against, pairs)}\n{below}"


def _line(pair: dict[str, Any], key: str) -> list[str]:
    interval = " to ".join(_signed(key, v) for v in pair["interval"])
    cells = [pair["run"], _signed(key, pair["difference"]), interval, f"{pair['p_bootstrap_holm']:.3f}"]
    if pair["p_mcnemar"] is None:
        return [*cells, "", "", ""]
    return [*cells, str(pair["only_run_right"]), str(pair["only_first_right"]), f"{pair['p_mcnemar_holm']:.3g}"]


def _time(seconds: float | None) -> str:
    return "" if seconds is None else words.duration(seconds)


def _share(run: dict[str, Any]) -> str:
    trained = run["trained_parameters"]
    return "" if trained is None else f"{trained:,} parameters"


def _signed(key: str, difference: float) -> str:
    """A difference with its sign; of shares in points of a percent.

    >>> _signed("accuracy", 0.0123)
    '+1.2'
    """
    return f"{100 * difference:+.1f}" if key in words.SHARES else f"{difference:+.4g}"
