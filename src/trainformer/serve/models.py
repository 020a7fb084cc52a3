"""The models of a service by name: which version answers, the one before it, and the shadow beside it."""

import asyncio
import shutil
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainformer.core.errors import UserError, nearest
from trainformer.serve.copies import adopt
from trainformer.serve.lane import Lane
from trainformer.serve.process import NICE, Lost, Worker
from trainformer.serve.queue import Item
from trainformer.serve.refusals import Refusal
from trainformer.serve.settings import ServeSettings
from trainformer.serve.versions import Version, opened

Make = Callable[[Path, int], Worker]
"""(folder, niceness) -> a worker that is not started."""
Seen = Callable[[str, str, list[Item], dict[str, Any], float], None]
"""(model, version, items, reply, seconds) of each batch that was answered."""


@dataclass
class Compared:
    """How the shadow's answers stand to those that were returned."""

    answers: int = 0
    equal: int = 0
    difference: float = 0.0
    dropped: int = 0

    def add(self, answer: dict[str, Any], other: dict[str, Any]) -> None:
        self.answers += 1
        self.equal += answer["label"] == other["label"]
        names = set(answer["scores"]) & set(other["scores"])
        gaps = [abs(answer["scores"][n] - other["scores"][n]) for n in names]
        self.difference += max(gaps, default=0.0)

    @property
    def told(self) -> dict[str, Any]:
        """Counts, the share of equal labels, and the mean of the largest difference of scores."""
        of = max(self.answers, 1)
        shares = {"agreement": self.equal / of, "mean_difference": self.difference / of} if self.answers else {}
        return {"answers": self.answers, "dropped": self.dropped, **shares}


@dataclass
class Served:
    """One name."""

    name: str
    source: Path
    current: Version
    since: float
    previous: tuple[str, Path] | None = None
    shadow: Version | None = None
    compared: Compared = field(default_factory=Compared)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def told(self) -> dict[str, Any]:
        """What /v1/models says."""
        reader = self.current.reader
        return {
            "name": self.name,
            "version": self.current.id,
            "previous": self.previous[0] if self.previous else None,
            "task": type(reader.task).key,
            "pair": reader.task.pair,
            "labels": reader.labels,
            "max_tokens": reader.limit,
            "created": reader.facts.get("created"),
            "scores": reader.facts.get("scores", {}),
            "since": self.since,
            "ready": self.current.lane.ready,
            "restarts": self.current.lane.restarts,
            "shadow": None if self.shadow is None else {"version": self.shadow.id, **self.compared.told},
        }


class Models:
    """All names; the first is the one that answers when a request names none."""

    def __init__(self, state: Path, settings: ServeSettings, make: Make, seen: Seen):
        self.state, self.settings, self.make, self.seen = state, settings, make, seen
        self.served: dict[str, Served] = {}
        self._aside: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        """One reload at a time: what one that fails takes away may be the copy that another starts from."""

    def add(self, name: str, source: Path, shadow: Path | None = None) -> None:
        """Reads a bundle; its process starts with `start`. Raises UserError for what is no bundle."""
        version = self._open(name, *adopt(source, self.state))
        beside = None if shadow is None else self._open(name, *adopt(shadow, self.state), nice=NICE)
        if beside is not None and beside.reader.task.pair != version.reader.task.pair:
            raise UserError("one reads pairs, the other single texts.", where=f"--shadow {shadow}")
        self.served[name] = Served(name, source, version, time.time(), shadow=beside)

    def _open(self, name: str, id_: str, folder: Path, nice: int = 0) -> Version:
        seen = (lambda items, reply, seconds: self.seen(name, id_, items, reply, seconds)) if not nice else None
        return opened(id_, folder, Lane(self.make(folder, nice), self.settings, seen))

    @property
    def versions(self) -> list[Version]:
        return [v for s in self.served.values() for v in (s.current, s.shadow) if v is not None]

    @property
    def ready(self) -> bool:
        return bool(self.served) and all(s.current.lane.ready for s in self.served.values())

    async def start(self) -> None:
        """Raises Lost if one cannot be opened."""
        await asyncio.gather(*(version.lane.start() for version in self.versions))

    async def stop(self) -> None:
        """Answers what was accepted, then ends all processes."""
        await asyncio.gather(*(version.lane.stop(self.settings.drain_seconds) for version in self.versions))
        await asyncio.gather(*self._aside)

    def find(self, name: str | None) -> Served:
        """Raises Refusal (404) for a name that is not served, with the nearest one that is."""
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            message = f"No model of this name. {nearest(name[:100], self.served)}".strip()
            raise Refusal(404, "unknown_model", message)
        return self.served[name]

    def aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something that no request waits for."""
        task = asyncio.create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def reload(self, name: str) -> dict[str, Any]:
        """The folder as it is now, under the same name; requests on the way end on the version that they began with.

        Raises Refusal (409) if it cannot be opened: then the present version goes on.
        """
        served = self.find(name)
        async with self._alone(served), self._reloading:
            new: tuple[str, Path] | None = None
            try:
                new = await asyncio.to_thread(adopt, served.source, self.state)
                if new[0] == served.current.id:
                    return {"changed": False, **served.told}
                before = (served.current.id, served.current.folder)
                await self._swap(served, *new)
            except (UserError, Lost) as error:
                await asyncio.to_thread(self._forget, new)
                message = f"The new version cannot be opened, the present one goes on: {error}"
                raise Refusal(409, "not_loaded", message) from error
            dropped, served.previous = served.previous, before
            await asyncio.to_thread(self._forget, dropped)
        return {"changed": True, **served.told}

    async def rollback(self, name: str) -> dict[str, Any]:
        """The version before answers again; called twice, it comes back. Raises Refusal (409) if there is none."""
        served = self.find(name)
        async with self._alone(served):
            if served.previous is None:
                raise Refusal(409, "no_previous", "There is no version before this one.")
            before = (served.current.id, served.current.folder)
            try:
                await self._swap(served, *served.previous)
            except (UserError, Lost) as error:
                raise Refusal(409, "not_loaded", f"The version before cannot be opened: {error}") from error
            served.previous = before
        return {"changed": True, **served.told}

    async def _swap(self, served: Served, id_: str, folder: Path) -> None:
        version = await asyncio.to_thread(self._open, served.name, id_, folder)
        try:
            await version.lane.start()
        except Lost:
            await version.lane.stop()
            raise
        old, served.current, served.since = served.current, version, time.time()
        self.aside(old.lane.stop(self.settings.drain_seconds))

    def _forget(self, version: tuple[str, Path] | None) -> None:
        """Removes the copy of a version that nothing can come back to."""
        kept = {v.id for v in self.versions} | {s.previous[0] for s in self.served.values() if s.previous is not None}
        if version is not None and version[0] not in kept:
            shutil.rmtree(version[1], ignore_errors=True)

    def _alone(self, served: Served) -> asyncio.Lock:
        if served.changing.locked():
            raise Refusal(409, "changing", "This model is being changed already; wait for that to end.", retry_after=5)
        return served.changing
