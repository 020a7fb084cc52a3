"""What the benchmarks of prediction share: their command line, and programs that are asked the same texts in turn."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cases import Files
from measure import HERE, MOST_LOAD, Results, around, described, put_table

T = TypeVar("T")


class Side(Protocol):
    """Programs that are open; `run` asks each of them once and gives the numbers of a repeat."""

    def run(self, repeat: int) -> dict: ...


def parser(doc: str | None, name: str, cases: Iterable[str]) -> argparse.ArgumentParser:
    """The words of a benchmark whose lines lie in NAME.jsonl."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shared", type=Path, required=True)
    p.add_argument("--case", action="append", choices=list(cases))
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--scale", type=float, default=1.0, help="times the rows of each case")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--most-load", type=float, default=MOST_LOAD, help="share of others at which a repeat is thrown away")
    p.add_argument("--table", action="store_true", help="write the table from the runs that there are")
    p.add_argument("--results", type=Path, default=HERE / f"{name}.jsonl")
    p.add_argument("--docs", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    return p


def asked(ways: Mapping[str, Callable[[], T]], order: Iterable[str]) -> tuple[dict[str, float], dict[str, T]]:
    """Seconds and answers of each program, one after the other."""
    seconds, said = {}, {}
    for way in order:
        start = time.perf_counter()
        said[way] = ways[way]()
        seconds[way] = time.perf_counter() - start
    return seconds, said


def measured(
    a: argparse.Namespace, name: str, sizes: Mapping[str, int], opened: Callable[[Files, str], Side],
    table: Callable[[Results], str],
) -> None:  # fmt: skip
    """Runs what is missing of each case, whose rows `sizes` tells, then prints the table and puts it into the page."""
    a.shared = a.shared.resolve()
    around(name, a.docs)  # better no table now than after hours
    results = Results(a.results, a.threads, a.most_load)
    with tempfile.TemporaryDirectory() as folder:
        files = Files(a.shared, Path(folder))
        for case, rows in sizes.items() if not a.table else ():
            missing = results.missing([(case, rows, repeat) for repeat in range(a.repeats)])
            side: Any = opened(files, case) if missing else None
            for key in missing:
                results.fill(key, lambda s=side, r=key[2]: s.run(r))
    text = f"{table(results)}\n\n{described(results.measured, results.thrown)}"
    print(text)
    put_table(name, text, a.docs)
