"""When a checkpoint is due, and a thread that writes it from a copy, so that training waits for the copying alone."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from types import TracebackType

from torch import Tensor

from trainformer.core.config import TrainSettings
from trainformer.core.errors import UserError
from trainformer.engine import checkpoint

WAITING = 2
"""Most copies that wait for the disk: the best weights of an evaluation, and the state that names them."""


class Writer:
    """Writes best weights and states in the order in which they are given; at its end all are on the disk.

    What goes wrong in the thread comes up in the next call, and nothing is written after it.
    """

    def __init__(self, folder: Path | None, settings: TrainSettings, whole: Path | None = None):
        """`whole`: the checkpoint that the run goes on from. Without a folder (another process writes) nothing is written."""
        self.folder, self.settings = folder, settings
        self._whole = [whole] if whole else []
        self._given: list[Future[None]] = []
        self._failed = False
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether the step just done is to be saved although no evaluation follows: by the clock, or by its number."""
        self._look()
        every = self.settings.checkpoint_steps
        late = time.monotonic() - self._last >= 60 * self.settings.checkpoint_minutes
        return bool(every and step % every == 0) or (late and not self._given)

    def best(self, step: int, weights: dict[str, Tensor]) -> None:
        """The weights that are to ship so far."""
        if self.folder is not None:
            mine, folder = _copied(weights), self.folder
            self._give(lambda: checkpoint.save_best(folder, step, mine))

    def state(self, step: int, state: checkpoint.State, first: Callable[[], None]) -> None:
        """The whole state, once `first` has been done (the log's lines are on the disk before the state that counts them)."""
        if self.folder is None:
            return
        mine, folder = checkpoint.State(_copied(state.tensors), deepcopy(state.plain)), self.folder

        def write() -> None:
            first()
            self._whole.append(checkpoint.save(folder, step, mine, self._whole))

        self._give(write)
        self._last = time.monotonic()

    def _give(self, job: Callable[[], None]) -> None:
        self._look()
        while len(self._given) >= WAITING:
            self._given.pop(0).result()
        self._given.append(self._pool.submit(self._do, job))

    def _do(self, job: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            job()
        except BaseException as error:
            self._failed = True
            if isinstance(error, UserError) and self._whole:
                whole = f"{self._whole[-1].name} is whole: once there is room, --resume goes on from it."
                raise UserError(error.what, where=error.where, fix=whole) from error
            raise

    def _look(self) -> None:
        """Raises what went wrong."""
        while self._given and self._given[0].done():
            self._given.pop(0).result()

    def __enter__(self) -> "Writer":
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown()
        for each in self._given:
            each.result()


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
