"""What the loop calls: the gradient of a step, and the log."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainformer.core.batch import Batch, join, shifted
from trainformer.core.component import Component
from trainformer.core.errors import UserError
from trainformer.core.roles import Grad, Loss, Method, Model, Task
from trainformer.core.seeds import seed_of
from trainformer.engine.ranks import Ranks

Numbers = Callable[[], AbstractContextManager[Any]]
"""Opens a context in which matrix products use the chosen numbers."""


def base_loss(task: Task) -> Loss:
    """The task's own loss, one value "U" for each unit."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return task.loss(model(batch).float(), batch)

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
        sizes = [[len(part.ids) for part in piece.parts] for piece in self._pieces]
        shifts: list[Any] = [
            [None] * len(sizes) if part.shift is None else part.shift.split([size[i] for size in sizes])
            for i, part in enumerate(batch.parts)
        ]
        pieces = [shifted(piece, own) for piece, own in zip(self._pieces, zip(*shifts, strict=True), strict=True)]
        if len(pieces) == 1 or not torch.is_grad_enabled():
            return torch.cat([self._run(piece) for piece in pieces])
        # The ids stand among the arguments only to show on which device the draws of dropout must be kept.
        outputs = [checkpoint(self._one, piece, piece.parts[0].ids, use_reentrant=False) for piece in pieces]
        return torch.cat(outputs)

    def _one(self, piece: Batch, ids: Tensor) -> Tensor:
        output: Tensor = self._run(piece)
        return output


def base_grad(
    model: Model, loss: Loss, numbers: Numbers, seed: Callable[[], int], ranks: Ranks, couples: Callable[[str], bool] = _apart
) -> Grad:
    """The innermost gradient: units of the whole step are counted first, losses weighed, summed and divided once.

    So the result does not depend on how the step was cut into micro-batches. A kind whose loss couples its rows gets all
    of them as one batch, through the model piece by piece.
    """

    def grad(batches: list[Batch]) -> Tensor:
        units = ranks.units(batches)
        device = next(model.parameters()).device
        total = torch.zeros((), device=device)
        for number, (runs, moved) in enumerate(_passes(model, [b.to(device) for b in batches], couples)):
            torch.manual_seed(seed_of(seed(), "micro", number))
            with numbers():
                share = (loss(runs, moved) * moved.weight).sum() / units
            share.backward()
            total += share.detach()
        return total

    return ranks.summed(grad, model)


def _passes(model: Model, batches: list[Batch], couples: Callable[[str], bool]) -> Iterator[tuple[Model, Batch]]:
    """What goes through the loss at once: each micro-batch apart or, where a kind couples, all of its rows together."""
    for kind in dict.fromkeys(b.kind for b in batches):
        own = [b for b in batches if b.kind == kind]
        if couples(kind):
            yield Together(model, own), join(own).to(own[0].weight.device)
        else:
            yield from ((model, batch) for batch in own)


def wrapped(model: Model, task: Task, methods: list[Method], numbers: Numbers, seed: Callable[[], int], ranks: Ranks) -> Grad:
    """The gradient function with every method around it; the last in the configuration is outermost."""
    loss = base_loss(task)
    for method in methods:
        loss = method.wrap_loss(loss)
    if ranks.world > 1:
        _refuse_coupled(task, methods)
    grad = base_grad(model, loss, numbers, seed, ranks, lambda kind: task.couples(kind) or any(m.couples() for m in methods))
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
    """`log.jsonl`: a line a step, a line an evaluation. Going on from a step drops the lines after it."""

    def __init__(self, path: Path, start: int):
        kept = []
        if path.exists() and start:
            kept = [x for x in path.read_text().splitlines() if x.endswith("}") and json.loads(x)["step"] <= start]
        path.write_text("".join(line + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, **values: Any) -> None:
        """One line, at once."""
        self._file.write(json.dumps(values, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
