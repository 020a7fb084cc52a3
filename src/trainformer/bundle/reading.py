"""Opens a bundle and asks it: the same parse, encode and forward as in training, then the decision layer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainformer.bundle import adapters
from trainformer.bundle.asking import Asked, chunks
from trainformer.bundle.bounds import bounded
from trainformer.bundle.choices import scores as multiple_choice
from trainformer.bundle.facts import bundle_folder, facts_in, facts_of
from trainformer.bundle.generated import Author
from trainformer.bundle.outputs import batches_of, in_order, is_padded, outputs
from trainformer.bundle.refusing import inspect, reading
from trainformer.core.batch import Encoded, Example
from trainformer.core.config import DataSettings
from trainformer.core.errors import UserError
from trainformer.core.roles import Answer, Model, Task
from trainformer.data.tokens import HubTokens


class Bundle(Asked):
    """A trained model with its tokenizer, labels and decision layer.

    >>> from trainformer import Bundle                                    # doctest: +SKIP
    >>> Bundle.open("run/bundle").predict("a film to see twice")          # doctest: +SKIP
    [{'label': 'positive', 'score': 0.97, 'scores': {...}, 'cut_tokens': 0}]
    """

    def __init__(self, task: Task, model: Model, tokens: HubTokens, facts: dict[str, Any]):
        super().__init__(task, facts)
        self.model, self.tokens = model, tokens
        task.meet(tokens)
        self.micro_tokens: int = getattr(model.body, "micro_tokens", 8192)

    @classmethod
    def open(cls, folder: str | Path, device: str = "cpu", adapter: str | None = None) -> "Bundle":
        """Reads a folder and checks every byte of it against its manifest; `adapter` chooses one of several.

        Raises UserError for a folder that is no bundle, a changed file, a format of a later version, and what could do harm.
        """
        path = bundle_folder(folder)
        inspect(path)
        return cls.inspected(path, device, adapter)

    @classmethod
    def inspected(cls, path: Path, device: str = "cpu", adapter: str | None = None) -> "Bundle":
        """Reads a folder that `inspect` has looked at."""
        with reading(path), bounded(path):
            found = cls._read(path, adapter)
        found.model.to(torch.device(device))
        return found

    @classmethod
    def _read(cls, path: Path, adapter: str | None) -> "Bundle":
        facts = facts_in(path)
        if adapter is not None and (path / adapters.BASE).is_file():
            task, model, facts = adapters.open_adapter(path, adapter)
        else:
            if adapter is not None:
                facts_of(path, adapter)  # it must be the one that is folded in
            task, backbone, stays = adapters.open_parts(facts)
            model = backbone.open(path, task, list(stays.values()))
        return cls(task, model, HubTokens.load(str(path)), facts)

    def stream(self, examples: Iterable[Example], *, logits: bool = False) -> Iterator[Answer]:
        """Answers to examples, in order, some thousand rows at a time; of a task that writes, the texts that it writes."""
        if self.task.writes:
            if logits:
                raise UserError("a text that is written has no logits.", where="predict", fix="Leave --logits out.")
            yield from self._written(examples)
            return
        for items in self._chunks(examples):
            raw, _ = in_order(self._outputs(items), len(items))
            for item, answer, row in zip(items, self.task.answer(raw, self.decision), raw, strict=True):
                answer["cut_tokens"] = item.cut_tokens
                yield answer | {"logits": row.tolist()} if logits else answer

    def logits(self, texts: Sequence[Any]) -> Tensor:
        """Raw outputs "N C" before the decision layer, in the order of `labels`."""
        items = [e for chunk in self._chunks(self._example(i, t) for i, t in enumerate(texts)) for e in chunk]
        numbered = [Encoded(e.parts, e.target, i, cut_tokens=e.cut_tokens) for i, e in enumerate(items)]
        return in_order(self._outputs(numbered), len(numbered))[0] if numbered else torch.empty(0, self.task.outputs())

    def evaluate(self, given: Any, settings: DataSettings | None = None, choices: str | None = None) -> dict[str, float]:
        """The task's scores on labelled rows, in constant memory, through the shipped decision layer.

        `choices`, a column of lists of texts: how often a language model finds the right one likeliest after the prompt.
        """
        if choices is not None:
            return multiple_choice(self, given, choices, settings)
        metric = self.task.metric(self.decision)
        for items in self._chunks(self.examples(given, settings)):
            for output, batch in self._outputs(items):
                metric.add(output, batch)
        judged = self.author.judged(self.examples(given, settings)) if self.task.writes else {}
        return metric.value() | {name: score for name, score in judged.items() if not isinstance(score, str)}

    @cached_property
    def author(self) -> Author:
        """What writes texts: of a task that does."""
        if not self.task.writes:
            what = f"its task is {type(self.task).key}, which answers with labels or numbers."
            raise UserError(what, where="bundle", fix="Ask it with: trainformer predict.")
        return Author(self.task, self.model, self.tokens, self.limit)

    def _written(self, examples: Iterable[Example]) -> Iterator[Answer]:
        """`label`, the text; `score`, its log-likelihood in nats; `tokens`; `ended`, whether it ended by itself."""
        first = 0
        for chunk in chunks(examples):
            for text in self.author.write([e.texts[0] for e in chunk], first=first):
                yield {"label": text.text, "score": text.score, "tokens": text.tokens, "ended": text.ended,
                       "cut_tokens": text.cut_tokens}  # fmt: skip
            first += len(chunk)

    def raw(self, examples: Iterable[Example]) -> tuple[Tensor, Tensor]:
        """Raw outputs "N C" and targets "N" or "N C" of labelled examples of one unit each, in order."""
        found = [in_order(self._outputs(items), len(items)) for items in self._chunks(examples)]
        return torch.cat([output for output, _ in found]), torch.cat([target for _, target in found])

    def _chunks(self, examples: Iterable[Example]) -> Iterator[list[Encoded]]:
        """Encoded examples, some thousand at a time, numbered from 0 in each chunk."""
        for chunk in chunks(examples):
            yield encode_all(self.task, self.tokens, self.limit, chunk)

    def _outputs(self, items: list[Encoded]) -> Iterator[tuple[Tensor, Any]]:
        return outputs(self.model, self.task, batches_of(items, self.micro_tokens, is_padded(self.model)))


def encode_all(task: Task, tokens: HubTokens, limit: int, chunk: list[Example]) -> list[Encoded]:
    """Token sequences of examples; their rows are numbered from 0 in the chunk."""
    flat = tokens.pieces([text for e in chunk for text in e.texts])
    wide = len(chunk[0].texts)
    found = []
    for i, item in enumerate(chunk):
        encoded = task.encode(item, flat[i * wide : (i + 1) * wide], tokens, limit)
        found.append(replace(encoded, row=i))
    return found
