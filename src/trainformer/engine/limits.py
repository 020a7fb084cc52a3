"""Where a run stops: signals that ask for it, and numbers that are none."""

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from trainformer.core.batch import Batch, cut
from trainformer.core.errors import Interrupted as Interrupted
from trainformer.core.errors import UserError
from trainformer.core.roles import Model, Task


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


GREATEST = 1e18
"""A gradient of this length is as good as infinite: its square leaves float32. A shorter one makes no weight infinite."""


def finite(loss: torch.Tensor, norm: torch.Tensor) -> bool:
    """Whether the optimiser may use a step's gradient: then finite weights stay finite, and need not be looked at."""
    return bool(torch.isfinite(loss) & (norm < GREATEST))


def nonfinite(numbers: str, step: int, rows: str) -> UserError:
    """What ends a run whose step gave `numbers` ("loss nan, ...") from those rows; its weights were not changed."""
    return UserError(
        f"{numbers}: not finite. The weights were not changed.",
        where=f"step {step}, {rows}",
        fix="Look at those rows; lower train.lr, use train.precision=float32, or skip some such steps: train.skip_nonfinite.",
    )


@torch.no_grad()
def sick(model: Model, task: Task, batches: list[Batch]) -> list[int]:
    """The rows of a step whose own loss is no number; none if it is not single ones."""
    device = next(model.parameters()).device
    alone = [one for b in batches for one in cut(b, len(b))]
    found = [
        b.rows[0]
        for b in alone
        if not torch.isfinite(task.loss(model(b.to(device)).float(), b.to(device)) * b.weight.to(device)).all()
    ]
    return sorted(found)


def require_weights(model: Model, where: str) -> None:
    """Raises UserError that names the first weight that is no number."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"the weight {name} has values that are not finite.", where=where, fix="Start from another model.")


def require_scores(scores: dict[str, float], step: int) -> None:
    """Raises UserError for a score that is no number: no best epoch could be chosen by it."""
    for name, value in scores.items():
        if not math.isfinite(value):
            raise UserError(f"{name} on validation is {value}.", where=f"step {step}", fix="Lower train.lr.")
