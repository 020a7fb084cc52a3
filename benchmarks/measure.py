"""What the benchmarks share: the machine's peak, the load of others, runs of child processes, results, tables.

A number of a benchmark is only worth something beside what the machine could do at that moment and what else it had to
do. So the GEMM peak is measured right before each run, and the processor time that others took is measured during it.
"""

import ctypes
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DOCS = ROOT / "docs" / "benchmarks.md"
PR_SET_CHILD_SUBREAPER = 36
"""A word of Linux's prctl(2): orphans of our children become our children, so that their time can be told."""
SHAPES = ((512, 768, 768), (512, 768, 3072), (2048, 768, 768), (2048, 768, 3072), (2048, 3072, 768), (4096, 4096, 1024))
"""Rows, inner and outer width of the products tried for the peak: those of BERT-base, and one larger."""
MOST_LOAD = 0.10
"""A run is thrown away if others took more than this share of the machine."""


@dataclass(frozen=True)
class Shape:
    """What a BERT is made of; `parameters` are those of its layers, embeddings and pooler left out."""

    width: int
    layers: int
    heads: int
    inner: int

    @property
    def parameters(self) -> int:
        """Four square products and two with the inner width, their biases, and two norms, in each layer."""
        h, i = self.width, self.inner
        return self.layers * (4 * (h * h + h) + 2 * h * i + i + h + 4 * h)

    def __str__(self) -> str:
        return f"{self.width}x{self.layers}x{self.heads}x{self.inner}"


BERT_BASE = Shape(768, 12, 12, 3072)
MINILM = Shape(384, 6, 12, 1536)


def useful_flops(lengths: Iterable[int], shape: Shape) -> float:
    """FLOPs of training on real tokens once: 6N + 12LhT a token, each text with its own length T, padding not counted."""
    return float(sum(t * (6 * shape.parameters + 12 * shape.layers * shape.width * t) for t in lengths))


def gemm_peak(numbers: str, threads: int) -> float:
    """FLOPs a second of the best of SHAPES, in "bfloat16" or "float32"; about a second of work."""
    import torch

    torch.set_num_threads(threads)
    best = 0.0
    for m, k, n in SHAPES:
        a, b = (torch.randn(size, dtype=getattr(torch, numbers)) for size in ((m, k), (n, k)))
        for _ in range(8):
            start = time.perf_counter()
            a @ b.t()
            best = max(best, 2 * m * k * n / (time.perf_counter() - start))
    return best


def copy_bandwidth(threads: int) -> float:
    """Bytes a second, read and written together, of copying an array that no cache holds."""
    import torch

    torch.set_num_threads(threads)
    source, target = (torch.ones(2**26) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def busy_seconds(stat: str, tick: float) -> tuple[float, int]:
    """Seconds that all processors worked or were taken away, and how many there are, from the text of /proc/stat.

    >>> busy_seconds("cpu  100 20 30 4000 50 6 7 8 0 0\\ncpu0 50 10 15 2000 25 3 4 4 0 0\\ncpu1 50 10 15 0 0 0 0 0 0 0\\n", 100)
    (1.71, 2)
    """
    lines = [line.split() for line in stat.splitlines() if line.startswith("cpu")]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, lines[0][1:9])
    return (user + nice + system + irq + softirq + steal) / tick, len(lines) - 1


def share_of_others(busy: float, own: float, wall: float, processors: int) -> float:
    """Share of the machine, 0..1, that others had while `own` of `busy` processor seconds were ours."""
    return max(0.0, busy - own) / (wall * processors)


class Load:
    """`with Load() as load: ...`: `load.share` is the share of the machine that other processes had inside.

    The time of this process is not theirs; neither is that of children, once `add` was told of it.
    """

    def __enter__(self) -> "Load":
        self.share, self._own = 0.0, -_own_seconds()
        self._busy, self._wall = _busy()[0], time.perf_counter()
        return self

    def add(self, seconds: float) -> None:
        self._own += seconds

    def __exit__(self, *_: object) -> None:
        busy, processors = _busy()
        self._own += _own_seconds()
        self.wall = time.perf_counter() - self._wall
        self.share = share_of_others(busy - self._busy, self._own, self.wall, processors)


def _busy() -> tuple[float, int]:
    path = Path("/proc/stat")
    if not path.is_file():
        raise SystemExit("The load of other processes is read from /proc/stat, which only Linux has.")
    return busy_seconds(path.read_text(), os.sysconf("SC_CLK_TCK"))


def _own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Child:
    """A process that ended well."""

    output: str
    began: float
    """Seconds since 1970."""
    wall: float
    peak_mib: float
    others: float
    """Share of the machine that other processes had meanwhile, 0..1."""


def run_child(words: list[str], threads: int, **extra: str) -> Child:
    """Runs a command in a folder of its own; `extra` are variables. Ends the benchmark if the command fails."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    path = f"{ROOT}:{os.environ['PYTHONPATH']}" if "PYTHONPATH" in os.environ else str(ROOT)
    env = os.environ | dict(HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(threads), PYTHONPATH=path) | extra
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/out", "w+") as out, open(f"{folder}/err", "w+") as err:
        env.setdefault("HF_DATASETS_CACHE", f"{folder}/datasets")
        with Load() as load:
            began = time.time()
            child = subprocess.Popen(words, env=env, cwd=folder, stdout=out, stderr=err)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            wall = time.time() - began
            load.add(used.ru_utime + used.ru_stime + _orphans())
        out.seek(0)
        err.seek(0)
        if child.returncode:
            raise SystemExit(f"{' '.join(words)}\n{err.read()[-3000:]}")
        return Child(out.read(), began, wall, used.ru_maxrss / 1024, load.share)


def _orphans() -> float:
    """Processor seconds of what the child left behind (workers of a compiler), waited for until it is gone."""
    seconds, until = 0.0, time.monotonic() + 10
    while time.monotonic() < until:
        try:
            pid, _, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid:
            seconds += used.ru_utime + used.ru_stime
        else:
            time.sleep(0.05)
    return seconds


def trainformer(*words: object) -> list[str]:
    """The command line, by this interpreter."""
    return [sys.executable, "-m", "trainformer", *map(str, words)]


def facts(threads: int) -> dict[str, str | int]:
    """What must be the same for numbers to stand in one table: code, processor, threads, torch."""
    from importlib.metadata import version

    code = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*.py")):
        code.update(path.read_bytes())
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = [line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")]
    processor = names[0] if names else platform.processor()
    return dict(
        code=code.hexdigest()[:12], processor=processor, cores=os.cpu_count() or 0, threads=threads, torch=version("torch")
    )


def described(found: dict[str, str | int], thrown: int | None = None) -> str:
    """The line under a table: the machine, and how many runs were thrown away, where the load of others matters."""
    machine = f"{found['processor']}, {found['cores']} cores, {found['threads']} threads, torch {found['torch']}"
    told = f"{machine}, code {found['code']}."
    if thrown is None:
        return told
    return f"{told} Runs thrown away because others took more than {MOST_LOAD:.0%} of the machine, and repeated: {thrown}."


Key = tuple[str | int, ...]


class Results:
    """Lines of (key, facts, result) on disk, so that an interrupted benchmark goes on; disturbed runs stand there too."""

    def __init__(self, path: Path, threads: int, most_load: float = MOST_LOAD):
        self.path, self.facts, self.most_load = path, facts(threads), most_load
        self.done: dict[str, dict] = {}
        self.thrown = 0
        records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.measured: dict[str, str | int] = records[0]["facts"] if records else self.facts
        for record in records:
            if record["facts"] != self.measured:
                raise SystemExit(f"{path} mixes code or machines: move it away and measure again.")
            self._take(record)

    def _take(self, record: dict) -> None:
        if record["result"]["others"] > self.most_load:
            self.thrown += 1
        else:
            self.done[json.dumps(record["key"])] = record["result"]

    def _begin_anew(self) -> None:
        """Numbers of other code or of another machine are kept beside, under the name of that code; none of them counts here."""
        aside = self.path.with_name(f"{self.path.stem}.{self.measured['code']}.jsonl")
        self.path.rename(aside)
        print(f"{self.path.name} was measured with other code or on another machine: it is {aside.name} now", flush=True)
        self.measured, self.done, self.thrown = self.facts, {}, 0

    def get(self, *key: str | int) -> dict | None:
        return self.done.get(json.dumps(key))

    def missing(self, keys: Iterable[Key]) -> list[Key]:
        """Those that are to be run: all of them where the lines are of other code or of another machine."""
        if self.measured != self.facts:
            self._begin_anew()
        return [key for key in keys if self.get(*key) is None]

    def fill(self, key: Key, run: Callable[[], dict], tries: int = 5) -> None:
        """Runs what is missing until it was not disturbed, at most `tries` times; run() gives "others" among its numbers."""
        for _ in range(tries):
            if not self.missing([key]):
                return
            print("running", *key, flush=True)
            record = dict(key=key, facts=self.facts, result=run())
            with self.path.open("a") as f:
                f.write(json.dumps(record) + "\n")
            self._take(record)
            print("   ", record["result"], flush=True)
        if self.get(*key) is None:
            print(f"    disturbed {tries} times, left out", flush=True)


def spread(values: list[float], form: str = ",.0f", factor: float = 1.0) -> str:
    """The median and, of several, the range.

    >>> spread([3.0, 1.0, 2.0]), spread([0.5], ".1f", 100), spread([])
    ('**2** (1 to 3)', '**50.0**', 'not run')
    """
    if not values:
        return "not run"
    low, middle, high = (format(factor * x, form) for x in (min(values), statistics.median(values), max(values)))
    return f"**{middle}** ({low} to {high})" if len(values) > 1 else f"**{middle}**"


def rows_of_table(head: str, lines: Iterable[Iterable[object]]) -> str:
    """Markdown from a head "a | b" and cells."""
    body = ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
    return "\n".join([f"| {head} |", "|" + "---|" * len(head.split(" | ")), *body])


def around(mark: str, docs: Path = DOCS) -> tuple[str, str]:
    """What stands before `<!-- mark -->` and after `<!-- /mark -->`. Raises SystemExit where they are missing."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    page = docs.read_text(encoding="utf-8")
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"{docs} has no {begin} ... {end}")
    return page.split(begin)[0], page.split(end)[1]


def put_table(mark: str, text: str, docs: Path = DOCS) -> None:
    """Replaces what stands between `<!-- mark -->` and `<!-- /mark -->`."""
    before, after = around(mark, docs)
    docs.write_text(f"{before}<!-- {mark} -->\n{text}\n<!-- /{mark} -->{after}", encoding="utf-8")
