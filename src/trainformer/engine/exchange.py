"""What processes say to each other: sums, the first one's word, tensors of all. Where one has ended, the others stop.

Numbers and bytes alone travel; nothing is pickled.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from trainformer.core.errors import UserError

T = TypeVar("T")
PATIENT, BRISK = timedelta(days=7), timedelta(minutes=30)
"""How long to wait while the first process reads and tokenises, and how long within a step before a run counts as broken."""
YIELD_SECONDS = 5.0
"""The first process is to say that another was lost, for it saves too. After so long another one says it."""
ENDED = "trainformer/ended"


class Exchange:
    """The processes of torch.distributed, `rank` of `world`."""

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._waits, self._steps = (dist.new_group(backend="gloo", timeout=t) for t in (PATIENT, BRISK))
        nccl = torch.cuda.is_available() and "nccl" in str(dist.get_backend_config())
        self._device = None if nccl else self._steps
        self.lost: Callable[[], Exception] = self._ended
        """The error to raise where another process has ended."""

    def wait(self) -> None:
        """Until all are here."""
        self.do(lambda: dist.barrier(group=self._waits))

    def sum_(self, tensor: Tensor) -> None:
        """The sum over all, in place, on the tensor's device."""
        self.do(lambda: dist.all_reduce(tensor, group=self._device))

    def sums(self, numbers: list[int]) -> list[int]:
        return self._reduced(numbers, dist.ReduceOp.SUM)

    def greatest(self, number: int) -> int:
        return self._reduced([number], dist.ReduceOp.MAX)[0]

    def number(self, value: float) -> float:
        """The first process's."""
        return float(self.shared(torch.tensor(value, dtype=torch.float64)))

    def word(self, values: dict[str, Any]) -> dict[str, Any]:
        """The first process's plain JSON values."""
        text = torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)
        length = int(self.shared(torch.tensor(len(text))))
        told = self.shared(text if self.rank == 0 else torch.empty(length, dtype=torch.uint8))
        found: dict[str, Any] = json.loads(told.numpy().tobytes())
        return found

    def shared(self, tensor: Tensor) -> Tensor:
        """The first process's tensor, by its bytes; the others give one of its kind and shape, which is filled."""
        if tensor.numel():
            self.do(lambda: dist.broadcast(tensor.view(-1).view(torch.uint8), 0, group=self._waits))
        return tensor

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """The matrices of all processes, "N C" with an N of their own each, in the order of ranks."""
        rows = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        self.do(lambda: dist.all_gather(rows, torch.tensor([len(tensor)]), group=self._steps))
        most = max(int(n) for n in rows)
        room = [tensor.new_empty(most, *tensor.shape[1:]) for _ in rows]
        padded = torch.cat([tensor, tensor.new_zeros(most - len(tensor), *tensor.shape[1:])])
        self.do(lambda: dist.all_gather(room, padded, group=self._steps))
        return [found[: int(n)] for found, n in zip(room, rows, strict=True)]

    def _reduced(self, numbers: list[int], how: Any) -> list[int]:
        tensor = torch.tensor(numbers)
        self.do(lambda: dist.all_reduce(tensor, how, group=self._steps))
        found: list[int] = tensor.tolist()
        return found

    def do(self, work: Callable[[], T]) -> T:
        """Something that all processes do together. Raises `lost()` where one of them has ended."""
        try:
            return work()
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and not any(w in str(error) for w in ("gloo", "NCCL", "Connection")):
                raise
            _claim_in_turn(self.rank)
            raise self.lost() from error

    def _ended(self) -> Exception:
        return UserError("another process of this run has ended.", where=f"process {self.rank} of {self.world}")


def several() -> bool:
    """Whether this process is one of several: of torchrun, or of whoever has set up torch.distributed."""
    grouped = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return grouped or os.environ.get("WORLD_SIZE", "1") != "1"


@cache
def meet() -> Exchange:
    """Waits for all processes. Raises UserError where torchrun's variables are not all there."""
    if not dist.is_initialized():
        absent = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if absent:
            fix = "Start the processes by torchrun, or unset WORLD_SIZE."
            raise UserError(f"it is set, and {absent[0]} is not.", where="WORLD_SIZE", fix=fix)
        local, cards = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if cards:
            torch.cuda.set_device(local % cards)
        a_card_each = cards and int(os.environ.get("LOCAL_WORLD_SIZE", 1)) <= cards
        dist.init_process_group("cpu:gloo,cuda:nccl" if a_card_each else "gloo")
    return Exchange()


def speaks() -> bool:
    """Whether this process is the one that says why the run ends: the first that asks."""
    if not several() or not (dist.is_initialized() or "MASTER_ADDR" in os.environ):
        return True
    meet()
    return _claim()


def _claim() -> bool:
    """Whether this process has the word; each of them has, where the store has ended too, with the process that kept it."""
    own = str(dist.get_rank())
    try:
        return bool(_store().compare_set(ENDED, "", own) == own.encode())
    except dist.DistError:
        return True


def _claim_in_turn(rank: int) -> None:
    """The first process claims the word at once, the others if it has not done so after a while."""
    end = time.monotonic() + (YIELD_SECONDS if rank else 0)
    with suppress(dist.DistError):
        while time.monotonic() < end and not _store().check([ENDED]):
            time.sleep(0.05)
    _claim()


def _store() -> Any:
    """What torchrun keeps for all processes."""
    return dist.distributed_c10d._get_default_store()
