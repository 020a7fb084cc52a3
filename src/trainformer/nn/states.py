"""What the last layer of a head reads: the state of each example, which contrastive losses compare and mixup mixes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.errors import UserError
from trainformer.nn.pool import pool_windows


def last_layer(head: nn.Module, method: str) -> nn.Linear:
    """The layer that gives the outputs. Raises UserError if the head has none."""
    layers = [m for m in head.modules() if isinstance(m, nn.Linear)]
    if not layers:
        fix = "Leave the method out."
        raise UserError("the head of this task has no linear layer to read the states of.", where=f"method.{method}", fix=fix)
    return layers[-1]


@contextmanager
def noted(module: nn.Module, before: bool = True) -> Iterator[list[Tensor]]:
    """Inside, what a module reads, or what it gives, is kept, run by run. Runs without gradients, to look only, are not."""
    seen: list[Tensor] = []
    graded = torch.is_grad_enabled()

    def note(value: Any) -> None:
        if torch.is_grad_enabled() == graded:
            seen.append(value[0] if isinstance(value, tuple) else value)

    if before:
        handle = module.register_forward_pre_hook(lambda _, inputs: note(inputs))
    else:
        handle = module.register_forward_hook(lambda _, inputs, output: note(output))
    try:
        yield seen
    finally:
        handle.remove()


def first_run(seen: list[Tensor], batch: Batch) -> Tensor:
    """The states "B D", in float32, of the first run over a batch, which may have gone through the model in pieces.

    Windows of an example are averaged. Raises UserError where there is not one state for each sequence.
    """
    owner, states, sizes = batch.parts[0].owner, list[Tensor](), 0
    for state in seen:
        if sizes >= len(owner):
            break
        states.append(state.flatten(0, -2).float())
        sizes += len(states[-1])
    if sizes != len(owner) or len(batch.weight) != len(batch):
        what = "the head of this task has another number of states than one for each example."
        raise UserError(what, fix="Contrastive methods and mixup need a task that says one thing of each example.")
    return pool_windows(torch.cat(states), owner, len(batch), "mean")
