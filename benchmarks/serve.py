"""What a service bears, on loopback, by a load generator whose requests do not wait for each other.

    python benchmarks/serve.py --bundle RUN/bundle [--seconds 20] [--part overload ...] [--write]

A part takes --seconds; with the 20 that it has of itself, the overload takes 120 s, the answers to 100,000 requests are compared
with the offline ones, and there are 50 SIGTERMs: about half an hour in all.
--write puts the table into docs/serving.md. `make soak BUNDLE=RUN/bundle` runs the part `soak` for 30 minutes.
"""

import argparse
import asyncio
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from load import Client, Got, bodies, closed_loop, open_loop, percentile, slow, statuses
from measure import described, facts, put_table, rows_of_table

DOCS = Path(__file__).resolve().parents[1] / "docs" / "serving.md"
WORDS = ["good", "fine", "lovely", "bad", "dull", "poor", "a", "the", "film", "story", "was", "and", "it", "plot", "so", "one",
         "two", "three", "very", "end"]  # fmt: skip
OVERLOAD, REQUESTS, TERMS = 6.0, 5000, 2.5
"""For each second of a part: seconds of overload, requests that are compared, and SIGTERMs."""
BEFORE_TERM_SECONDS = 2.0
Row = tuple[str, str, str]
"""What, what is promised, what was found."""


@dataclass
class Server:
    """A service in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    ready_seconds: float

    def memory(self) -> int:
        """Resident bytes of the service and its model's process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in [str(self.process.pid), *children]]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def served(bundle: Path, *sets: str) -> Iterator[Server]:
    """A service of a bundle on a free port; it is ended at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as state, (Path(state) / "log").open("wb") as log:
        words = [sys.executable, "-m", "trainformer", "serve", f"model={bundle}", "--port", str(port), "--state", state]
        words += [word for each in sets for word in ("--set", each)]
        began = time.perf_counter()
        process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            while True:
                try:
                    asyncio.run(Client(port).get("/health/ready"))
                    break
                except OSError:
                    if process.poll() is not None or time.perf_counter() - began > 120:
                        raise SystemExit((Path(state) / "log").read_text()) from None
                    time.sleep(0.02)
            yield Server(process, port, time.perf_counter() - began)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


@dataclass
class Bench:
    """The bundle, its texts, and how many seconds a part takes."""

    bundle: Path
    texts: list[str]
    seconds: float

    def offline(self) -> float:
        """Texts a second of the bundle itself."""
        from trainformer.bundle import Bundle

        bundle = Bundle.open(self.bundle)
        bundle.predict(self.texts[:64])
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < self.seconds:
            count += len(bundle.predict(self.texts))
        return count / (time.perf_counter() - began)

    def closed(self, port: int, at_once: int, each: int = 1) -> float:
        """Texts a second over HTTP."""

        async def main() -> list[Got]:
            client = Client(port)
            await closed_loop(client, bodies(self.texts, each), at_once, min(2.0, self.seconds))
            return await closed_loop(client, bodies(self.texts, each), at_once, self.seconds)

        began = time.perf_counter()
        found = asyncio.run(main())
        return each * statuses(found)[200] / (time.perf_counter() - began - min(2.0, self.seconds))

    def throughput(self) -> list[Row]:
        """The rate beside that of the bundle alone, and of batches of one; the time until ready."""
        alone = self.offline()
        with served(self.bundle) as it:
            ready, rate, grouped = it.ready_seconds, self.closed(it.port, 64), self.closed(it.port, 8, 32)
        with served(self.bundle, "batch_tokens=1") as it:
            single = self.closed(it.port, 64)
        return [
            ("ready after the start", "<= 3 s", f"{ready:.1f} s"),
            ("texts a second, a text a request, of the bundle's own rate", ">= 90 %", f"{rate:,.0f}, {rate / alone:.0%}"),
            ("the same, 32 texts a request", ">= 90 %", f"{grouped:,.0f}, {grouped / alone:.0%}"),
            ("dynamic batches against batches of one", ">= 3 x", f"{rate / single:.1f} x"),
        ]

    def overhead(self) -> list[Row]:
        """One request at a time, beside the same call in one process."""
        from trainformer.bundle import Bundle

        bundle, times = Bundle.open(self.bundle), []
        end = time.perf_counter() + self.seconds
        for text in self.texts * 100:
            began = time.perf_counter()
            bundle.predict(text)
            times.append(time.perf_counter() - began)
            if began > end:
                break
        with served(self.bundle) as it:
            found = asyncio.run(closed_loop(Client(it.port), bodies(self.texts), 1, self.seconds))
        more = percentile(found, 0.5) - sorted(times)[len(times) // 2]
        return [("what HTTP, queue and processes add to one text, median", "<= 2 ms", f"{1000 * more:.1f} ms")]

    def load70(self) -> list[Row]:
        """Latency at 70 % of what the service can do."""
        with served(self.bundle) as it:
            rate = self.closed(it.port, 64)
            before = _batches(it.port)
            found = asyncio.run(open_loop(Client(it.port), bodies(self.texts), 0.7 * rate, self.seconds))
            after = _batches(it.port)
        batch = (after[0] - before[0]) / max(1, after[1] - before[1])
        p99 = percentile(found, 0.99)
        return [("99 of 100 requests at 70 % load, in batch times", "<= 3", f"{p99 / batch:.1f} ({1000 * p99:.0f} ms)")]

    def overload(self) -> list[Row]:
        """Ten times what it can do."""
        seconds = OVERLOAD * self.seconds
        with served(self.bundle, "queue_requests=256") as it:
            client = Client(it.port)
            rate, memory = self.closed(it.port, 64), it.memory()
            found = asyncio.run(open_loop(client, bodies(self.texts), 10 * rate, seconds))
            grown = it.memory() / memory - 1
            again = asyncio.run(_recovery(it.port, next(bodies(self.texts))))
        seen = statuses(found)
        good, rest = seen[200] / seconds / rate, len(found) - seen[200] - seen[429]
        return [
            (f"ten times overload for {seconds:.0f} s: goodput of capacity", ">= 90 %", f"{good:.0%}"),
            ("the rest of it: 429, anything else", "all, 0", f"{seen[429]:,}, {rest}"),
            ("memory grown by it", "<= 10 %", f"{grown:.0%}"),
            ("back to normal after it", "<= 5 s", f"{again:.1f} s"),
        ]

    def equal(self) -> list[Row]:
        """Every request answered once, each as offline."""
        from trainformer.bundle import Bundle

        expected = [answer["label"] for answer in Bundle.open(self.bundle).predict(self.texts)]
        with served(self.bundle) as it:
            asked = islice(bodies(self.texts), int(REQUESTS * self.seconds))
            found = asyncio.run(closed_loop(Client(it.port), asked, 64, math.inf))
        good = [got for got in found if got.status == 200]
        numbers = {got.number for got in found}
        wrong = sum(json.loads(got.body)["predictions"][0]["label"] != expected[got.number % len(expected)] for got in good)
        once = len(numbers) == len(found) == len(good)
        return [
            (
                f"{len(found):,} requests: answered once each, other labels than offline",
                "all, 0",
                f"{'all' if once else 'NOT all'}, {wrong}",
            )
        ]

    def terms(self) -> list[Row]:
        """SIGTERM in the middle of the load: what was sent and taken is answered."""
        lost = answered = 0
        times = math.ceil(TERMS * self.seconds)
        for i in range(times):
            with served(self.bundle) as it:
                found = asyncio.run(self._term(it, seed=i))
                it.process.wait(60)
            lost += statuses(found)[0]
            answered += statuses(found)[200]
        return [(f"{times} SIGTERMs under load: accepted requests lost", "0", f"{lost} of {lost + answered:,}")]

    async def _term(self, it: Server, seed: int) -> list[Got]:
        loading = asyncio.create_task(open_loop(Client(it.port), bodies(self.texts), 100, 2 * BEFORE_TERM_SECONDS, seed))
        await asyncio.sleep(BEFORE_TERM_SECONDS)
        it.process.send_signal(signal.SIGTERM)
        return await loading

    def slow_clients(self, count: int = 200) -> list[Row]:
        """Clients that send a byte a second hold nobody up."""

        async def beside(port: int) -> tuple[list[Got], list[Got]]:
            quiet = await open_loop(Client(port), bodies(self.texts), 50, self.seconds)
            hanging = asyncio.create_task(slow(port, count, self.seconds))
            found = await open_loop(Client(port), bodies(self.texts), 50, self.seconds)
            await hanging
            return quiet, found

        with served(self.bundle) as it:
            quiet, found = asyncio.run(beside(it.port))
        ratio = percentile(found, 0.99) / percentile(quiet, 0.99)
        return [(f"99 of 100 requests beside {count} slow clients, against without", "<= 2 x", f"{ratio:.1f} x")]

    def soak(self) -> list[Row]:
        """Long: half load, a burst of overload each minute; nothing but 200 and 429, and no growth."""
        with served(self.bundle) as it:
            rate, seen, began = self.closed(it.port, 64), statuses([]), time.perf_counter()
            memory = it.memory()
            while time.perf_counter() - began < self.seconds:
                for share, seconds in ((0.5, 50), (3.0, 10)):
                    seconds = min(seconds, self.seconds / 2)
                    client = Client(it.port)
                    seen += statuses(asyncio.run(open_loop(client, bodies(self.texts), share * rate, seconds)))
            grown = it.memory() / memory - 1
        other = {status: n for status, n in seen.items() if status not in (200, 429)}
        return [
            (
                f"soak of {self.seconds / 60:.0f} minutes: 200, 429, anything else",
                "0 else",
                f"{seen[200]:,}, {seen[429]:,}, {other or 0}",
            ),
            ("memory grown by it", "<= 10 %", f"{grown:.0%}"),
        ]


def _batches(port: int) -> tuple[float, float]:
    """Seconds and number of batches so far."""
    text = asyncio.run(Client(port).get("/metrics")).decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    seconds, count = (float(values[f'trainformer_batch_seconds_{what}{{model="model"}}']) for what in ("sum", "count"))
    return seconds, count


async def _recovery(port: int, body: bytes) -> float:
    """Seconds until ten requests in a row are answered, each within 0.2 s."""
    client, began, good = Client(port), time.perf_counter(), 0
    while good < 10 and time.perf_counter() - began < 60:
        got = await client.post(0, body)
        good = good + 1 if got.status == 200 and got.seconds < 0.2 else 0
    await client.close()
    return time.perf_counter() - began


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "throughput": Bench.throughput, "overhead": Bench.overhead, "load70": Bench.load70, "overload": Bench.overload,
    "equal": Bench.equal, "terms": Bench.terms, "slow": Bench.slow_clients, "soak": Bench.soak,
}  # fmt: skip


def main(words: Sequence[str] | None = None) -> list[Row]:
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("--bundle", type=Path, required=True)
    asked.add_argument("--seconds", type=float, default=20.0, help="of each part")
    asked.add_argument("--part", action="append", choices=list(PARTS), help="none: all but soak")
    asked.add_argument("--write", action="store_true", help="the table into docs/serving.md")
    given = asked.parse_args(words)
    texts = [" ".join(WORDS[(i * 7 + j * j) % len(WORDS)] for j in range(1 + i * 13 % 30)) for i in range(500)]
    bench = Bench(given.bundle, texts, given.seconds)
    rows = []
    for name in given.part or [n for n in PARTS if n != "soak"]:
        for row in PARTS[name](bench):
            print(*row, sep=" | ", file=sys.stderr, flush=True)
            rows.append(row)
    table = rows_of_table("what | promised | found", rows)
    print(table)
    if given.write:
        put_table(
            "serve",
            f"Generator and service on the same machine. {described(facts(os.cpu_count() or 1))}\n\n{table}",
            DOCS,
        )
    return rows


if __name__ == "__main__":
    main()
