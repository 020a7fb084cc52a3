"""Mean hidden states of what a model reads, and what a run remembers of its data by them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from trainformer.bundle.outputs import batches_of, is_padded, outputs
from trainformer.bundle.reference import MOST_EMBEDDED, MOST_ROWS, Reference, spread, words
from trainformer.core.arrays import Array
from trainformer.core.batch import Batch, Encoded
from trainformer.core.roles import Answer, Model, Task
from trainformer.data.plan import Rows
from trainformer.nn.pool import pool

MICRO_TOKENS = 4096


class States:
    """Mean hidden states of some rows, taken while a model runs; rows count from 0 in what is answered."""

    def __init__(self, rows: Sequence[int]):
        self.rows = set(rows)
        self.found: dict[int, Tensor] = {}
        self._batch: Batch | None = None

    def ask(self, body: nn.Module, given: tuple[Batch, ...]) -> None:
        """A hook before a body, and before those of methods, which may lengthen what it reads."""
        self._batch = given[0]

    def take(self, body: nn.Module, given: tuple[Batch, ...], hidden: tuple[Tensor, ...]) -> None:
        """A hook after a body. Of an example of several sequences the first counts."""
        assert self._batch is not None, "ask runs before take"
        batch, part = self._batch, self._batch.parts[0]
        places = [i for i, row in enumerate(batch.rows) if row in self.rows and row not in self.found]
        if places:
            pooled = pool(hidden[0].float(), part.lengths, "mean").cpu()
            owner = part.owner.tolist()
            self.found |= {batch.rows[i]: pooled[owner.index(i)] for i in places}

    def rounded(self) -> list[list[float]]:
        """The states in the order of the rows, to four digits."""
        return [[round(v, 4) for v in self.found[row].tolist()] for row in sorted(self.found)]


@contextmanager
def watched(model: Model, rows: Sequence[int]) -> Iterator[States]:
    """Inside, the states of these rows are kept. With no rows it costs nothing; a body without states (a graph) gives none."""
    states = States(rows)
    if not rows or not model.body.width:
        yield states
        return
    body = model.body
    handles = [body.register_forward_pre_hook(states.ask, prepend=True), body.register_forward_hook(states.take)]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def summary(task: Task, model: Model, rows: tuple[Rows, Rows], answers: Sequence[Answer]) -> Reference:
    """The reference of a run: its training rows, and its validation rows with the answers to them, in order."""
    train, validation = rows
    chosen = train.index[torch.from_numpy(spread(len(train), MOST_ROWS))]
    lengths = train.cache.lengths[chosen]
    said: dict[str, int] = {}
    for answer in answers:
        for label in words(answer.get("label")):
            said[label] = said.get(label, 0) + 1
    place = spread(len(answers), MOST_ROWS).tolist()
    scores = [answers[i]["score"] for i in place if answers[i].get("score") is not None]
    numbers = [float(answers[i]["label"]) for i in place if isinstance(answers[i].get("label"), int | float)]
    unknown = (train.cache.unknown[chosen] / lengths).numpy()
    return Reference(lengths.numpy(), unknown, np.array(scores), np.array(numbers), _embeddings(task, model, validation), said)


def _embeddings(task: Task, model: Model, rows: Rows) -> Array:
    return mean_states(task, model, [rows[i] for i in spread(len(rows), MOST_EMBEDDED).tolist()])


def mean_states(task: Task, model: Model, items: Sequence[Encoded]) -> Array:
    """The mean hidden state "E D" of each example, in order; their rows are different ones."""
    with watched(model, [item.row for item in items]) as states:
        for _ in outputs(model, task, batches_of(items, MICRO_TOKENS, is_padded(model))):
            pass
    return torch.stack([states.found[item.row] for item in items]).numpy()
