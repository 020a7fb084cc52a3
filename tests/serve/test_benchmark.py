"""The benchmark of a service runs, each part for a moment; its numbers are made of what was counted."""

import math
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parent / "src"))
    found = runpy.run_path(str(BENCHMARKS / "serve.py"))
    yield found
    for name in ("load", "measure"):
        sys.modules.pop(name, None)


def test_a_percentile_counts_what_was_answered(bench: Any) -> None:
    got = bench["Got"]
    found = [got(i, 200, float(i), 0.0) for i in range(1, 101)] + [got(0, 429, 1000.0, 0.0)]
    assert bench["percentile"](found, 0.5) == 51 and bench["percentile"](found, 0.99) == 100
    assert math.isnan(bench["percentile"]([], 0.5)) and bench["statuses"](found) == {200: 100, 429: 1}


@pytest.mark.slow
@pytest.mark.parametrize("part", ["throughput", "overhead", "load70", "overload", "equal", "terms", "slow", "soak"])
def test_each_part_runs(part: str, bench: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For a second: rows of three words, and no request lost where none may be."""
    seconds = "2" if part in ("terms", "overload") else "1"
    rows = bench["main"](["--bundle", str(bundle), "--part", part, "--seconds", seconds])
    assert rows and all(len(row) == 3 and all(isinstance(word, str) and word for word in row) for row in rows)
    assert "nan" not in capsys.readouterr().out
    found = {what: value for what, _, value in rows}
    if part == "equal":
        assert next(iter(found.values())) == "all, 0"
    if part == "terms":
        assert next(iter(found.values())).startswith("0 of ")
    if part == "soak":
        assert next(iter(found.values())).endswith(", 0")
