"""What the training data looked like, in short, kept in a bundle: a service holds what it is asked against it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from trainformer.bundle.outputs import batches_of, is_padded, outputs
from trainformer.core.batch import Batch, Encoded
from trainformer.core.roles import Answer, Model, Task
from trainformer.data.plan import Rows
from trainformer.nn.pool import pool

FILE = "reference.safetensors"
MOST_ROWS, MOST_EMBEDDED, MICRO_TOKENS = 2000, 256, 4096


@dataclass(frozen=True)
class Reference:
    """Samples of the training rows (tokens "N", unknown share "N") and of the answers on validation (score "V", number "V",
    mean states "E D"), with how often each label was said there. Empty where the task has none of them."""

    lengths: Tensor
    unknown: Tensor
    scores: Tensor
    numbers: Tensor
    embeddings: Tensor
    labels: dict[str, int] = field(default_factory=dict)


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
    chosen = train.index[spread(len(train), MOST_ROWS)]
    lengths = train.cache.lengths[chosen]
    said: dict[str, int] = {}
    for answer in answers:
        for label in words(answer.get("label")):
            said[label] = said.get(label, 0) + 1
    place = spread(len(answers), MOST_ROWS).tolist()
    scores = [answers[i]["score"] for i in place if answers[i].get("score") is not None]
    numbers = [float(answers[i]["label"]) for i in place if isinstance(answers[i].get("label"), int | float)]
    return Reference(lengths, train.cache.unknown[chosen] / lengths, torch.tensor(scores, dtype=torch.float32),
                     torch.tensor(numbers, dtype=torch.float32), _embeddings(task, model, validation), said)  # fmt: skip


def words(label: Any) -> list[str]:
    """The labels of an answer: none of a number, one, or several."""
    return [label] if isinstance(label, str) else [str(w) for w in label] if isinstance(label, list) else []


def spread(count: int, most: int) -> Tensor:
    """At most so many places among `count`, evenly spread."""
    return torch.arange(count) if count <= most else torch.linspace(0, count - 1, most).long()


def _embeddings(task: Task, model: Model, rows: Rows) -> Tensor:
    return mean_states(task, model, [rows[i] for i in spread(len(rows), MOST_EMBEDDED).tolist()])


def mean_states(task: Task, model: Model, items: Sequence[Encoded]) -> Tensor:
    """The mean hidden state "E D" of each example, in order; their rows are different ones."""
    with watched(model, [item.row for item in items]) as states:
        for _ in outputs(model, task, batches_of(items, MICRO_TOKENS, is_padded(model))):
            pass
    return torch.stack([states.found[item.row] for item in items])


def write(folder: Path, found: Reference) -> None:
    """One file of a bundle that is being written."""
    tensors = {"lengths": found.lengths.int(), "unknown": found.unknown.float(), "scores": found.scores,
               "numbers": found.numbers, "embeddings": found.embeddings.half()}  # fmt: skip
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / FILE, {"labels": json.dumps(found.labels)})
    (folder / FILE).chmod((folder / "config.json").stat().st_mode)


def read(folder: Path) -> Reference | None:
    """The reference of a bundle; None for one that was written without."""
    if not (folder / FILE).is_file():
        return None
    with safe_open(folder / FILE, "pt") as f:
        tensors = {name: f.get_tensor(name).float() for name in ("lengths", "unknown", "scores", "numbers", "embeddings")}
        return Reference(**tensors, labels=json.loads((f.metadata() or {})["labels"]))
