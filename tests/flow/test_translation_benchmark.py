"""The benchmark of translation: its table is made from its lines alone, and, slowly, each of its runs runs for a moment."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SHARED = Path(os.environ.get("TRAINFORMER_SHARED", BENCHMARKS.parents[1] / "shared"))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = runpy.run_path(str(BENCHMARKS / "translation.py"))
    yield found
    sys.modules.pop("measure", None)


def test_the_table_holds_ours_against_both(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["translation.py", "--shared", "x", "--repeats", "3"])
    a, results = bench["arguments"](), {}
    numbers = {"ours": (30.0, 5000.0, 900.0), "peer": (25.0, 2000.0, 300.0), "ours by the library": (29.0, None, 450.0)}
    for way, (bleu, training, writing) in numbers.items():
        for repeat in range(2):  # one of three is missing
            line = {"bleu": bleu + repeat, "chrf": 50.0, "writing_speed": writing, "bleu_signature": "b", "chrf_signature": "c"}
            results[bench["key"](a, way, repeat)] = line | ({"training_speed": training} if training else {})

    class Lines:
        def get(self, *key: Any) -> Any:
            return results.get(key)

    table = bench["table"](a, Lines())
    assert "| Trainformer | **30.5** (30.0 to 31.0) | **50.0** (50.0 to 50.0) | **5,000** (5,000 to 5,000) |" in table
    assert "| weights of Trainformer, `generate` of the library | **29.5** (29.0 to 30.0) | **50.0** (50.0 to 50.0) |  |" in table
    assert "Training, ours to Seq2SeqTrainer, Marian: 2.50x (aim 2)." in table
    assert "Translation, ours to Seq2SeqTrainer, Marian: 3.00x (aim 3)." in table
    assert "Translation, ours to weights of Trainformer, `generate` of the library: 2.00x (aim 3)." in table


@pytest.mark.slow
def test_each_run_runs_for_a_moment(tmp_path: Path) -> None:
    if not (SHARED / "data" / "en_de_parallel").is_dir():
        pytest.skip(f"no data in {SHARED}: set TRAINFORMER_SHARED")
    given = {"shared": SHARED, "minutes": 0.1, "pairs": 300, "test-pairs": 20, "vocabulary": 1000, "threads": 1, "beam": 2,
             "max-length": 48, "most-load": 2, "results": tmp_path / "lines.jsonl"}  # fmt: skip
    words = [sys.executable, str(BENCHMARKS / "translation.py"), *(f"--{name}={value}" for name, value in given.items())]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line)["result"] for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and all(0 <= line["bleu"] <= 100 and line["writing_speed"] > 0 for line in lines)
    assert all(line["training_speed"] > 0 and line["steps"] > 0 for line in lines[:2])
