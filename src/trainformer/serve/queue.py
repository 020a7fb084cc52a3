"""The bounded queue of one model: requests and tokens are counted, the oldest go first, what has expired is passed over."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trainformer.serve.refusals import Refusal

START_RATE = 20_000.0
"""Tokens a second that are assumed before the first batch is timed."""
MOST_ITEMS = 1024
"""Most texts of a batch: a bundle sorts so many by length at once."""


@dataclass(slots=True, eq=False)
class Item:
    """One text, or pair, of a request, and its number of tokens."""

    texts: tuple[str, ...]
    tokens: int
    ticket: "Ticket"
    answer: dict[str, Any] | None = None
    waiting: bool = True


@dataclass(slots=True, eq=False)
class Ticket:
    """One request: it is done when all its items are answered. `alone`: its batch was lost, so it gets one of its own."""

    deadline: float
    done: asyncio.Future[None]
    items: list[Item] = field(default_factory=list)
    left: int = 0
    alone: bool = False

    @property
    def tokens(self) -> int:
        return sum(item.tokens for item in self.items)

    def fail(self, error: Exception) -> None:
        """Gives up on all that is left of it."""
        if not self.done.done():
            self.done.set_exception(error)


def ticket(texts: Sequence[tuple[str, ...]], tokens: Sequence[int], deadline: float) -> Ticket:
    """A request of texts with their numbers of tokens; `deadline` on the clock of the event loop."""
    made = Ticket(deadline, asyncio.get_running_loop().create_future(), left=len(texts))
    made.items = [Item(t, n, made) for t, n in zip(texts, tokens, strict=True)]
    return made


class Queue:
    """`put` refuses with 429 what there is no room for, or what cannot be answered in time; `take` gives the next batch."""

    def __init__(self, most_requests: int, most_tokens: int):
        self.most_requests, self.most_tokens = most_requests, most_tokens
        self.items: deque[Item] = deque()
        self.suspects: deque[Ticket] = deque()
        self.open: set[Ticket] = set()
        self.tokens = 0
        self.rate = START_RATE
        self._filled = asyncio.Event()
        self._freed = asyncio.Event()

    @property
    def wait(self) -> float:
        """Seconds until what waits now is answered, by the rate of the last batches."""
        return self.tokens / self.rate

    @property
    def overloaded(self) -> Refusal:
        """What those get for whom there is no room."""
        message = f"The queue is full: {len(self.open)} requests, {self.tokens} tokens wait. Try again later."
        return Refusal(429, "overloaded", message, retry_after=self.wait)

    def room(self, tokens: int) -> bool:
        """Whether a request of so many tokens would be taken now."""
        return len(self.open) < self.most_requests and self.tokens + tokens <= self.most_tokens

    def put(self, new: Ticket) -> None:
        """Raises Refusal: 413 for a request that will never fit, 429 with Retry-After for one that does not fit now."""
        tokens = new.tokens
        if tokens > self.most_tokens:
            message = f"The texts have {tokens} tokens together, and at most {self.most_tokens} fit; send fewer, or a stream."
            raise Refusal(413, "too_many_tokens", message, tokens=tokens)
        late = self.wait > max(0.0, new.deadline - asyncio.get_running_loop().time())  # what is over already gets 504
        if late or not self.room(tokens):
            raise self.overloaded
        self.open.add(new)
        self.items.extend(new.items)
        self.tokens += tokens
        self._filled.set()

    async def freed(self) -> None:
        """Waits until something has been taken or given up."""
        self._freed.clear()
        await self._freed.wait()

    def close(self, old: Ticket) -> None:
        """Takes a request that is answered, or given up, out of the count; what of it waits is passed over later."""
        self.open.discard(old)
        for item in old.items:
            self._leave(item)
        self._freed.set()

    def again(self, tickets: Sequence[Ticket]) -> None:
        """Requests whose batch was lost come first, each in a batch of its own."""
        for each in tickets:
            each.alone = True
        self.suspects.extend(each for each in tickets if each in self.open)
        self._filled.set()

    async def take(self, tokens: int) -> list[Item]:
        """The next batch, longest first: as many as `tokens` allow in the order of arrival, and at least one."""
        while True:
            batch = self._suspect() or self._batch(tokens)
            if batch:
                return sorted(batch, key=lambda item: -item.tokens)
            self._filled.clear()
            await self._filled.wait()

    def _suspect(self) -> list[Item]:
        while self.suspects:
            first = self.suspects.popleft()
            if first in self.open:
                for item in first.items:
                    self._leave(item)
                return [item for item in first.items if item.answer is None]
        return []

    def _batch(self, tokens: int) -> list[Item]:
        batch: list[Item] = []
        used = 0
        while self.items and len(batch) < MOST_ITEMS:
            item = self.items[0]
            if item.waiting and batch and used + item.tokens > tokens:
                break
            self.items.popleft()
            if item.waiting:
                batch.append(item)
                used += item.tokens
                self._leave(item)
        if batch:
            self._freed.set()
        return batch

    def _leave(self, item: Item) -> None:
        if item.waiting:
            item.waiting = False
            self.tokens -= item.tokens

    def timed(self, tokens: int, seconds: float) -> None:
        """Learns from a batch how fast the model is."""
        self.rate += 0.2 * (tokens / max(seconds, 1e-4) - self.rate)
