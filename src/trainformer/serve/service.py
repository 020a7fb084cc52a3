"""From texts to answers: counts tokens, queues, waits, tells the watch; knows nothing of HTTP."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from trainformer.serve import explain
from trainformer.serve.auth import Key, Keys
from trainformer.serve.metrics import Metrics
from trainformer.serve.models import Make, Models, Served
from trainformer.serve.process import Process
from trainformer.serve.queue import Item, ticket
from trainformer.serve.reader import Read
from trainformer.serve.refusals import Refusal
from trainformer.serve.schemas import Asked
from trainformer.serve.settings import ServeSettings
from trainformer.serve.store import Store
from trainformer.serve.versions import Version
from trainformer.serve.watch import Watch

CALLER: ContextVar[Key | None] = ContextVar("caller", default=None)
"""The key of the request that is being answered."""


@dataclass
class Noted:
    """What the log tells of a request beside its line of HTTP."""

    id: str = ""
    model: str = ""
    texts: int = 0
    tokens: int = 0
    shown: list[tuple[str, ...]] = field(default_factory=list)


NOTED: ContextVar[Noted | None] = ContextVar("noted", default=None)


class Service:
    """The models with all that stands around them."""

    def __init__(self, settings: ServeSettings, state: Path, keys: Keys, make: Make | None = None, store: Store | None = None):
        self.settings, self.keys, self.metrics = settings, keys, Metrics()
        self.store = store or Store.sqlite(state / "serve.sqlite", settings.keep_predictions)
        self.watch = Watch(settings, self.store)
        self.models = Models(state, settings, make or self._process, self._seen)
        self.leaving = False
        self.began = time.time()
        self._pulse: asyncio.Task[None] | None = None

    def _process(self, folder: Path, nice: int) -> Process:
        return Process(folder, self.settings.threads, self.settings.start_seconds, nice)

    @property
    def ready(self) -> bool:
        """Whether new requests should come here."""
        return self.models.ready and not self.leaving

    async def start(self) -> None:
        """Raises Lost if a model cannot be opened."""
        for served in self.models.served.values():
            self.metrics.follow(served)
            self.watch.follow(served.name, served.current)
        await self.models.start()
        self._pulse = asyncio.create_task(self.watch.run(self.metrics))

    async def stop(self) -> None:
        """Answers what was accepted, writes what was counted, ends the processes."""
        self.leaving = True
        await self.models.stop()
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)
        await asyncio.to_thread(self.store.close)

    def refuse_if_full(self) -> None:
        """Raises Refusal (429) where no model has room for a token: it is known before a body is read, which costs more."""
        queues = [served.current.lane.queue for served in self.models.served.values()]
        if queues and not any(queue.room(1) for queue in queues):
            raise queues[0].overloaded

    async def predict(self, asked: Asked) -> dict[str, Any]:
        """Model, version, id and predictions, in the order of the texts. Raises Refusal."""
        texts = asked.tuples
        if len(texts) > self.settings.texts:
            message = f"{len(texts)} texts, and at most {self.settings.texts} are taken; send the rest apart, or a stream."
            raise Refusal(413, "too_many_texts", message)
        served, seconds = self.models.find(asked.model), self.settings.deadline_seconds
        if asked.deadline_ms is not None:
            seconds = min(seconds, asked.deadline_ms / 1000)
        deadline = asyncio.get_running_loop().time() + seconds
        words = [explain.words(each) for each in texts] if asked.explain else []
        count = sum(map(len, words))  # before a text is copied once for each of its words
        if count > self.settings.texts:
            message = f"The texts have {count} words, and at most {self.settings.texts} are explained; send fewer at a time."
            raise Refusal(413, "too_many_texts", message)
        less = [explain.without(each, word) for each, found in zip(texts, words, strict=bool(words)) for word in found]
        version, reads, answers, others = await self._answers(served, texts, less, asked.truncate, deadline)
        id_ = secrets.token_hex(8)
        self._note(id_, served.name, texts, reads)
        predictions = [
            said(f"{id_}-{i}", answer, read, asked.top_k) for i, (answer, read) in enumerate(zip(answers, reads, strict=True))
        ]
        rest = iter(others)
        for found, answer, prediction in zip(words, answers, predictions, strict=False):  # no words where none are asked for
            prediction["explanation"] = explain.explanation(found, answer, list(islice(rest, len(found))))
        self.watch.answered(served.name, version.id, reads, predictions)
        if served.shadow is not None:
            self.models.aside(self._compare(served, served.shadow, texts, answers))
        return {"model": served.name, "version": version.id, "id": id_, "predictions": predictions}

    async def reload(self, name: str) -> dict[str, Any]:
        """The folder as it is now. Raises Refusal."""
        return self._follow(await self.models.reload(name))

    async def rollback(self, name: str) -> dict[str, Any]:
        """The version before. Raises Refusal."""
        return self._follow(await self.models.rollback(name))

    def _follow(self, told: dict[str, Any]) -> dict[str, Any]:
        if told["changed"]:
            self.watch.follow(told["name"], self.models.find(told["name"]).current)
        return told

    async def scores(self) -> dict[str, dict[str, float]]:
        """The running score of each model's present version."""
        versions = [(name, served.current.id) for name, served in self.models.served.items()]
        found = await asyncio.gather(*(asyncio.to_thread(self.store.score, n, v) for n, v in versions))
        return dict(zip((n for n, _ in versions), found, strict=True))

    async def _answers(
        self, served: Served, texts: list[tuple[str, ...]], less: list[tuple[str, ...]], truncate: bool, deadline: float
    ) -> tuple[Version, list[Read], list[dict[str, Any]], list[dict[str, Any]]]:
        """The answers of the present version, and those to texts with `less` in them; of the next if this one ends in between."""
        while True:
            version = served.current
            reads = await version.read(texts, truncate)
            every = [*reads, *(await version.read(less, truncate=True))]
            try:
                answers = await version.lane.ask(ticket([*texts, *less], [r.tokens for r in every], deadline))
                return version, reads, answers[: len(texts)], answers[len(texts) :]
            except Refusal as refusal:
                if refusal.code != "stopping" or served.current is version:
                    raise

    async def _compare(
        self, served: Served, shadow: Version, texts: list[tuple[str, ...]], answers: list[dict[str, Any]]
    ) -> None:
        """Asks the shadow the same; what it has no room for is counted, and nobody waits."""
        try:
            reads = await shadow.read(texts, truncate=True)
            deadline = asyncio.get_running_loop().time() + self.settings.deadline_seconds
            others = await shadow.lane.ask(ticket(texts, [r.tokens for r in reads], deadline))
        except Refusal:
            served.compared.dropped += len(texts)
            return
        for answer, other in zip(answers, others, strict=True):
            served.compared.add(answer, other)

    def _note(self, id_: str, model: str, texts: Sequence[tuple[str, ...]], reads: Sequence[Read]) -> None:
        tokens = sum(read.tokens for read in reads)
        self.metrics.answered(model, len(texts), tokens)
        noted = NOTED.get()
        if noted is not None:
            noted.id, noted.model, noted.texts, noted.tokens = id_, model, noted.texts + len(texts), noted.tokens + tokens
            noted.shown = list(texts) if self.settings.log_texts else []

    def _seen(self, model: str, version: str, items: list[Item], reply: dict[str, Any], seconds: float) -> None:
        self.metrics.batch(model, sum(item.tokens for item in items), len(items), seconds)
        self.watch.embedded(model, version, reply.get("embeddings", []))


def said(id_: str, answer: dict[str, Any], read: Read, top_k: int | None) -> dict[str, Any]:
    """A prediction as clients read it."""
    scores = answer["scores"]
    if top_k is not None:
        scores = dict(sorted(scores.items(), key=lambda pair: -pair[1])[:top_k])
    return {"id": id_, **answer, "scores": scores, "tokens": read.own - read.cut, "cut_tokens": read.cut}
