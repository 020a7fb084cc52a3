"""Watches what is asked and answered: windows held against the training data, the load, the running score, the alerts."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainformer.bundle.reference import MOST_EMBEDDED, Reference, words
from trainformer.core.arrays import Array
from trainformer.serve import drift
from trainformer.serve.alerts import Alerts
from trainformer.serve.metrics import Metrics
from trainformer.serve.reader import Read
from trainformer.serve.settings import ServeSettings
from trainformer.serve.store import Store
from trainformer.serve.versions import Version

log = logging.getLogger("trainformer.serve")
LOAD_SECONDS, LOAD_REQUESTS = 60.0, 20_000
Drift = dict[str, dict[str, float]]


@dataclass
class Window:
    """The last texts of a version: numbers alone, no text."""

    version: str
    reference: Reference | None
    size: int
    reads: deque[tuple[int, float]] = field(init=False)
    answers: deque[tuple[list[str], float | None, float | None]] = field(init=False)
    embeddings: deque[list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self.reads, self.answers = deque(maxlen=self.size), deque(maxlen=self.size)
        self.embeddings = deque(maxlen=min(self.size, MOST_EMBEDDED))

    def add(self, reads: Sequence[Read], predictions: Sequence[dict[str, Any]]) -> None:
        self.reads.extend((read.tokens, read.unknown / read.tokens) for read in reads)
        for p in predictions:
            number = float(p["label"]) if isinstance(p["label"], int | float) else None
            self.answers.append((words(p["label"]), p["score"], number))

    def drift(self) -> Drift:
        """Statistics by series; a series with too few values on either side is left out."""
        known = self.reference
        if known is None:
            return {}
        reads, answers = list(self.reads), list(self.answers)
        found: Drift = {}
        sides = {
            "length": (known.lengths, [float(n) for n, _ in reads]),
            "unknown": (known.unknown, [share for _, share in reads]),
            "confidence": (known.scores, [s for _, s, _ in answers if s is not None]),
            "number": (known.numbers, [n for _, _, n in answers if n is not None]),
        }
        for name, (one, values) in sides.items():
            if min(len(one), len(values)) >= drift.LEAST:
                other = np.array(values, np.float32)  # as the reference is kept
                statistic, p = drift.ks(one, other)
                found[name] = {"psi": drift.psi(one, other), "ks": statistic, "p": p, "window": len(values)}
        said = [label for labels, _, _ in answers for label in labels]
        if min(len(said), sum(known.labels.values())) >= drift.LEAST:
            names = sorted({*known.labels, *said})
            counts = ([known.labels.get(n, 0) for n in names], [said.count(n) for n in names])
            found["label"] = {"psi": drift.psi_of_counts(*counts), "window": len(said)}
        if min(len(known.embeddings), len(self.embeddings)) >= drift.LEAST:
            squared, p = drift.mmd(known.embeddings, np.array(self.embeddings))
            found["embedding"] = {"mmd": squared, "p": p, "window": len(self.embeddings)}
        return found

    def charts(self) -> dict[str, Any]:
        """Shares of training and of the window, for drawing: lengths and confidence in bins, labels by name."""
        known = self.reference
        if known is None or not self.answers:
            return {}
        top = max(float(known.lengths.max()), *(n for n, _ in self.reads), 1.0)
        scores = [s for _, s, _ in self.answers if s is not None]
        said = [label for labels, _, _ in self.answers for label in labels]
        names = sorted(known.labels, key=lambda n: -known.labels[n])[:12]
        drawn = {"length": _bins(known.lengths, [float(n) for n, _ in self.reads], top)}
        drawn |= {"confidence": _bins(known.scores, scores, 1.0)} if scores and len(known.scores) else {}
        if names and said:
            all_ = max(sum(known.labels.values()), 1)
            shares = [[known.labels[n] / all_ for n in names], [said.count(n) / len(said) for n in names]]
            drawn["label"] = {"names": names, "training": shares[0], "window": shares[1]}
        return drawn


def _bins(reference: Array, window: list[float], top: float) -> dict[str, list[Any]]:
    counts = [np.histogram(each, drift.BINS, (0, top))[0] for each in (reference, window)]
    edges = [f"{top * i / drift.BINS:g}" for i in range(drift.BINS)]
    return {"names": edges, "training": (counts[0] / counts[0].sum()).tolist(), "window": (counts[1] / counts[1].sum()).tolist()}


class Watch:
    """One for a service."""

    def __init__(self, settings: ServeSettings, store: Store):
        self.settings, self.store, self.alerts = settings, store, Alerts([])
        self.windows: dict[str, Window] = {}
        self.requests: deque[tuple[float, int, float]] = deque(maxlen=LOAD_REQUESTS)
        self.drifts: dict[str, Drift] = {}
        self.scores: dict[str, dict[str, float]] = {}

    def follow(self, model: str, version: Version) -> None:
        """A version begins with an empty window."""
        self.windows[model] = Window(version.id, version.reference, self.settings.window)
        self.drifts.pop(model, None)
        self.scores.pop(model, None)

    def answered(self, model: str, version: str, reads: Sequence[Read], predictions: Sequence[dict[str, Any]]) -> None:
        self.store.add(model, version, predictions)
        window = self.windows.get(model)
        if window is not None and window.version == version:
            window.add(reads, predictions)

    def embedded(self, model: str, version: str, embeddings: Sequence[list[float]]) -> None:
        window = self.windows.get(model)
        if window is not None and window.version == version:
            window.embeddings.extend(embeddings)

    def request(self, status: int, seconds: float) -> None:
        self.requests.append((time.monotonic(), status, seconds))

    def load(self) -> dict[str, float]:
        """The last minute: requests a second, shares of 429 and of 5xx, latency in ms at p50 and p99."""
        now = time.monotonic()
        last = [(status, seconds) for at, status, seconds in self.requests if now - at <= LOAD_SECONDS]
        if not last:
            return {"requests_per_second": 0.0}
        times = sorted(seconds for _, seconds in last)
        return {
            "requests_per_second": len(last) / LOAD_SECONDS,
            "refused_share": sum(status == 429 for status, _ in last) / len(last),
            "failed_share": sum(status >= 500 for status, _ in last) / len(last),
            "p50_ms": 1000 * times[len(times) // 2],
            "p99_ms": 1000 * times[min(len(times) - 1, int(0.99 * len(times)))],
        }

    def values(self) -> dict[str, float]:
        """Every series by its name, as alert rules call it: `p99_ms`, `reviews.length.psi`, `reviews.score.right`."""
        found = dict(self.load())
        for model, by_series in self.drifts.items():
            found |= {f"{model}.{series}.{k}": v for series, numbers in by_series.items() for k, v in numbers.items()}
        for model, score in self.scores.items():
            found |= {f"{model}.score.{k}": v for k, v in score.items()}
        return found

    def look(self) -> None:
        """Writes, computes, and asks the rules: in a thread of its own."""
        self.store.flush()
        for model, window in list(self.windows.items()):
            self.drifts[model] = window.drift()
            self.scores[model] = self.store.score(model, window.version)
        for name, message, value in self.alerts.look(self.values()):
            self.store.alert(name, message, value)

    async def run(self, metrics: Metrics) -> None:
        """A look every some seconds; one that fails is logged, and the next one is taken."""
        while True:
            await asyncio.sleep(self.settings.watch_seconds)
            try:
                await asyncio.to_thread(self.look)
            except Exception:  # of a data base or a mail server; the service answers without its watch
                log.exception("the watch broke off")
            for name, value in self.values().items():
                model, dot, series = name.partition(".")
                metrics.watched.labels(model if dot else "", series if dot else name).set(value)
