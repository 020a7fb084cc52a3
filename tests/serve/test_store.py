"""What a service remembers: nothing is lost when the data base cannot be written, or when many write at once."""

import sqlite3
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from trainformer.serve.store import Store, same


def test_the_store_forgets_the_oldest(tmp_path: Path) -> None:
    store = Store.sqlite(tmp_path / "s.sqlite", 5)
    for i in range(12):
        store.add("m", "v", [{"id": str(i), "label": "a", "score": 0.5}])
        store.flush()
    assert store.learn([(str(i), "a") for i in range(12)]) == [str(i) for i in range(7)]
    assert store.score("m", "v") == {"truths": 5, "right": 1.0}
    store.close()


def answers_of(ids: Iterable[int]) -> list[dict[str, Any]]:
    return [{"id": str(i), "label": "a", "score": 0.5} for i in ids]


def known_of(store: Store, count: int) -> list[int]:
    """Which of the answers 0, 1, ... the data base knows."""
    unknown = set(store.learn([(str(i), "a") for i in range(count)]))
    return [i for i in range(count) if str(i) not in unknown]


def test_what_cannot_be_written_waits(tmp_path: Path) -> None:
    """While the data base is locked by another the rows stay, in order, and no more than `keep` of them, the newest."""
    store = Store.sqlite(tmp_path / "s.sqlite", 5)
    store.connection.execute("PRAGMA busy_timeout=1")
    with closing(sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for start in (0, 4):
            store.add("m", "v", answers_of(range(start, start + 4)))
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                store.flush()
        other.execute("ROLLBACK")
    assert known_of(store, 8) == [3, 4, 5, 6, 7]
    store.close()


def test_answers_of_many_threads_are_all_written(tmp_path: Path) -> None:
    """Adding while others write: each answer is in the data base, once (its id is the key, so twice would fail)."""
    store = Store.sqlite(tmp_path / "s.sqlite", 10_000)

    def work(first: int) -> None:
        for i in range(first, first + 250):
            store.add("m", "v", answers_of([i]))
            if i % 5 == 0:
                store.flush()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(0, 1000, 250)))
    store.flush()
    assert known_of(store, 1000) == list(range(1000))
    store.close()


def test_an_answer_that_is_added_while_rows_are_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the taking of the rows and the end of their writing: it waits for the next flush, also if that write fails."""
    store = Store.sqlite(tmp_path / "s.sqlite", 100)
    write = store._do

    def failing(words: str, values: Any = (), many: bool = False) -> Any:
        if many:
            adding = threading.Thread(target=store.add, args=("m", "v", answers_of([1])))
            adding.start()
            adding.join()
            raise sqlite3.OperationalError("disk I/O error")
        return write(words, values, many)

    store.add("m", "v", answers_of([0]))
    with monkeypatch.context() as patched:
        patched.setattr(store, "_do", failing)
        with pytest.raises(sqlite3.OperationalError, match="disk"):
            store.flush()
    assert [row[0] for row in store._new] == ["0", "1"]
    assert known_of(store, 2) == [0, 1]
    store.close()


def test_a_write_whose_success_was_not_heard_of_is_done_again(tmp_path: Path) -> None:
    store = Store.sqlite(tmp_path / "s.sqlite", 100)

    class Deaf:
        """The first commit is done, and then the connection says that it was not."""

        real, heard = store.connection, False

        def commit(self) -> None:
            self.real.commit()
            if not self.heard:
                self.heard = True
                raise sqlite3.OperationalError("the connection was lost")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    store.connection = Deaf()
    store.add("m", "v", answers_of([0, 1]))
    with pytest.raises(sqlite3.OperationalError, match="lost"):
        store.flush()
    store.add("m", "v", answers_of([2]))
    store.flush()
    assert store._new == [] and known_of(store, 3) == [0, 1, 2]
    store.close()


def test_scores_of_numbers_and_of_label_sets(tmp_path: Path) -> None:
    store = Store.sqlite(tmp_path / "s.sqlite", 100)
    store.add("n", "v", [{"id": "a", "label": 2.0, "score": None}, {"id": "b", "label": 5.0, "score": None}])
    store.learn([("a", 3.0), ("b", 4.5)])
    assert store.score("n", "v") == {"truths": 2, "mean_absolute_error": 0.75}
    store.close()
    assert same(["a", "b"], ["b", "a"]) and not same(["a"], ["a", "b"]) and same("1", 1) and not same(None, "a") and same([], [])
