"""A bundle whose model is a graph, asked without PyTorch: the same task, the same tokens, the same batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from trainformer.bundle.asking import Asked, chunks, refuse_choices
from trainformer.bundle.facts import facts_of, open_task
from trainformer.core.arrays import Array
from trainformer.core.config import DataSettings
from trainformer.core.roles import Answer
from trainformer.core.rows import Example
from trainformer.data.encode import Reading
from trainformer.data.fast_tokens import FastTokens
from trainformer.data.groups import grouped
from trainformer.runtime import ir
from trainformer.runtime.padding import Item, joined, padded
from trainformer.runtime.session import GRAPH, MICRO_TOKENS, Session, cores

SESSIONS: dict[str, Callable[[Path, dict[str, Any], int], Session | ir.Session]] = {
    "onnx": lambda folder, model, threads: Session(folder / GRAPH, threads),
    "openvino": lambda folder, model, threads: ir.Session(
        folder / ir.GRAPH, threads, int(model["group"]), bool(model["bfloat16"])
    ),
}
"""What runs the graph of a bundle, by its kind of model, from its settings."""


@dataclass(frozen=True)
class Targets:
    """What a metric holds outputs against."""

    target: Array


class Light(Asked):
    """What answers for a graph."""

    def __init__(self, folder: Path, facts: dict[str, Any], threads: int | None = None):
        super().__init__(open_task(facts), facts)
        self.reading = cast(Reading, self.task)  # who opens it has looked
        self.session = SESSIONS[facts["model"]["kind"]](folder, facts["model"], threads or cores())
        self.tokens = FastTokens.of(folder)
        self.pad = int(facts["model"]["pad"])

    @classmethod
    def inspected(cls, path: Path, facts: dict[str, Any], adapter: str | None = None, threads: int | None = None) -> "Light":
        """Reads a folder that `inspect` has looked at. A graph has no adapters: to name one is refused as it is elsewhere."""
        if adapter is not None:
            facts_of(path, adapter)
        return cls(path, facts, threads)

    def stream(self, examples: Iterable[Example], *, logits: bool = False) -> Iterator[Answer]:
        """Answers to examples, in order, some thousand rows at a time."""
        for chunk in chunks(examples):
            items = self._items(chunk)
            raw = self._in_order(items)
            for item, answer, row in zip(items, self.task.answer(raw, self.decision), raw, strict=True):
                answer["cut_tokens"] = item.cut_tokens
                yield answer | {"logits": row.tolist()} if logits else answer

    def logits(self, texts: Sequence[Any]) -> Array:
        """Raw outputs "N C" before the decision layer, in the order of `labels`."""
        asked = chunks(self._example(i, t) for i, t in enumerate(texts))
        items = [item for chunk in asked for item in self._items(chunk)]
        numbered = [replace(item, row=i) for i, item in enumerate(items)]
        return self._in_order(numbered) if numbered else np.empty((0, self.task.outputs()), np.float32)

    def evaluate(self, given: Any, settings: DataSettings | None = None, choices: str | None = None) -> dict[str, float]:
        """The task's scores on labelled rows, in constant memory, through the shipped decision layer."""
        if choices is not None:
            refuse_choices(self.task)
        metric = self.task.metric(self.decision)
        for chunk in chunks(self.examples(given, settings)):
            for output, items in self._outputs(self._items(chunk)):
                metric.add(output, Targets(np.concatenate([item.target for item in items])))
        return metric.value()

    def _items(self, chunk: list[Example]) -> list[Item]:
        """Token sequences of examples; their rows are numbered from 0 in the chunk."""
        flat = iter(self.tokens.pieces([text for e in chunk for text in e.texts]))
        found = []
        for row, example in enumerate(chunk):
            sequences, cut = self.reading.sequences([next(flat) for _ in example.texts], self.tokens, self.limit)
            found.append(Item(sequences, self.reading.targets(example), row, cut))
        return found

    def _outputs(self, items: list[Item]) -> Iterator[tuple[Array, list[Item]]]:
        """The raw outputs "B C" of each batch, the longest examples first."""
        longest_first = sorted(items, key=lambda e: (-e.tokens, e.row))
        for group in grouped(longest_first, MICRO_TOKENS, padded=True):
            yield joined(self.session.run(padded(group, self.pad)), group, self.reading.pooled), group

    def _in_order(self, items: list[Item]) -> Array:
        found = [(output, [item.row for item in group]) for output, group in self._outputs(items)]
        whole = np.empty((len(items), found[0][0].shape[1]), np.float32)
        for output, rows in found:
            whole[rows] = output
        return whole
