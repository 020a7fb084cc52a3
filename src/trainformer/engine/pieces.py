"""What the loop calls: the gradient of a step, and the log."""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainformer.core.batch import Batch, cut, join, shifted
from trainformer.core.component import Component
from trainformer.core.errors import UserError
from trainformer.core.files import write_text
from trainformer.core.roles import Grad, Loss, Method, Model, Task
from trainformer.core.seeds import seed_of
from trainformer.engine.ranks import Ranks

Numbers = Callable[[], AbstractContextManager[Any]]
"""Opens a context in which matrix products use the chosen numbers."""


def base_loss(task: Task) -> Loss:
    """The task's own loss, one value "U" for each unit. Scores of a vocabulary are many: they come as they were computed."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        output = model(batch)
        return task.loss(output if task.vocabulary else output.float(), batch)

    return loss


def _apart(kind: str) -> bool:
    """No loss couples its rows."""
    return False


class Together(Model):
    """The model on the joined rows of a step, a micro-batch at a time: what is kept of each is its output alone.

    Each micro-batch is run a second time for its gradient, with the same dropout. This is gradient caching (Gao et al.
    2021, arXiv:2101.06983) by way of activation checkpointing (Chen et al. 2016, arXiv:1604.06174).
    """

    def __init__(self, model: Model, pieces: list[Batch]):
        super().__init__(model.body, model.head)
        self._run, self._pieces = model.__call__, pieces

    def forward(self, batch: Batch) -> Tensor:
        pieces = _moved(batch, self._pieces)
        if len(pieces) == 1 or not torch.is_grad_enabled():
            return torch.cat([self._run(piece) for piece in pieces])
        # The ids stand among the arguments only to show on which device the draws of dropout must be kept.
        outputs = [checkpoint(self._one, piece, piece.parts[0].ids, use_reentrant=False) for piece in pieces]
        return torch.cat(outputs)

    def _one(self, piece: Batch, ids: Tensor) -> Tensor:
        output: Tensor = self._run(piece)
        return output


def _moved(batch: Batch, pieces: list[Batch]) -> list[Batch]:
    """The pieces of a batch, each with its share of the moves of embeddings that the batch has."""
    sizes = [[len(part.ids) for part in piece.parts] for piece in pieces]
    shifts: list[Any] = [
        [None] * len(sizes) if part.shift is None else part.shift.split([size[i] for size in sizes])
        for i, part in enumerate(batch.parts)
    ]
    return [shifted(piece, own) for piece, own in zip(pieces, zip(*shifts, strict=True), strict=True)]


@dataclass(frozen=True)
class Loop:
    """What a gradient asks of the loop around it."""

    numbers: Numbers
    seed: Callable[[], int]
    """The seed of the step."""
    ranks: Ranks = field(default_factory=Ranks)
    finer: Callable[[int], None] = lambda pieces: None
    """Is told into how many micro-batches a step was cut because the device had no memory for fewer."""


def base_grad(model: Model, loss: Loss, loop: Loop, couples: Callable[[str], bool] = _apart) -> Grad:
    """The innermost gradient: units of the whole step are counted first, losses weighed, summed and divided once.

    So the result does not depend on how the step was cut into micro-batches. A kind whose loss couples its rows gets all
    of them as one batch, through the model piece by piece. Where a device has too little memory, what was added so far is
    dropped, the micro-batches are cut in two and all are done again. Raises UserError if one row alone is too much.
    """

    def passes(batches: list[Batch], units: int) -> Tensor:
        device = next(model.parameters()).device
        total = torch.zeros((), device=device)
        for number, (runs, moved) in enumerate(_passes(model, [b.to(device) for b in batches], couples)):
            torch.manual_seed(seed_of(loop.seed(), "micro", number))
            with loop.numbers():
                share = (loss(runs, moved) * moved.weight).sum() / units
            share.backward()
            total += share.detach()
        return total

    def grad(batches: list[Batch]) -> Tensor:
        units = loop.ranks.units(batches)
        trained = [p for p in model.parameters() if p.requires_grad]
        earlier = [p.grad for p in trained]
        total = None
        while total is None:
            for parameter in trained:
                parameter.grad = None
            try:
                total = loop.ranks.summed(lambda own: passes(own, units), model)(batches)
            except torch.OutOfMemoryError as error:
                batches = _finer(batches, error, loop)
        for parameter, before in zip(trained, earlier, strict=True):
            if before is not None:
                parameter.grad = before if parameter.grad is None else before.add_(parameter.grad)
        return total

    return grad


def _finer(batches: list[Batch], error: torch.OutOfMemoryError, loop: Loop) -> list[Batch]:
    """Micro-batches of half the rows. Parts of a model are put together by all processes at once: then it cannot be helped."""
    pieces = [piece for batch in batches for piece in _moved(batch, cut(batch, 2))]
    if len(pieces) == len(batches) or not loop.ranks.whole_here:
        what = f"the device has too little memory for {len(batches)} micro-batches of {max(map(len, batches))} rows at most."
        fix = "Lower data.max_tokens or train.micro_tokens, use train.recompute=true, or train fewer weights (--method lora)."
        raise UserError(what, where="memory", fix=fix) from error
    loop.finer(len(pieces))
    return pieces


def _passes(model: Model, batches: list[Batch], couples: Callable[[str], bool]) -> Iterator[tuple[Model, Batch]]:
    """What goes through the loss at once: each micro-batch apart or, where a kind couples, all of its rows together."""
    for kind in dict.fromkeys(b.kind for b in batches):
        own = [b for b in batches if b.kind == kind]
        if couples(kind):
            yield Together(model, own), join(own).to(own[0].weight.device)
        else:
            yield from ((model, batch) for batch in own)


def wrapped(model: Model, task: Task, methods: list[Method], loop: Loop) -> Grad:
    """The gradient function with every method around it; the last in the configuration is outermost."""
    loss = base_loss(task)
    for method in methods:
        loss = method.wrap_loss(loss)
    if loop.ranks.world > 1:
        _refuse_coupled(task, methods)
    grad = base_grad(model, loss, loop, lambda kind: task.couples(kind) or any(m.couples() for m in methods))
    for method in methods:
        grad = method.wrap_grad(grad, model)
    return grad


def _refuse_coupled(task: Task, methods: list[Method]) -> None:
    """Raises UserError for losses that join the rows of a step, of which each process has its share alone."""
    coupled: list[Component] = [m for m in methods if m.couples()]
    for each in [task, *coupled] if task.couples("") else coupled:
        what = f"the loss of '{type(each).key}' joins all rows of a step, and each process has a share of them."
        raise UserError(what, where="torchrun", fix="Train in one process: micro-batches make room for any number of rows.")


class Log:
    """`log.jsonl`: a line a step, a line an evaluation. A loss that is no number stands as the text "nan" or "inf"."""

    def __init__(self, path: Path | None, step: int, scored: Sequence[int]):
        """Going on after `step`, evaluated at `scored`, drops what a run that was broken off wrote later. No path: no log."""
        self._known = {(s, True) for s in scored} | {(s, False) for s in range(1, step + 1)}
        if path is not None:
            lines = path.read_bytes().splitlines() if path.exists() else []
            write_text(path, "".join(f"{line.decode()}\n" for line in lines if self._is_known(line)))
        self._path = path
        self._file = open(os.devnull if path is None else path, "a", encoding="utf-8")  # noqa: SIM115

    def _is_known(self, line: bytes) -> bool:
        """Whether a line is of this run's past, and the first of its kind; one that was cut while it was written is not."""
        try:
            values = json.loads(line)
            place = (values["step"], "validation" in values)
        except (ValueError, KeyError, TypeError):
            return False
        known = place in self._known
        self._known.discard(place)
        return known

    def write(self, **values: Any) -> None:
        """One line, at once."""
        plain = {k: v if not isinstance(v, float) or math.isfinite(v) else str(v) for k, v in values.items()}
        self._file.write(json.dumps(plain, allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Waits until the lines are on the disk."""
        if self._path is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
