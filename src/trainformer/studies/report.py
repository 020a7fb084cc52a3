"""The report of a search: one HTML file with nothing in it that is fetched or run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader

from trainformer.studies import figures
from trainformer.studies.ledger import Entry
from trainformer.studies.space import word
from trainformer.trust import report, words

if TYPE_CHECKING:
    from trainformer.studies.search import Search

TEMPLATES = Path(__file__).parent / "templates"


def render(search: "Search", entries: list[Entry], best: Entry) -> str:
    """The page, from the trials as they stand in the storage."""
    space: dict[str, Any] = search.ledger.known("space")
    scored = [e for e in entries if e.score is not None]
    everywhere = [n for n in space if all(n in e.settings for e in scored)]
    shares = search.ledger.importance(everywhere)
    facts = {
        "task": type(search.asked.config.task).key,
        "model": Path(str(search.asked.config.model.settings()["name"])).name,
        "seconds": search.clock.used(),
        "key": search.key,
        "best": best,
        "start": next((e.score for e in scored if e.number == 0), None),
        "test": _test(search.folder, search.key, best),
        "trials": entries,
        "scored": len(scored),
        "importance": figures.importance(shares) if shares else "",
        "partial": [n for n in space if n not in everywhere],
        "parallel": figures.parallel(_axes(scored, space, search.key), scored.index(best)),
        "cost": figures.cost(
            [(e.number, e.facts["seconds"], e.score or 0.0) for e in scored], best.number, words.name(search.key)
        ),
        "space": space,
    }
    return _environment().get_template("search.html.j2").render(**facts)


def _environment() -> Environment:
    made = report.environment(html=True)
    made.loader = FileSystemLoader([TEMPLATES, report.TEMPLATES])
    made.filters["settings"] = settings
    return made


def _test(folder: Path, key: str, best: Entry) -> float | None:
    """The test score of the bundle, if the best trial's bundle is here and has one."""
    path = folder / "scores.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    score: float | None = told["test"][key] if told.get("trial") == best.number and told["test"] else None
    return score


def _axes(scored: list[Entry], space: dict[str, Any], key: str) -> list[figures.Axis]:
    axes = []
    for name, given in space.items():
        values = [e.settings.get(name) for e in scored]
        shown = [word(v) if isinstance(v, str) else v for v in values]
        axes.append(figures.Axis(name, shown, log="log" in given))
    return [*axes, figures.Axis(words.name(key), [e.score for e in scored])]


def settings(entry: Entry) -> str:
    """The settings of a trial in a line; trial 0 is the configuration as it stands."""
    told = ", ".join(f"{name}={word(value)}" for name, value in entry.settings.items())
    return f"as it stands: {told}" if entry.number == 0 else told
