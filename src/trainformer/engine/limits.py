"""Where a run stops: signals that ask for it, and numbers that are none."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from trainformer.core.batch import Batch
from trainformer.core.errors import UserError


class Interrupted(Exception):
    """Ctrl-C or SIGTERM: the checkpoint of its step is in `folder`, the run's. `code` is the exit code that shells expect."""

    def __init__(self, number: int, step: int, folder: Path):
        self.code, self.step, self.folder = 128 + number, step, folder
        super().__init__(f"stopped by {signal.Signals(number).name} at step {step}; its checkpoint is kept.")


@dataclass
class Stop:
    """The signal that came, if one did, and the folder of the run that it stops."""

    folder: Path
    number: int = 0

    def check(self, step: int) -> None:
        """Raises Interrupted if a signal came."""
        if self.number:
            raise Interrupted(self.number, step, self.folder)


@contextmanager
def signals(folder: Path) -> Iterator[Stop]:
    """Inside, Ctrl-C and SIGTERM only leave a note, so that a step is never cut in two; a second one changes nothing."""
    stop = Stop(folder)

    def note(number: int, _: FrameType | None) -> None:
        stop.number = stop.number or number

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def require_finite(loss: torch.Tensor, norm: torch.Tensor, batches: list[Batch], step: int) -> None:
    """Raises UserError that names the rows of a step whose loss or gradient is NaN or infinite; weights are untouched."""
    if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
        rows = sorted(r for b in batches for r in b.rows)
        raise UserError(
            f"loss {float(loss)}, gradient norm {float(norm)}: not finite. The weights were not changed.",
            where=f"step {step}, training rows {', '.join(map(str, rows[:16]))}",
            fix="Lower train.lr, or use train.precision=float32.",
        )
