"""Search for settings: trials one after another, each in a process of its own, until the time or the number is used up.

trial 0 is the configuration as it stands; its settled values are learnt from like any proposal
a trial that was cut off goes on under its number; a new one begins only if it can reach a score in time
at each score: write it down, ask the pruner, look at the clock
at the end the best weights on validation are shipped, and the test rows are scored for the first time
"""

import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainformer.core.errors import UserError
from trainformer.core.files import write_text
from trainformer.engine.limits import Interrupted, Stop, signals
from trainformer.studies import good, ship
from trainformer.studies import space as spaces
from trainformer.studies.asked import FILE, Asked, refuse_other_base
from trainformer.studies.attempt import Attempt
from trainformer.studies.child import alone
from trainformer.studies.clock import Clock
from trainformer.studies.ledger import Entry, Ledger, library, lines
from trainformer.studies.space import Space

WAIT_S = 2.0
MOST_REPEATS = 20
"""So many proposals in a row that were tried before: the space is used up."""


class Halted(Interrupted):
    """A signal: the trial at work is saved and stays open."""

    def __init__(self, stop: Stop, trial: int):
        super().__init__(stop.number, 0, stop.folder)
        self.args = (f"stopped by a signal; trial {trial} is saved and will go on.",)


class Search:
    """A search in the making."""

    def __init__(self, asked: Asked, folder: Path, say: Callable[[str], None]):
        self.asked, self.folder, self.say = asked, folder, say
        self.clock = Clock(folder / "clock.json", asked.study.minutes)
        home = folder / ".home"
        if not home.is_file():
            write_text(home, uuid.uuid4().hex[:12])
        task = asked.config.task
        self.key, self.higher = task.best, task.higher_is_better
        self.ledger = Ledger(asked.study, folder, home.read_text(encoding="utf-8"), self.higher)
        self.over = self.started = False
        self.fresh = not (folder / FILE).is_file()
        self.failures = self.repeats = 0
        self.space: Space | None = None

    def join(self) -> None:
        """Agrees with what the storage says of the study. Raises UserError if that is another one."""
        where = f"study '{self.asked.study.name}'"
        refuse_other_base(self.ledger.agree("base", self.asked.base()), self.asked.base(), where)
        if self.ledger.agree("asked", self.asked.search) != self.asked.search:
            fix = "Use the same space, or another study.name."
            raise UserError("its storage has it with another space.", where=where, fix=fix)
        rows = self.asked.rows()
        changed = sorted(n for n, sha in self.ledger.agree("rows", rows).items() if rows.get(n) != sha)
        if changed:
            what = f"the rows of {changed[0]} are not those that the search began with."
            raise UserError(what, where=str(getattr(self.asked.config.data, changed[0])), fix="Begin another study.")
        self.ledger.agree(f"home-{self.ledger.home}", f"{socket.gethostname()}:{self.folder.absolute()}")
        if self.asked.search is not None:
            self.ledger.agree("space", self.asked.search)

    def trials(self, stop: Stop) -> None:
        """Runs trials until there is no time or none is left to run."""
        while not self.over and (trial := self._next()) is not None:
            chosen = {} if trial.number == 0 else self._space(stop).propose(trial)
            if trial.number == 0 or not self._repeated(trial):
                Attempt(self, trial, chosen, stop).run()
            self._tidy()
            if stop.number:
                raise Halted(stop, trial.number)

    def _next(self) -> Any | None:
        """A trial that was cut off, else a new one; None when the search is over."""
        if self.clock.left() <= 0:
            return None
        cut = self.ledger.cut_off()
        if cut is not None:
            return cut
        most, entries = self.asked.study.trials, self.ledger.entries()
        soonest = min((e.facts["first_seconds"] for e in entries if "first_seconds" in e.facts), default=0.0)
        if (most is not None and len(entries) >= most) or self.clock.left() < soonest or self.repeats >= MOST_REPEATS:
            return None
        trial = self.ledger.begin()
        if most is not None and trial.number >= most:  # another machine began the last one in this moment
            self.ledger.end(trial, "failed", reason="one more than were asked for")
            return None
        return trial

    def _space(self, stop: Stop) -> Space:
        """The space; one around trial 0 is known when that has begun, which may be on another machine."""
        while self.space is None and self.ledger.known("space") is None:
            if stop.number or self.clock.left() <= 0:
                raise UserError("trial 0 has not begun on any machine.", where=str(self.folder), fix="Go on with --resume.")
            time.sleep(WAIT_S)
        if self.space is None:
            self.space = spaces.parse(self.ledger.known("space"), self.asked.config)
        return self.space

    def settled(self, trial: Any, config: dict[str, Any]) -> None:
        """Trial 0 has settled what was left open: the good space is written around it, and its place in the space kept."""
        section = self.ledger.agree("space", self.asked.search or good.space(config, self.asked.given))
        self.space = spaces.parse(section, self.asked.config)
        self.ledger.place(trial, self.space.found_in(config), self.space.dimensions)

    def _repeated(self, trial: Any) -> bool:
        """Whether the same settings were tried before: then their result, which would be the same, is taken over."""
        entries = self.ledger.entries()
        own = entries[trial.number].settings
        before = next(
            (e for e in entries if e.settings == own and e.number != trial.number and e.state in ("done", "pruned")), None
        )
        self.repeats = 0 if before is None else self.repeats + 1
        if before is None or entries[trial.number].scores:
            return False
        for evaluation, score in before.scores.items():
            self.ledger.report(trial, evaluation, score)
        self.ledger.end(trial, before.state, before.score, reason=f"the same settings as trial {before.number}", seconds=0.0)
        return True

    def forget(self) -> None:
        """Takes a search back that could not begin: nothing of it stays, so that the same words can be said again."""
        if self.fresh and not self.started:
            self.ledger.forget()
            shutil.rmtree(self.folder)

    def own(self) -> list[Entry]:
        """The trials of this folder."""
        return [e for e in self.ledger.entries() if e.facts.get("home") == self.ledger.home]

    def _tidy(self) -> None:
        """Writes trials.jsonl, and removes checkpoints that can neither win nor go on: they are many times a model's size."""
        write_text(self.folder / "trials.jsonl", lines(self.ledger.entries()))
        best = self.ledger.best_of(self.own())
        for each in self.own():
            if each.state != "open" and (best is None or each.number != best.number):
                shutil.rmtree(ship.folder_of(self.folder, each.number) / "checkpoints", ignore_errors=True)


def search(asked: Asked, folder: Path, say: Callable[[str], None]) -> ship.Outcome:
    """Runs, or goes on with, a search; STUDY/ gets bundle, report.html, trials.jsonl, study.db, study.yaml and trials/.

    Raises UserError for bad input, before anything is trained where it can be known, and Interrupted on a signal.
    """
    library()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        fix = "Start it alone on each machine, with one --storage."
        raise UserError("a search is one process; its trials are processes of their own.", where="torchrun", fix=fix)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder), signals(folder) as stop:
        found = Search(asked, folder, say)
        try:
            found.join()
            asked.save(folder)
            found.trials(stop)
            return ship.finish(found)
        except UserError:
            found.forget()
            raise
        finally:
            found.ledger.close()
