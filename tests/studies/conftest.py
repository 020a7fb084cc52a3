"""Searches over made-up trials: their process is a stand-in that gives the scores it is told to, on a clock of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy

from trainformer.studies import attempt, clock, search, ship
from trainformer.studies.asked import Asked, ask
from trainformer.studies.search import Search

READY_S, FIRST_S = 5.0, 10.0


class Killed(BaseException):
    """What a SIGKILL is to the code: it does not come back."""


class World:
    """The time, and what each trial does. `plan(values)` gives the scores of a trial's evaluations, ten seconds apart."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.plan: Callable[[dict[str, Any]], list[float]] = lambda values: [0.5, 0.5]
        self.seen: list[tuple[int, dict[str, Any]]] = []
        self.kill_at: tuple[int, int] | None = None
        self.die: Callable[[int, dict[str, Any]], dict[str, Any] | None] = lambda number, values: None
        self.forecast = FIRST_S
        self.shipped: list[int] = []
        self.lines: list[str] = []


class FakeChild:
    """A trial's process that only talks."""

    world: World

    def __init__(self, folder: Path, values: dict[str, Any]):
        self.number, self.values = int(folder.name), values
        self.stopping = self.halted = False
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        self.world.seen.append((self.number, values))
        self.process = SimpleNamespace(wait=lambda: 1)
        self.talk = self._talk()

    def __enter__(self) -> "FakeChild":
        return self

    def __exit__(self, *_: object) -> None:
        self.talk.close()

    def _talk(self) -> Iterator[dict[str, Any] | None]:
        world = self.world
        world.now += READY_S
        scores = world.plan(self.values)
        yield {"kind": "ready", "first_score_seconds": world.forecast, "training_seconds": world.forecast * len(scores)}
        if self.halted:
            yield {"kind": "declined"}
            return
        settled = self.values | {"train": self.values["train"] | {"lr": self.values["train"]["lr"] or 1e-3, "epochs": 4.0}}
        yield {"kind": "start", "config": settled}
        if (last := world.die(self.number, self.values)) is not None:
            yield last if last else None
            return
        best = None
        for i, score in enumerate(scores, 1):
            world.now += 10
            if world.kill_at == (self.number, i):
                world.kill_at = None
                raise Killed
            if self.stopping:
                yield {"kind": "interrupted"}
                return
            best = score if best is None else max(best, score)
            yield {"kind": "score", "evaluation": i, "score": best, "epoch": float(i), "left": len(scores) - i}
            if self.halted:
                break
        yield {"kind": "end", "parameters": 10, "trained_parameters": 10, "best_step": 1}

    def next(self, seconds: float) -> dict[str, Any] | None:
        return next(self.talk, None)

    def answer(self, stop: bool) -> None:
        self.halted = stop

    def stop(self) -> None:
        self.stopping = True

    def last_words(self) -> str:
        return "ValueError: it died"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World()
    monkeypatch.setattr("os.fsync", lambda number: None)  # no test here pulls the plug
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _careless)
    FakeChild.world = made
    monkeypatch.setattr(attempt, "Child", FakeChild)
    for module in (attempt, clock):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: made.now))
    monkeypatch.setattr(ship, "_ship", lambda found, best: made.shipped.append(best.number))
    yield made
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", _careless)


def _careless(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture
def asked(tiny_model: Path, write: Any, rows: Any) -> Callable[..., Asked]:
    """`asked(space, trials=4)`: a search over a small file."""
    data = write("rows.jsonl", rows(20))

    def make(space: dict[str, Any] | None, auto: bool = False, method: Any = None, **study: Any) -> Asked:
        values: dict[str, Any] = {"model": str(tiny_model), "study": study} | ({"search": space} if space else {})
        values |= {"method": method} if method else {}
        return ask(values, {"train": data}, {}, {}, auto)

    return make


@pytest.fixture
def run(world: World, tmp_path: Path) -> Callable[..., Any]:
    """`run(asked)`: the search in the folder `study`, or in another."""
    return lambda asked, name="study": search.search(asked, tmp_path / name, world.lines.append)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[Asked], Search]]:
    """`opened(asked)`: the search as it stands in the folder `study`."""
    made: list[Search] = []

    def make(asked: Asked, name: str = "study") -> Search:
        made.append(Search(asked, tmp_path / name, print))
        return made[-1]

    yield make
    for each in made:
        each.ledger.close()
