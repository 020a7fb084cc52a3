"""One version of a model at work: its queue, its process, one batch at a time. A lost process costs one request."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from trainformer.serve.process import Lost, Worker
from trainformer.serve.queue import Item, Queue, Ticket
from trainformer.serve.refusals import Refusal
from trainformer.serve.settings import ServeSettings

log = logging.getLogger("trainformer.serve")
LONGEST_PAUSE = 30.0
Seen = Callable[[list[Item], dict[str, Any], float], None]
"""(items, reply, seconds) of each batch that was answered."""


class Lane:
    """Requests go in by `ask`; the model's process is started anew when it ends or hangs."""

    def __init__(self, worker: Worker, settings: ServeSettings, seen: Seen | None = None):
        self.worker, self.settings, self.seen = worker, settings, seen
        self.queue = Queue(settings.queue_requests, settings.queue_tokens)
        self.restarts, self.batches = 0, 0
        self.stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = asyncio.Lock()

    @property
    def ready(self) -> bool:
        return self.worker.alive and not self.stopping

    async def start(self) -> None:
        """Raises Lost if the bundle cannot be opened."""
        await self.worker.start()
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._watch())]

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """Answers what was accepted, as far as the time goes; then ends the process."""
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                while self.queue.open:
                    await asyncio.sleep(0.01)
        self.stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in list(self.queue.open):
            each.fail(Refusal(503, "stopping", "The service is stopping; ask another, or again later.", retry_after=1))
        await self.worker.stop(at_once=not drain_seconds)

    async def ask(self, asked: Ticket) -> list[dict[str, Any]]:
        """The answers of a request, in order. Raises Refusal: 429, 413, 504 at its deadline, 500 where the model failed."""
        if self.stopping:
            raise Refusal(503, "stopping", "This version is stopping; ask again.", retry_after=1)
        self.queue.put(asked)
        try:
            async with asyncio.timeout_at(asked.deadline):
                await asked.done
        except TimeoutError as error:
            message = "The answer was not ready by the deadline; nothing is left running for it."
            raise Refusal(504, "deadline", message, retry_after=self.queue.wait) from error
        finally:
            self.queue.close(asked)
        return [item.answer for item in asked.items if item.answer is not None]

    async def _run(self) -> None:
        while True:
            items = await self.queue.take(self.settings.batch_tokens)
            async with self._busy:
                if not self.worker.alive:
                    await self._start_again("it had ended")
                await self._guarded([item for item in items if not item.ticket.done.done()])

    async def _guarded(self, items: list[Item]) -> None:
        """A mistake of ours costs the requests of its batch, never the lane."""
        try:
            await self._answer(items)
        except Exception as error:
            log.exception("batch broke off")
            for each in {item.ticket for item in items}:
                each.fail(Refusal(500, "internal", "The service made a mistake; it is in its log."))
            await self._start_again(f"a batch broke off: {type(error).__name__}")

    async def _watch(self) -> None:
        """Starts a process anew that ended while it had nothing to do."""
        while True:
            await self.worker.ended()
            async with self._busy:
                if not self.worker.alive:
                    await self._start_again("it ended while idle")

    async def _answer(self, items: list[Item]) -> None:
        if not items:
            return
        embed = [random.randrange(len(items))] if self.batches % self.settings.embed_every == 0 else []
        asked = {"texts": [item.texts for item in items], "embed": embed}
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.settings.hang_seconds):
                reply = await self.worker.ask(asked)
        except (TimeoutError, Lost) as error:
            why = str(error) or f"it did not answer within {self.settings.hang_seconds:g} s"
            self._lost(items, why)
            await self._start_again(why)
            return
        if "error" in reply:
            self._lost(items, reply["error"])
            return
        self._done(items, reply, time.perf_counter() - began)

    def _done(self, items: list[Item], reply: dict[str, Any], seconds: float) -> None:
        self.batches += 1
        self.queue.timed(sum(item.tokens for item in items), seconds)
        for item, answer in zip(items, reply["answers"], strict=True):
            item.answer = answer
            item.ticket.left -= 1
            if item.ticket.left == 0 and not item.ticket.done.done():
                item.ticket.done.set_result(None)
        if self.seen is not None:
            self.seen(items, reply, seconds)

    def _lost(self, items: list[Item], why: str) -> None:
        """A request that was alone in its batch is what the process cannot bear; of several each is tried alone."""
        tickets = list(dict.fromkeys(item.ticket for item in items))
        log.warning("batch lost", extra={"fields": {"requests": len(tickets), "why": why}})
        if len(tickets) > 1:
            self.queue.again(tickets)
        else:
            tickets[0].fail(Refusal(500, "model_failed", "The model failed on this request; others were not harmed."))

    async def _start_again(self, why: str) -> None:
        """Until it runs, however long; requests meanwhile wait, and are given up at their deadlines."""
        pause = 0.2
        while True:
            self.restarts += 1
            log.warning("process started anew", extra={"fields": {"why": why, "restarts": self.restarts}})
            await self.worker.stop(at_once=True)
            try:
                return await self.worker.start()
            except Lost as error:
                why = str(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
