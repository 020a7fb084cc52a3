"""The report of a run, and that of the data alone: one HTML file each, with nothing in it that is fetched or run."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from trainformer.trust import figures, intervals, rank_figure, words

TEMPLATES = Path(__file__).parent / "templates"
MOST_IN_HEAT_MAP = 25
MOST_ROWS = 60
"""Rows of a table of labels; what is left out is said."""
MOST_PAIRS = 25


def render(results: dict[str, Any]) -> str:
    """The report of a run as one HTML page. `results` is what `run.train` gathers; `test` may be None."""
    split = scored(results)
    scores, detail = results[split]["scores"], results[split]["detail"]
    facts = {
        "split": split,
        "detail": detail,
        "headline": headline(results),
        "tables": [table(results, s) for s in ("test", "validation") if results[s]],
        "curves": _curves(results),
        "picture": _picture(detail, scores),
        "pairs": _pairs(detail),
        "classes": _classes(detail),
        "ece": _ece(results),
    }
    return (
        environment(html=True).get_template("report.html.j2").render(results=results, **facts, **_data(results["data"], results))
    )


def check_page(report: dict[str, Any]) -> str:
    """The pre-flight report alone as one HTML page, from `CheckReport.to_dict()`."""
    return environment(html=True).get_template("check.html.j2").render(**_data(report, {}))


def environment(html: bool) -> Environment:
    """Templates and the filters that write numbers. In HTML words from outside are escaped; a missing name is an error."""
    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=html, undefined=StrictUndefined, keep_trailing_newline=True)
    made.trim_blocks = made.lstrip_blocks = True
    made.filters |= {n: getattr(words, n) for n in ("value", "percent", "interval", "duration", "label", "places")}
    made.filters |= {"named": words.name, "thousands": lambda n: f"{n:,}"}
    return made


def scored(results: dict[str, Any]) -> str:
    """The part whose scores stand for the run: "test", or "validation" where there is no test."""
    return "test" if results["test"] else "validation"


def headline(results: dict[str, Any]) -> dict[str, Any]:
    """The score that the run is known by, with its 95 % interval where it has one: key, value, interval, rows."""
    split, key = results[scored(results)], results["key"]
    bounds = words.bounds(key, split["scores"], split["detail"])
    rows = split["scores"]["examples"]
    return {"key": key, "value": split["scores"][key], "interval": words.interval(key, bounds), "rows": rows}


def table(results: dict[str, Any], split: str) -> dict[str, Any]:
    """Scores of the model and of the baselines on a part, side by side."""
    own, key = results[split], results["key"]
    columns = [key, *(k for k in own["scores"] if k not in ("examples", key))]
    listed = [("this model", own["scores"], own["detail"])]
    listed += [(b["name"], b[split], {}) for b in results["baselines"] if b[split]]
    rows = [
        {"name": name, "own": not i, "scores": scores, "intervals": _intervals(scores, detail)}
        for i, (name, scores, detail) in enumerate(listed)
    ]
    return {"split": split, "columns": columns, "rows": rows, "examples": own["scores"]["examples"]}


def _intervals(scores: dict[str, float], detail: dict[str, Any]) -> dict[str, str]:
    return {key: words.interval(key, words.bounds(key, scores, detail)) for key in scores}


def _curves(results: dict[str, Any]) -> list[str]:
    history, key, best = results["history"], results["key"], results["best_step"]
    keys = [k for k in dict.fromkeys((key, "loss")) if all(k in h["validation"] for h in history)]
    scores = [figures.score_curve(history, k, best, words.name(k)) for k in keys] if history else []
    curve = results["curve"]
    moved = [rank_figure.ranks(told) for told in results.get("methods", {}).values() if told.get("ranks")]
    return [figures.loss_curve(curve), *scores, figures.rate_curve(curve), *moved] if curve else scores


def _picture(detail: dict[str, Any], scores: dict[str, float]) -> dict[str, str | None]:
    """The figures that the detail of a metric allows, by name; None for the others."""
    found: dict[str, str | None] = dict.fromkeys(("confusion", "reliability", "scatter"))
    if "confusion" in detail and len(detail["labels"]) <= MOST_IN_HEAT_MAP:
        found["confusion"] = figures.confusion(detail["confusion"], detail["labels"])
    if "reliability" in detail:
        found["reliability"] = figures.reliability(detail["reliability"], scores["ece"])
    if detail.get("points"):
        found["scatter"] = figures.scatter(detail["points"])
    return found


def _pairs(detail: dict[str, Any]) -> list[dict[str, Any]]:
    """The labels that are most often taken for another; empty without a confusion matrix."""
    matrix, labels = detail.get("confusion", []), detail.get("labels", [])
    found = [
        {"true": labels[i], "said": labels[j], "rows": n, "share": n / sum(row)}
        for i, row in enumerate(matrix)
        for j, n in enumerate(row)
        if n and i != j
    ]
    return sorted(found, key=lambda p: -p["rows"])[:MOST_PAIRS]


def _classes(detail: dict[str, Any]) -> dict[str, Any]:
    """Precision, recall and F1 of each label with their intervals; of many labels those of the lowest F1."""
    every = detail.get("classes", [])
    kept = every if len(every) <= MOST_ROWS else sorted(every, key=lambda c: c["f1"])[:MOST_ROWS]
    rows = [
        c
        | {
            "precision_interval": intervals.share(c["hits"], c["said"]),
            "recall_interval": intervals.share(c["hits"], c["support"]),
            "f1_interval": intervals.f1(c["hits"], c["said"], c["support"]),
        }
        for c in kept
    ]
    return {"rows": rows, "hidden": len(every) - len(kept)}


def _ece(results: dict[str, Any]) -> tuple[float, float] | None:
    """Calibration error on validation before and after the decision layer; None for tasks that give no score."""
    before = [h["validation"] for h in results["history"] if h["step"] == results["best_step"]]
    after = results["validation"]["scores"]
    return (before[-1]["ece"], after["ece"]) if before and "ece" in after else None


def _data(report: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """What the section on data shows: the report itself, counts of each label by part, and lengths as pictures."""
    parts = report["parts"]
    totals: dict[str, int] = {}
    for part in parts.values():
        for label, count in part["labels"].items():
            totals[label] = totals.get(label, 0) + count
    every = [{"label": each, "counts": [p["labels"].get(each, 0) for p in parts.values()]} for each in totals]
    limit = results.get("max_tokens")
    pictures = [figures.lengths(p["tokens"]["histogram"], n, limit) for n, p in parts.items() if p["tokens"]]
    labels = {"rows": every[:MOST_ROWS], "hidden": len(every[MOST_ROWS:])}
    return {"data": report, "labels": labels, "lengths": pictures}
