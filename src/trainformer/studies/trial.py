"""One trial in a process of its own: `python -m trainformer.studies.trial FOLDER`. Its memory goes when it ends.

It trains by the settings in FOLDER/trial.json and speaks with the study by lines of JSON: to standard output what happened, from
standard input whether to stop. When the study is gone it ends at once, so that no two processes ever train the same trial.
What a run says goes to FOLDER/output.txt.
"""

import fcntl
import json
import os
import sys
import threading
from pathlib import Path
from queue import Queue
from typing import Any

from pydantic import PrivateAttr

from trainformer.core import config as settings
from trainformer.core.errors import UserError
from trainformer.core.roles import Callback, EvalReport
from trainformer.data.check import CheckReport
from trainformer.engine.limits import Interrupted
from trainformer.run import Run, train

GONE = 3
"""The exit code of a trial whose study is gone."""


class Declined(Exception):
    """The study does not want this trial to begin now."""


class Line:
    """The two-way line to the study."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # what a library prints is no message
        self.replies: Queue[dict[str, Any]] = Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        said = b""
        while piece := os.read(0, 4096):  # not sys.stdin: a thread that waits inside it breaks the end of the process
            *whole, said = (said + piece).split(b"\n")
            for line in whole:
                self.replies.put(json.loads(line))
        os._exit(GONE)

    def tell(self, kind: str, **facts: Any) -> None:
        """One message that wants no answer."""
        self.out.write(json.dumps({"kind": kind, **facts}) + "\n")
        self.out.flush()

    def ask(self, kind: str, **facts: Any) -> bool:
        """One message; whether the study answers that it should stop."""
        self.tell(kind, **facts)
        return bool(self.replies.get()["stop"])


class Watch(Callback):
    """Tell the study each score, the best so far, and stop when it says so."""

    _line: Any = PrivateAttr(None)
    _steps: int = PrivateAttr(0)
    _count: int = PrivateAttr(0)
    _best: float | None = PrivateAttr(None)

    def on_start(self, facts: dict[str, Any]) -> None:
        self._steps = facts["steps"]
        self._line.tell("start", config=facts["config"])

    def on_eval(self, report: EvalReport) -> bool:
        """Evaluations count from 1, whatever their step, so that trials of other lengths are compared; the start is number 0."""
        self._count += report.step > 0
        if report.best:
            self._best = report.scores[report.key]
        left = self._steps - report.step
        stop: bool = self._line.ask("score", evaluation=self._count, score=self._best, epoch=report.epoch, left=left)
        return stop

    def state(self) -> dict[str, Any]:
        return {"count": self._count, "best": self._best}

    def restore(self, state: dict[str, Any]) -> None:
        self._count, self._best = state["count"], state["best"]


def work(folder: Path, line: Any) -> None:
    """Trains, or goes on with, the trial of a folder; the test rows are read and looked over, and never scored."""
    with (folder / ".lock").open("w") as lock:  # the process of a study that was killed may need a moment to end
        fcntl.flock(lock, fcntl.LOCK_EX)
        _train(folder, line)


def _train(folder: Path, line: Any) -> None:
    values = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
    watch = Watch()
    watch._line = line

    def ready(report: CheckReport) -> None:
        forecast = report.forecast or {}  # none where the model is spread over processes
        needed = {k: forecast.get(k, 0.0) for k in ("first_score_seconds", "training_seconds")}
        if not report.errors and line.ask("ready", **needed):
            raise Declined

    run = Run(settings.parse(values, str(folder)), folder, _say, show=ready, part="fit", watch=watch)
    try:
        result = train(run, resume=True)
    except Declined:
        line.tell("declined")
    except Interrupted:
        line.tell("interrupted")
    except UserError as error:
        line.tell("refused", what=error.what, where=error.where, fix=error.fix)
    else:
        line.tell("end", **{k: v for k, v in result.scores.items() if k != "validation"})


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    work(Path(sys.argv[1]), Line())
