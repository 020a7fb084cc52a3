"""What the loop calls: the gradient of a step, and the log."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.roles import Grad, Loss, Method, Model, Task
from trainformer.data.plan import seed_of
from trainformer.engine.ranks import Ranks

Numbers = Callable[[], AbstractContextManager[Any]]
"""Opens a context in which matrix products use the chosen numbers."""


def base_loss(task: Task) -> Loss:
    """The task's own loss, one value "U" for each unit."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return task.loss(model(batch).float(), batch)

    return loss


def base_grad(model: Model, loss: Loss, numbers: Numbers, seed: Callable[[], int], ranks: Ranks) -> Grad:
    """The innermost gradient: units of the whole step are counted first, losses weighed, summed and divided once.

    So the result does not depend on how the step was cut into micro-batches.
    """

    def grad(batches: list[Batch]) -> Tensor:
        units = ranks.units(batches)
        device = next(model.parameters()).device
        total = torch.zeros((), device=device)
        for number, batch in enumerate(batches):
            moved = batch.to(device)
            torch.manual_seed(seed_of(seed(), "micro", number))
            with numbers():
                share = (loss(model, moved) * moved.weight).sum() / units
            share.backward()
            total += share.detach()
        return total

    return ranks.summed(grad, model)


def wrapped(model: Model, task: Task, methods: list[Method], numbers: Numbers, seed: Callable[[], int], ranks: Ranks) -> Grad:
    """The gradient function with every method around it; the last in the configuration is outermost."""
    loss = base_loss(task)
    for method in methods:
        loss = method.wrap_loss(loss)
    grad = base_grad(model, loss, numbers, seed, ranks)
    for method in methods:
        grad = method.wrap_grad(grad, model)
    return grad


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
