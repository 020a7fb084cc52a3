"""What a service remembers: answers without their texts, true labels, alerts. SQLite, or PostgreSQL by URL."""

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainformer.core.errors import MissingExtra, UserError
from trainformer.data.labels import label_text

TABLES = (
    "CREATE TABLE IF NOT EXISTS predictions"
    " (id TEXT PRIMARY KEY, at DOUBLE PRECISION, model TEXT, version TEXT, label TEXT, score DOUBLE PRECISION)",
    "CREATE INDEX IF NOT EXISTS predictions_at ON predictions (at)",
    "CREATE TABLE IF NOT EXISTS feedback (id TEXT PRIMARY KEY, at DOUBLE PRECISION, label TEXT)",
    "CREATE TABLE IF NOT EXISTS alerts (at DOUBLE PRECISION, name TEXT, message TEXT, value DOUBLE PRECISION)",
)
PREDICTED = (
    "INSERT INTO predictions (id, at, model, version, label, score) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (id) DO NOTHING"  # a write whose success was not heard of is done again
)
TRUE = (
    "INSERT INTO feedback (id, at, label) VALUES (?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET at = excluded.at, label = excluded.label"
)
OLD = "DELETE FROM predictions WHERE at < (SELECT at FROM predictions ORDER BY at DESC LIMIT 1 OFFSET ?)"
LAST = (
    "SELECT p.label, f.label FROM feedback f JOIN predictions p ON p.id = f.id"
    " WHERE p.model = ? AND p.version = ? ORDER BY f.at DESC LIMIT ?"
)
LAST_TRUTHS = 1000


class Store:
    """Tables behind a lock: each method may be called in any thread. What `add` takes is written by the next `flush`."""

    def __init__(self, connection: Any, mark: str, keep: int):
        self.connection, self.mark, self.keep = connection, mark, keep
        self._lock = threading.RLock()
        self._adding = threading.Lock()  # of its own: who answers requests does not wait for the disk
        self._new: list[tuple[Any, ...]] = []
        for table in TABLES:
            self._do(table)

    @classmethod
    def sqlite(cls, file: Path, keep: int) -> "Store":
        """A file, made where there is none."""
        file.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(file, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return cls(connection, "?", keep)

    @classmethod
    def postgresql(cls, url: str, keep: int) -> "Store":
        """A data base by URL. Raises UserError if it cannot be reached."""
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtra("psycopg", "postgresql") from error
        try:
            return cls(psycopg.connect(url), "%s", keep)
        except psycopg.Error as error:
            first = (str(error).strip().splitlines() or [""])[0]  # never the URL: it may hold a password
            raise UserError(f"the data base cannot be used: {first}", where="--store") from error

    def _do(self, words: str, values: Sequence[Any] = (), many: bool = False) -> list[tuple[Any, ...]]:
        with self._lock:
            cursor = self.connection.cursor()
            try:
                words = words.replace("?", self.mark)
                cursor.executemany(words, values) if many else cursor.execute(words, values)
                found = list(cursor.fetchall()) if cursor.description else []
                self.connection.commit()
                return found
            except Exception:  # whatever it was goes on; the connection must not stay in the middle of it
                self.connection.rollback()
                raise
            finally:
                cursor.close()

    def add(self, model: str, version: str, predictions: Sequence[dict[str, Any]]) -> None:
        """Remembers answers until the next `flush`."""
        now = time.time()
        rows = [(p["id"], now, model, version, json.dumps(p["label"]), p["score"]) for p in predictions]
        with self._adding:
            self._new += rows

    def flush(self) -> None:
        """Writes what `add` took, and forgets the oldest beyond `keep`. What cannot be written waits for the next time."""
        with self._lock:
            with self._adding:
                new, self._new = self._new, []
            if not new:
                return
            try:
                self._do(PREDICTED, new, many=True)
            except Exception:  # whatever it was goes on, and what could not be written waits
                with self._adding:
                    self._new = [*new, *self._new][-self.keep :]
                raise
            self._do(OLD, (self.keep - 1,))

    def learn(self, truths: Sequence[tuple[str, Any]]) -> list[str]:
        """Takes true labels by id; those ids that are not known are given back."""
        self.flush()
        ids = [id_ for id_, _ in truths]
        places = ", ".join("?" * len(ids))
        known = {row[0] for row in self._do(f"SELECT id FROM predictions WHERE id IN ({places})", ids)}
        now = time.time()
        rows = [(id_, now, json.dumps(label)) for id_, label in truths if id_ in known]
        if rows:
            self._do(TRUE, rows, many=True)
        return [id_ for id_ in ids if id_ not in known]

    def score(self, model: str, version: str) -> dict[str, float]:
        """The running score of a version over its last true labels: the share that was right, or the mean absolute error."""
        pairs = [(json.loads(said), json.loads(true)) for said, true in self._do(LAST, (model, version, LAST_TRUTHS))]
        if not pairs:
            return {"truths": 0}
        if all(isinstance(said, int | float) for said, _ in pairs):
            errors = [abs(said - float(true)) for said, true in pairs]
            return {"truths": len(pairs), "mean_absolute_error": sum(errors) / len(errors)}
        return {"truths": len(pairs), "right": sum(same(said, true) for said, true in pairs) / len(pairs)}

    def alert(self, name: str, message: str, value: float) -> None:
        """Keeps an alert."""
        self._do("INSERT INTO alerts (at, name, message, value) VALUES (?, ?, ?, ?)", (time.time(), name, message, value))

    def alerts(self, most: int = 50) -> list[dict[str, Any]]:
        """The last alerts, the newest first."""
        rows = self._do("SELECT at, name, message, value FROM alerts ORDER BY at DESC LIMIT ?", (most,))
        return [dict(zip(("at", "name", "message", "value"), row, strict=True)) for row in rows]

    def close(self) -> None:
        """Writes what is left."""
        self.flush()
        with self._lock:
            self.connection.close()


def same(said: Any, true: Any) -> bool:
    """Whether an answer was right: equal labels, or equal sets of labels."""
    if isinstance(said, list):
        return set(said) == set(true if isinstance(true, list) else [label_text(true)])
    return bool(said == (true if isinstance(true, list) else label_text(true)))
