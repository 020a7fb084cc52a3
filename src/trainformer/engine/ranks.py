"""Several processes as one: each takes a share of every step, and gradients, scores and decisions are those of a single one.

`Ranks` is one process alone: each of its answers is what it was given. `Group` is one of several, which torchrun (or
whoever has set up torch.distributed) has started. What is decided by chance, by clock or by a signal is decided once,
for all; only the first process writes files and talks.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from trainformer.bundle.outputs import outputs
from trainformer.core.batch import Batch
from trainformer.core.config import Config
from trainformer.core.errors import UserError
from trainformer.core.roles import Grad, Model, Task
from trainformer.engine.exchange import Exchange, meet, several
from trainformer.engine.limits import Interrupted, Stop
from trainformer.engine.optim import KNOWN, clip

if TYPE_CHECKING:
    from trainformer.engine.engine import Engine

T = TypeVar("T")


class Lost(Interrupted):
    """Another process of the run has ended. `kept`: whether a checkpoint of the last whole step was written."""

    def __init__(self, step: int, folder: Path, kept: bool):
        self.code, self.step, self.folder = 1, step, folder
        saved = "its checkpoint is kept." if kept else "its last checkpoint counts."
        Exception.__init__(self, f"another process of this run has ended: stopped at step {step}; {saved}")


class Ranks:
    """One process alone."""

    rank, world = 0, 1
    whole_here = True
    """Whether this process holds the whole model."""

    @property
    def first(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    def words(self, config: Config) -> list[str]:
        """What to say of how the work is spread."""
        return ["train.shard: there is one process, so nothing is spread (torchrun starts several)"] * config.train.shard

    def in_turn(self, work: Callable[[], T]) -> T:
        """Does the same work in all processes, the first before the others: they find in the cache what it has made."""
        return work()

    def same(self, value: float) -> float:
        """The first process's value."""
        return value

    def add(self, *counts: int) -> list[int]:
        """The sums over all processes."""
        return list(counts)

    def rows(self, rows: list[int]) -> list[int]:
        """The rows that the processes name, each its own: all of them in order."""
        return sorted(rows)

    def units(self, batches: list[Batch]) -> int:
        """The units of a step, those of all processes."""
        return sum(len(b.weight) for b in batches)

    def summed(self, grad: Grad, model: Model) -> Grad:
        """The gradient function, summed over the processes; there are no gradients before it."""
        return grad

    def clip(self, parameters: list[nn.Parameter], most: float, optimizer: torch.optim.Optimizer) -> Tensor:
        """Scales the gradients down to a norm of at most `most` (0: any), and gives the norm that they had."""
        return clip(parameters, most, optimizer)

    def outputs(self, model: Model, task: Task, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Batch]]:
        """The raw output of each batch, in their order, in every process."""
        return outputs(model, task, batches)

    def guard(self, engine: "Engine", stop: Stop) -> AbstractContextManager[Stop]:
        """Inside, a signal to one process stops all at the same step, and the loss of one ends in a checkpoint."""
        return nullcontext(stop)

    def agree(self) -> None:
        """Tells each process of the others' signals."""

    def begin(self, engine: "Engine") -> None:
        """Before the first step: all processes stand where the first one stands."""

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of which each process may hold a part, whole: in the first process."""
        return tensors

    def model(self, model: Model) -> Model:
        """The model as one process holds it, for shipping."""
        return model

    def word(self, values: dict[str, Any]) -> dict[str, Any]:
        """What the first process has to say to all, as plain JSON values."""
        return values


@dataclass
class Agreed(Stop):
    """A stop that has come to all processes. `own` has the signals of this one."""

    own: Stop = field(kw_only=True)


class Group(Ranks):
    """One of several processes."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange, self.rank, self.world = exchange, exchange.rank, exchange.world
        self._stop: Agreed | None = None

    def words(self, config: Config) -> list[str]:
        return [f"{self.world} processes share the rows of each step"]

    def in_turn(self, work: Callable[[], T]) -> T:
        """The first process, then the first of each other machine, then the rest."""
        turn = 0 if self.first else 1 if os.environ.get("LOCAL_RANK") == "0" else 2
        for now in range(3):
            if now == turn:
                found = work()
            self.exchange.wait()
        return found

    def same(self, value: float) -> float:
        return self.exchange.number(value)

    def add(self, *counts: int) -> list[int]:
        return self.exchange.sums(list(counts))

    def rows(self, rows: list[int]) -> list[int]:
        return sorted(int(row) for part in self.exchange.gathered(torch.tensor(rows).view(-1, 1)) for row in part)

    def units(self, batches: list[Batch]) -> int:
        return self.add(super().units(batches))[0]

    def summed(self, grad: Grad, model: Model) -> Grad:
        def over(batches: list[Batch]) -> Tensor:
            loss = grad(batches)
            self._sum([p for p in model.parameters() if p.requires_grad], loss)
            return loss

        return over

    @torch.no_grad()
    def _sum(self, parameters: list[nn.Parameter], loss: Tensor) -> None:
        """One flat all_reduce: gradients, the loss, and which gradients there are; one that no process has stays None."""
        there = torch.tensor([float(p.grad is not None) for p in parameters], device=loss.device)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([*(g.flatten().float() for g in grads), there, loss.view(1)])
        self.exchange.sum_(flat)
        *pieces, there, total = flat.split([*(p.numel() for p in parameters), len(parameters), 1])
        for parameter, piece, known in zip(parameters, pieces, there.tolist(), strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype) if known else None
        loss.copy_(total[0])

    def outputs(self, model: Model, task: Task, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Batch]]:
        """The batches of a single process, dealt out in rounds: what is scored has the same bits."""
        device = next(model.parameters()).device
        left = iter(batches)
        while dealt := list(islice(left, self.world)):
            output = self._output(model, task, dealt[self.rank % len(dealt)])
            for batch, found in zip(dealt, self.exchange.gathered(output.cpu()), strict=False):
                yield found.to(device), batch.to(device)
            self.agree()

    def _output(self, model: Model, task: Task, batch: Batch) -> Tensor:
        ((output, _),) = outputs(model, task, [batch])
        return output

    @contextmanager
    def guard(self, engine: "Engine", stop: Stop) -> Iterator[Stop]:
        self._stop = Agreed(stop.folder, own=stop)
        before, self.exchange.lost = self.exchange.lost, lambda: Lost(engine.progress.step, stop.folder, False)
        try:
            yield self._stop
        except Lost as lost:
            kept = self.first and self.whole_here
            if kept:
                with engine.writer:
                    engine.save()
            raise Lost(engine.progress.step, stop.folder, kept) from lost
        except Interrupted:
            self.agree()  # no one leaves before the checkpoint is whole: torchrun would end the others
            raise
        finally:
            self._stop, self.exchange.lost = None, before

    def agree(self) -> None:
        if self._stop is not None:
            self._stop.number = self.exchange.greatest(self._stop.own.number)

    def begin(self, engine: "Engine") -> None:
        """Weights first, so that methods are shown those of a probe; then optimiser, methods and progress."""
        engine.cut_to(int(self.same(engine.plan.micro_tokens)))
        state = engine.state()
        state.plain = self.word(state.plain)
        rest = {k: v for k, v in state.tensors.items() if not k.startswith("model.")}
        weights = dict(self._sent(state.part("model.")))
        if not self.first:
            engine.model.load_state_dict(weights)
            if not state.plain["step"] and not state.plain["history"]:
                engine.prepare()
        state.tensors = {f"model.{k}": v for k, v in weights.items()} | dict(self._sent(rest))
        if not self.first:
            engine.take(state)

    def word(self, values: dict[str, Any]) -> dict[str, Any]:
        return self.exchange.word(values)

    def _sent(self, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The first process's tensors by name, in all."""
        for name, (kind, shape) in self.word({k: [str(v.dtype), list(v.shape)] for k, v in tensors.items()}).items():
            dtype = getattr(torch, kind.removeprefix("torch."))
            own = tensors[name].detach().cpu().contiguous() if self.first else torch.empty(shape, dtype=dtype)
            yield name, self.exchange.shared(own)


def join() -> Ranks:
    """This process among those that were started with it, or alone. The first call waits for all of them."""
    return Group(meet()) if several() else Ranks()


def spread(ranks: Ranks, config: Config) -> tuple[Ranks, list[str]]:
    """The processes as the settings want them, and what to say. Raises UserError for methods that need the whole model."""
    if not config.train.shard or ranks.world == 1:
        return ranks, ranks.words(config)
    assert isinstance(ranks, Group)
    for name, method in config.method.items():
        if not method.shards:
            what = f"the method '{name}' needs the whole model in each process."
            raise UserError(what, where="train.shard", fix="Leave one of the two out.")
    if not KNOWN[config.train.optimizer].shards:
        what = f"the optimiser '{config.train.optimizer}' needs whole weights in each process."
        raise UserError(what, where="train.shard", fix="Take adamw, adam or sgd, or leave train.shard out.")
    if config.task.vocabulary:
        what = f"the head of '{type(config.task).key}' may share its weights with the table of embeddings."
        raise UserError(what, where="train.shard", fix="Leave train.shard out.")
    from trainformer.engine.shard import Sharded  # late: it takes a while to import, and few need it

    return Sharded(ranks.exchange), Sharded(ranks.exchange).words(config)
