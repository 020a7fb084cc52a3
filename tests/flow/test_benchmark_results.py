"""Lines of a benchmark: an interrupted one goes on, disturbed runs are repeated, and numbers of other code stand aside."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

MEASURE = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "measure.py"))


def results(path: Path) -> Any:
    return MEASURE["Results"](path, threads=1, most_load=0.1)


def test_what_is_there_is_not_run_again_and_what_was_disturbed_is(tmp_path: Path) -> None:
    path, runs = tmp_path / "x.jsonl", iter([{"others": 0.5, "n": 1}, {"others": 0.0, "n": 2}])
    results(path).fill(("a", 0), lambda: next(runs))
    again = results(path)
    again.fill(("a", 0), lambda: pytest.fail("it was there"))
    assert again.get("a", 0) == {"others": 0.0, "n": 2} and again.thrown == 1


def test_numbers_of_other_code_are_kept_aside_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.jsonl"
    old = {"key": ["a", 0], "facts": {"code": "0123", "threads": 1}, "result": {"others": 0.0, "n": 1}}
    path.write_text(json.dumps(old) + "\n")
    found = results(path)
    found.fill(("a", 0), lambda: {"others": 0.0, "n": 2})
    assert "x.jsonl was measured with other code or on another machine: it is x.0123.jsonl now" in capsys.readouterr().out
    assert found.get("a", 0) == {"others": 0.0, "n": 2}
    assert json.loads((tmp_path / "x.0123.jsonl").read_text()) == old
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == [["a", 0]]
