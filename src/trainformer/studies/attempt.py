"""One trial: its process is started, heard, answered and, where the time is over, stopped; what came of it is written down."""

import time
from typing import TYPE_CHECKING, Any

from trainformer.core.errors import UserError
from trainformer.engine.limits import Stop
from trainformer.studies.child import OUTPUT, Child
from trainformer.studies.ledger import OUT_OF_TIME
from trainformer.studies.ship import folder_of
from trainformer.studies.space import Space

if TYPE_CHECKING:
    from trainformer.studies.search import Search

TICK_S = 2.0
MOST_FAILURES = 5
"""So many failures one after the other are no accident."""


class Attempt:
    """One trial, from its process's first word to its last."""

    def __init__(self, search: "Search", trial: Any, chosen: dict[str, Any], stop: Stop):
        self.search, self.trial, self.stop = search, trial, stop
        self.ledger, self.clock = search.ledger, search.clock
        self.folder = folder_of(search.folder, trial.number)
        space = Space(search.asked.config.dump(), [])
        self.values = space.apply(chosen)
        self.began = self.last = time.monotonic()
        self.before = float(self.ledger.entries()[trial.number].facts.get("seconds", 0.0))
        self.reason = ""

    def run(self) -> None:
        """Hears the process to its end, and closes the trial unless it was cut off."""
        with Child(self.folder, self.values) as child:
            last = self._hear(child)
            code = child.process.wait() if last is None else 0
            words = child.last_words() if last is None else ""
        self.ledger.note(self.trial, seconds=self._seconds())
        self.clock.keep()
        kind = last["kind"] if last else "cut" if child.stopping else "died"
        if kind in ("interrupted", "cut", "declined"):
            self._cut_off()
        elif kind == "end":
            self._ended(last or {})
        else:
            self._failed(f"its process ended with code {code}: {words}" if last is None else "", last or {})

    def _hear(self, child: Child) -> dict[str, Any] | None:
        """Answers each message; the last that wants no answer, None if the process ended without one."""
        last = None
        while (message := child.next(TICK_S)) is not None:
            if self.stop.number or self.clock.left() <= 0:
                child.stop()
            if message["kind"] == "quiet":
                self.clock.keep()
            elif message["kind"] == "ready":
                child.answer(self._too_late(message))
            elif message["kind"] == "start":
                self._start(message["config"])
            elif message["kind"] == "score":
                child.answer(self._scored(message))
            else:
                last = message
        return last

    def _too_late(self, message: dict[str, Any]) -> bool:
        """Whether the trial cannot reach a score in the time that is left. Raises UserError if no trial ever had one."""
        if self.clock.reserve == 0.0:
            self.clock.reserve = self._seconds()
        whole = self.trial.number == 0 and self.search.asked.auto and not self._trained()
        needed, left = message["training_seconds" if whole else "first_score_seconds"], self.clock.left()
        if needed <= left:
            return False
        if self.ledger.best() is None and not self._trained():
            use = "by the configuration as it stands" if whole else "to the first score"
            what = f"the budget is too small: about {needed:.0f} s are needed {use}"
            minutes = (self.clock.used() + self.clock.reserve + 1.2 * needed) / 60
            where = f"minutes {self.search.asked.study.minutes:g}"
            raise UserError(f"{what}, and {max(0.0, left):.0f} s are left.", where=where, fix=f"Give {minutes:.1f} or more.")
        self.search.over = True
        return True

    def _start(self, config: dict[str, Any]) -> None:
        self.search.started, self.last = True, time.monotonic()
        if self.trial.number == 0:
            self.search.settled(self.trial, config)

    def _scored(self, message: dict[str, Any]) -> bool:
        """Writes a score down; whether the trial should stop: pruned, or the next score would come too late."""
        now = time.monotonic()
        took, self.last = now - self.last, now
        pruned = self.ledger.report(self.trial, message["evaluation"], message["score"])
        taken = {"seconds": self._seconds()}
        self.ledger.note(self.trial, **taken, **({"first_seconds": self._seconds()} if message["evaluation"] == 1 else {}))
        self.clock.keep()
        if not message["left"] or message["evaluation"] == 0:
            return False
        self.reason = "pruned" if pruned else OUT_OF_TIME if self.clock.left() < took else ""
        return bool(self.reason)

    def _ended(self, message: dict[str, Any]) -> None:
        score = self._score()
        self.search.failures = 0
        sizes = {k: message[k] for k in ("parameters", "trained_parameters", "best_step")}
        if score is None or score != score:
            self.ledger.end(self.trial, "failed", reason="its score is no number", **sizes)
            return
        state = "pruned" if self.reason else "done"
        self.ledger.end(self.trial, state, score, reason=self.reason, **sizes)
        self.search.say(self._line(f"{self.search.key} {score:.4f}{f' ({self.reason})' if self.reason else ''}"))

    def _cut_off(self) -> None:
        """By a signal it stays open; by the clock too, unless it has a score after some training to count with."""
        self.search.over = True
        score = self._score()
        if not self.stop.number and score is not None and self._trained():
            self.ledger.end(self.trial, "pruned", reason=OUT_OF_TIME)
            self.search.say(self._line(f"{self.search.key} {score:.4f} ({OUT_OF_TIME})"))

    def _failed(self, died: str, message: dict[str, Any]) -> None:
        """A proposal may be bad, and the search goes on; but the configuration as it stands must work."""
        reason = died or " ".join(str(message[k]) for k in ("where", "what", "fix") if message[k])
        if self.trial.number == 0:
            if died:
                raise UserError(died, where="trial 0", fix=f"See {self.folder / OUTPUT}.")
            raise UserError(message["what"], where=message["where"], fix=message["fix"])
        self.ledger.end(self.trial, "failed", reason=reason)
        self.search.say(self._line(f"failed: {reason}"))
        self.search.failures += 1
        if self.search.failures >= MOST_FAILURES:
            fix = f"Look at the space, and at {self.folder / OUTPUT}."
            raise UserError(f"{MOST_FAILURES} trials failed one after the other; the last: {reason}", where="search", fix=fix)

    def _score(self) -> float | None:
        """The best score so far."""
        scores = self.ledger.entries()[self.trial.number].scores
        return list(scores.values())[-1] if scores else None

    def _trained(self) -> bool:
        """Whether a score was reached by training; number 0 is that of the start."""
        return any(self.ledger.entries()[self.trial.number].scores)

    def _seconds(self) -> float:
        return round(self.before + time.monotonic() - self.began, 1)

    def _line(self, words: str) -> str:
        return f"trial {self.trial.number}: {words}, {self._seconds():.0f} s"
