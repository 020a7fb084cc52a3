"""Scores as people read them: their names, their 95 % intervals, and the baselines beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import fmean, pstdev
from typing import Any

from trainformer.trust import intervals
from trainformer.trust.intervals import Interval

NAMES = {
    "accuracy": "Accuracy",
    "f1_macro": "F1, mean of the classes",
    "f1_micro": "F1, all labels together",
    "subset_accuracy": "Rows with all labels right",
    "loss": "Loss, nats",
    "ece": "Calibration error (ECE)",
    "brier": "Brier score",
    "answered": "Share answered",
    "answered_accuracy": "Accuracy of what is answered",
    "cost": "Mean cost",
    "rmse": "Root mean squared error",
    "mae": "Mean absolute error",
    "r2": "Variance explained (R²)",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}
LOWER_IS_BETTER = {"loss", "ece", "brier", "cost", "rmse", "mae"}
SHARES = {"accuracy", "subset_accuracy", "answered", "answered_accuracy"}
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Score:
    """A score of one contender; `interval` is None where no formula gives one."""

    who: str
    value: float
    interval: Interval | None


def name(key: str, numeric: bool = False) -> str:
    """What a score is called; the loss of a `numeric` task is no likelihood."""
    if key == "loss" and numeric:
        return "Loss, squared standard deviations"
    return NAMES.get(key, key.replace("_", " "))


def shown(key: str, value: float) -> str:
    """A score for a headline.

    >>> shown("accuracy", 0.9125), shown("pearson", 0.8125), shown("rmse", 12.5)
    ('91.2 %', '0.812', '12.50')
    """
    return f"{100 * value:.1f} %" if key in SHARES else f"{value:.3f}" if abs(value) < 10 else f"{value:,.2f}"


def final(results: dict[str, Any]) -> str:
    """The split whose scores count: test where there is one, else validation."""
    return "test" if results["test"] else "validation"


def contenders(results: dict[str, Any], split: str) -> list[Score]:
    """The model and the baselines by the score that chose the epoch; the model first."""
    key, ours = results["key"], results[split]
    found = [Score("this model", ours["scores"][key], interval(key, ours["scores"], ours["detail"]))]
    beside = [(b["name"], b[split]) for b in results["baselines"] if b[split]]
    return found + [Score(who, scores[key], interval(key, scores, {})) for who, scores in beside]


def won(results: dict[str, Any]) -> bool | None:
    """Whether the model is better than every baseline on validation; None where there are no baselines."""
    ours, *rivals = [score.value for score in contenders(results, "validation")]
    if not rivals:
        return None
    return ours > max(rivals) if results["higher_is_better"] else ours < min(rivals)


def interval(key: str, scores: dict[str, float], detail: dict[str, Any]) -> Interval | None:
    """The 95 % interval of a score from the other scores and the metric's detail; None where neither gives one."""
    rule = _RULES.get(key)
    found = rule(key, scores, detail) if rule and scores["examples"] else None
    return found if found is None or all(map(isfinite, found)) else None


def classes(detail: dict[str, Any]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class with intervals, the lowest F1 first."""
    found = []
    for each in detail.get("classes", []):
        hits, said, true = each["hits"], each["said"], each["support"]
        ranges = {
            "precision": intervals.share(hits, said),
            "recall": intervals.share(hits, true),
            "f1": intervals.f1(hits, said, true),
        }
        found.append(each | {"ranges": ranges, "seen": said + true > 0})
    return sorted(found, key=lambda each: (not each["seen"], each["f1"]))


def _share(key: str, scores: dict[str, float], _: dict[str, Any]) -> Interval:
    rows = scores["examples"]
    if key == "answered_accuracy":
        rows *= scores["answered"]
    return intervals.share(scores[key] * rows, round(rows))


def _correlation(key: str, scores: dict[str, float], detail: dict[str, Any]) -> Interval:
    rows = detail.get("spearman_rows", scores["examples"]) if key == "spearman" else scores["examples"]
    return intervals.correlation(scores[key], int(rows), ranks=key == "spearman")


def _f1_micro(_: str, __: dict[str, float], detail: dict[str, Any]) -> Interval | None:
    if "classes" not in detail:
        return None
    hits, said, true = (sum(c[k] for c in detail["classes"]) for k in ("hits", "said", "support"))
    return intervals.f1(hits, said, true)


def _f1_macro(_: str, scores: dict[str, float], detail: dict[str, Any]) -> Interval | None:
    """By the delta method on the confusion matrix (Takahashi et al. 2022, doi:10.1007/s10489-021-01635-5).

    A matrix without an error has no spread to go by: None.
    """
    table: list[list[int]] = detail.get("confusion", [])
    rows = sum(map(sum, table))
    true, said = [sum(row) for row in table], [sum(column) for column in zip(*table, strict=True)]
    both = [t + s for t, s in zip(true, said, strict=True)]
    weight = [1 / max(b, 1) for b in both]  # of rows; the share of rows would cancel out below
    pull = [2 * table[i][i] * weight[i] ** 2 for i in range(len(table))]
    slopes = [
        (count, 2 * weight[i] * (i == j) - pull[i] - pull[j])
        for i, row in enumerate(table)
        for j, count in enumerate(row)
        if count
    ]
    spread = sum(count * slope**2 for count, slope in slopes)
    spread -= sum(count * slope for count, slope in slopes) ** 2 / max(rows, 1)
    if not table or spread < 1e-12:
        return None
    deviation = sqrt(spread * rows) / sum(b > 0 for b in both)
    low, high = intervals.mean(scores["f1_macro"], deviation, rows)
    return max(0.0, low), min(1.0, high)


def _mae(_: str, scores: dict[str, float], __: dict[str, Any]) -> Interval:
    deviation = sqrt(max(0.0, scores["rmse"] ** 2 - scores["mae"] ** 2))
    low, high = intervals.mean(scores["mae"], deviation, int(scores["examples"]))
    return max(0.0, low), high


def _rmse(_: str, scores: dict[str, float], detail: dict[str, Any]) -> Interval | None:
    """From the squared errors of the rows kept."""
    points: Sequence[Sequence[float]] = detail.get("points", [])
    if len(points) < 2:
        return None
    deviation = pstdev((said - true) ** 2 for true, said in points)
    low, high = intervals.mean(scores["rmse"] ** 2, deviation, int(scores["examples"]))
    return sqrt(max(0.0, low)), sqrt(high)


def _r2(_: str, scores: dict[str, float], detail: dict[str, Any]) -> Interval | None:
    """By the delta method: a row moves 1 - R² by (its squared error - (1 - R²) its squared deviation) / variance."""
    points: Sequence[Sequence[float]] = detail.get("points", [])
    middle = fmean(true for true, _ in points) if points else 0.0
    variance = fmean((true - middle) ** 2 for true, _ in points) if points else 0.0
    if not variance:
        return None
    rest = 1 - scores["r2"]
    deviation = pstdev(((said - true) ** 2 - rest * (true - middle) ** 2) / variance for true, said in points)
    low, high = intervals.mean(scores["r2"], deviation, int(scores["examples"]))
    return low, min(1.0, high)


Rule = Callable[[str, dict[str, float], dict[str, Any]], Interval | None]
_RULES: dict[str, Rule] = {
    **dict.fromkeys(SHARES, _share),
    "pearson": _correlation,
    "spearman": _correlation,
    "f1_micro": _f1_micro,
    "f1_macro": _f1_macro,
    "mae": _mae,
    "rmse": _rmse,
    "r2": _r2,
}
