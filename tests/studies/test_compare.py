"""Two runs on the same rows: every number of the comparison against a count by hand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from sklearn.metrics import accuracy_score

Cli = Callable[..., Any]


@pytest.fixture
def other(trained: Path, tiny_model: Path, tmp_path: Path, cli: Cli) -> Path:
    """A run that learnt from few rows and wrong labels."""
    rows = [json.loads(line) for line in (trained.parent / "reviews.jsonl").read_text().splitlines()][:40]
    for row in rows[::3]:
        row["label"] = "good" if row["label"] == "bad" else "bad"
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    words = ("--set", "train.epochs=1", "--set", "train.precision=float32", "--out", tmp_path / "other")
    done = cli("train", "--data", tmp_path / "few.jsonl", "--model", tiny_model, *words)
    assert done.code == 0, done.err
    return tmp_path / "other"


def test_the_numbers_are_those_of_a_count_by_hand(
    trained: Path, other: Path, write: Any, rows: Any, cli: Cli, tmp_path: Path
) -> None:
    data = write("test.jsonl", rows(150, seed=5))
    done = cli("compare", trained, other, "--data", data, "--json", tmp_path / "c.json")
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "c.json").read_text())
    truth = [row["label"] for row in rows(150, seed=5)]
    said = [[a["label"] for a in cli("predict", run / "bundle", "--data", data).answers] for run in (trained, other)]
    scores = [accuracy_score(truth, labels) for labels in said]
    assert [r["scores"]["accuracy"] for r in result["runs"]] == pytest.approx(scores)
    hits = [[s == t for s, t in zip(labels, truth, strict=True)] for labels in said]
    only_first = sum(a and not b for a, b in zip(*hits, strict=True))
    only_other = sum(b and not a for a, b in zip(*hits, strict=True))
    (pair,) = result["pairs"]
    assert (pair["only_first_right"], pair["only_run_right"]) == (only_first, only_other)
    assert only_first > 5, "the other run is worse, or this test says nothing"
    assert pair["p_mcnemar"] == pytest.approx(stats.binomtest(only_other, only_first + only_other, 0.5).pvalue)
    assert pair["difference"] == pytest.approx(scores[1] - scores[0])
    assert pair["interval"][0] <= pair["difference"] <= pair["interval"][1]
    assert result["rows"] == 150
    assert result["runs"][0]["bytes"] == sum(p.stat().st_size for p in (trained / "bundle").rglob("*") if p.is_file())
    told = json.loads((trained / "scores.json").read_text())
    assert result["runs"][0]["seconds"] == told["seconds"]
    assert result["runs"][0]["trained_parameters"] == result["runs"][0]["parameters"] == told["parameters"]
    assert all(r["rows_per_s"] > 0 for r in result["runs"])
    assert f"{100 * scores[0]:.1f} %" in done.out and str(other) in done.out and "McNemar p" in done.out


def test_three_runs_are_corrected_by_holm(trained: Path, other: Path, write: Any, rows: Any, cli: Cli, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    data = write("test.jsonl", rows(60, seed=6))
    done = cli("compare", trained, copy, other, "--data", data, "--json", tmp_path / "c.json")
    assert done.code == 0, done.err
    same, worse = json.loads((tmp_path / "c.json").read_text())["pairs"]
    assert (same["difference"], same["p_bootstrap"], same["p_mcnemar"]) == (0.0, 1.0, 1.0)
    assert worse["p_mcnemar_holm"] == pytest.approx(min(1.0, 2 * worse["p_mcnemar"]))
    assert worse["p_bootstrap_holm"] == pytest.approx(min(1.0, 2 * worse["p_bootstrap"]))
    assert "2 comparisons (Holm)" in done.out


def test_numbers_have_no_mcnemar(tiny_model: Path, write: Any, rows: Any, cli: Cli, tmp_path: Path) -> None:
    some = [{"text": r["text"], "stars": i % 5 + (r["label"] == "good")} for i, r in enumerate(rows(60))]
    data = write("stars.jsonl", some)
    words = ("--task", "regression", "--label", "stars", "--model", tiny_model, "--set", "train.precision=float32")
    for name, epochs in (("a", "1"), ("b", "2")):
        done = cli("train", "--data", data, *words, "--set", f"train.epochs={epochs}", "--out", tmp_path / name)
        assert done.code == 0, done.err
    done = cli("compare", tmp_path / "a", tmp_path / "b" / "bundle", "--data", data, "--json", tmp_path / "c.json")
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "c.json").read_text())
    assert result["key"] == "r2" and result["pairs"][0]["p_mcnemar"] is None
    assert 0 < result["pairs"][0]["p_bootstrap"] <= 1
    assert result["runs"][1]["seconds"] is not None, "a bundle in its run's folder knows its cost"
