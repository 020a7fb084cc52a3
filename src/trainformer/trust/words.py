"""How numbers are written in report and model card: scores with their unit and interval, counts, durations, places."""

from math import sqrt
from typing import Any

from trainformer.metrics.number import KEPT_ROWS
from trainformer.trust import delta, intervals
from trainformer.trust.intervals import Interval

NAMES = {
    "accuracy": "accuracy",
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "subset_accuracy": "all labels right",
    "loss": "loss",
    "ece": "ECE",
    "brier": "Brier score",
    "answered": "answered",
    "answered_accuracy": "right of answered",
    "cost": "mean cost",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "pearson": "Pearson r",
    "spearman": "Spearman ρ",
    "mrr": "MRR",
    "recall_at_1": "recall@1",
    "recall_at_10": "recall@10",
}
SHARES = {"accuracy", "f1_macro", "f1_micro", "subset_accuracy", "answered", "answered_accuracy", "recall_at_1", "recall_at_10"}


def name(key: str) -> str:
    """A score's name for people."""
    return NAMES.get(key, key)


def value(key: str, number: float) -> str:
    """A score with its unit: shares in percent, others with three decimals or four digits.

    >>> value("accuracy", 0.8731), value("rmse", 12.3456)
    ('87.3 %', '12.35')
    """
    if key in SHARES:
        return percent(number)
    return f"{number:.4g}" if abs(number) >= 10 else f"{number:.3f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share 0..1 in percent; nothing for None."""
    return "" if share is None else f"{100 * share:.{digits}f} %"


def interval(key: str, bounds: Interval | None) -> str:
    """The two bounds of a score's interval, with one unit; nothing for None.

    >>> interval("accuracy", (0.858, 0.886))
    '85.8–88.6 %'
    """
    if bounds is None:
        return ""
    low, high = (value(key, v).removesuffix(" %") for v in bounds)
    return f"{low}–{high} %" if key in SHARES else f"{low} to {high}"


def bounds(key: str, scores: dict[str, float], detail: dict[str, Any]) -> Interval | None:
    """The 95 % interval of a score where there is a formula for it, else None.

    That of f1_micro takes the labels of a row for independent; that of mae takes the spread of the rows in `detail`.
    """
    rows = int(scores["examples"])
    if key in ("accuracy", "subset_accuracy", "answered", "recall_at_1", "recall_at_10"):
        return intervals.share(round(scores[key] * rows), rows)
    if key == "answered_accuracy":
        answered = round(scores["answered"] * rows)
        return intervals.share(round(scores[key] * answered), answered)
    if key == "pearson":
        return intervals.correlation(scores[key], rows)
    if key == "spearman":
        return intervals.correlation(scores[key], min(rows, KEPT_ROWS), ranks=True)
    if key == "f1_micro" and "classes" in detail:
        hits, said, true = (sum(c[k] for c in detail["classes"]) for k in ("hits", "said", "support"))
        return intervals.f1(hits, said, true)
    if key == "mae" and "points" in detail:
        errors = [abs(said - true) for true, said in detail["points"]]
        middle = sum(errors) / len(errors)
        spread = sqrt(sum((e - middle) ** 2 for e in errors) / max(1, len(errors) - 1))
        return intervals.mean(scores[key], spread, rows) if rows > 1 else None
    return delta.RULES[key](scores, detail) if key in delta.RULES else None


def duration(seconds: float) -> str:
    """Seconds in units that fit.

    >>> duration(4.21), duration(123.4), duration(8100)
    ('4.2 s', '2 min 3 s', '2 h 15 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def label(said: Any) -> str:
    """A label, a list of labels or a number, as it is read."""
    if isinstance(said, list):
        return ", ".join(map(str, said)) or "(none)"
    return f"{said:.4g}" if isinstance(said, float) else "(none)" if said is None else str(said)


def places(where: list[str]) -> str:
    """Places with each file named once.

    >>> places(["a.csv line 3", "a.csv line 7", "b.csv line 1"])
    'a.csv line 3, 7; b.csv line 1'
    """
    files: dict[str, list[str]] = {}
    for place in where:
        file, found, line = place.rpartition(" line ")
        files.setdefault(file if found else place, []).extend([line] if found else [])
    return "; ".join(f"{file} line {', '.join(lines)}" if lines else file for file, lines in files.items())
