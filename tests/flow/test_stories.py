"""The example of stories: a language model that reads the easy ones first, beside one that does not."""

import json
import runpy
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_easy_stories_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Harder stories are longer, no two are alike, and both orders are scored on the same unseen ones."""
    example = runpy.run_path(str(ROOT / "examples" / "stories.py"))
    rows = example["stories"](400, 1)
    assert rows == example["stories"](400, 1) and len({row["text"] for row in rows}) == 400
    lengths = defaultdict(list)
    for row in rows:
        lengths[row["level"]].append(len(row["text"].split()))
    means = [sum(lengths[level]) / len(lengths[level]) for level in (1, 2, 3, 4)]
    assert means == sorted(means) and all(len(each) == 100 for each in lengths.values())
    found = example["main"](["--out", str(tmp_path / "out"), "--stories", "240", "--epochs", "1"])
    shown = capsys.readouterr().out
    for order, folder in (("random", "random"), ("easy first", "easy-first")):
        scores = json.loads((tmp_path / "out" / folder / "scores.json").read_text())
        assert found[order] == scores["test"]["bits_per_byte"] and 0 < found[order] < 8
        assert f"{order}: {found[order]:.4f} bits a byte on test" in shown
    assert "curriculum" in (tmp_path / "out" / "easy-first" / "config.yaml").read_text()
    assert shown.count("Once there was a fox. The fox found") == 2 and found["random"] != found["easy first"]
