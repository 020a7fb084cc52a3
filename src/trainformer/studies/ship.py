"""The end of a search: the best trial's weights become the bundle, the test rows are scored, and the report is written."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainformer import run as running
from trainformer.core import config as settings
from trainformer.core.errors import UserError
from trainformer.core.files import write_json, write_text
from trainformer.studies import report
from trainformer.studies.ledger import OUT_OF_TIME, Entry, lines
from trainformer.studies.table import plain
from trainformer.trust import words

if TYPE_CHECKING:
    from trainformer.studies.search import Search

SCORES = "scores.json"
COPIED = ("config.yaml",)


@dataclass(frozen=True)
class Outcome:
    """What a search gives: its folder, its trials by number, the best of them, and the name of the score."""

    folder: Path
    entries: list[Entry]
    best: Entry
    key: str
    higher: bool


def folder_of(study: Path, number: int) -> Path:
    """The run of a trial."""
    return study / "trials" / f"{number:04d}"


def finish(search: "Search") -> Outcome:
    """Ships the best trial. Raises UserError if no trial has a score; where others still work, the last one ships."""
    entries, best = search.ledger.entries(), search.ledger.best()
    write_text(search.folder / "trials.jsonl", lines(entries))
    if best is None and search.fresh and not search.started:
        what = "the budget is too small: it was over before the first trial was ready to train."
        raise UserError(what, where=f"minutes {search.asked.study.minutes}", fix="Give more.")
    if best is None:
        fix = "Go on with --resume and more minutes."
        raise UserError("the time was over before any trial had a score.", where=f"--out {search.folder}", fix=fix)
    elsewhere = [e for e in entries if e.state == "open" and e.facts["home"] != search.ledger.home]
    if elsewhere:
        there = search.ledger.known(f"home-{elsewhere[0].facts['home']}")
        search.say(f"trial {elsewhere[0].number} is still at work at {there}; when all are done, --resume there ships the best.")
    elif best.facts["home"] != search.ledger.home:
        there = search.ledger.known(f"home-{best.facts['home']}")
        search.say(f"the best trial, {best.number}, lies at {there}: --resume there ships it.")
    else:
        _ship(search, best)
    page = report.render(search, entries, best)
    write_text(search.folder / "report.html", page)
    return Outcome(search.folder, entries, best, search.key, search.higher)


def _ship(search: "Search", best: Entry) -> None:
    """The run of the trial goes on where its training ended. A bundle of the same trial stays: its test is not scored again."""
    told = search.folder / SCORES
    before = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else None
    if before is not None and before["trial"] == best.number and (search.folder / "bundle").is_dir():
        return
    if before is not None:
        search.say(f"the test rows were scored before, for trial {before['trial']}: now once more, for a better trial.")
    folder = folder_of(search.folder, best.number)
    if not ((folder / "bundle").is_dir() and (folder / SCORES).is_file()):  # else it was cut off before it was moved up
        config = settings.parse(settings.read_yaml(folder / "config.yaml"), str(folder))

        def say(line: str) -> None:
            search.say(line.replace(str(folder), str(search.folder)))  # what it writes there is moved up

        running.train(running.Run(config, folder, say, part="ship", seconds=best.facts["seconds"]), resume=True)
    shutil.rmtree(search.folder / "bundle", ignore_errors=True)
    (folder / "bundle").rename(search.folder / "bundle")
    for name in COPIED:
        write_text(search.folder / name, (folder / name).read_text(encoding="utf-8"))
    scores = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    facts = {"trial": best.number, "search_seconds": round(search.clock.used(), 1)}
    write_json(told, scores | facts)


def render(outcome: Outcome, most: int = 10) -> str:
    """A plain table of the trials, the best first."""
    sign = -1 if outcome.higher else 1
    scored = sorted((e for e in outcome.entries if e.score is not None), key=lambda e: (sign * (e.score or 0.0), e.number))
    head = ["trial", f"validation {words.name(outcome.key)}", "state ", "time", "settings "]
    rows = [
        [f"{e.number}{' *' if e.number == outcome.best.number else ''}", words.value(outcome.key, e.score or 0.0), e.ended,
         words.duration(e.facts.get("seconds", 0.0)), report.settings(e)]
        for e in scored[:most]
    ]  # fmt: skip
    states = [e.ended for e in outcome.entries]
    counted = ", ".join(f"{states.count(s)} {s}" for s in ("done", "pruned", OUT_OF_TIME, "failed", "open") if s in states)
    more = f" ({len(scored) - most} more in trials.jsonl)" if len(scored) > most else ""
    return f"{plain(head, rows)}\n{len(states)} trials: {counted}{more}; * ships: {outcome.folder / 'bundle'}"
