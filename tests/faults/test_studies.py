"""Bad input to the verbs over runs: exit code 2 and one message, before any training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[Any, str], None]:
    """The outcome is exit code 2 with this message at its end. FOLDER in it stands for the folder of the test."""

    def check(outcome: Any, message: str) -> None:
        assert outcome.err.splitlines()[-1:] == [f"error: {message.replace('FOLDER', str(tmp_path))}"]
        assert outcome.code == 2
        assert "Traceback" not in outcome.err

    return check


# Comparison


@pytest.fixture
def two(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run whose bundle can be changed: nothing vouches for its numbers, only for its bytes."""
    return Path(shutil.copytree(trained, tmp_path / "two"))


def change(run: Path, **facts: Any) -> None:
    """Other facts in a bundle, with a manifest that fits."""
    from trainformer.core.files import write_manifest

    path = run / "bundle" / "trainformer.json"
    told = json.loads(path.read_text())
    told["task"] |= facts
    path.write_text(json.dumps(told))
    (run / "bundle" / "manifest.json").unlink()
    write_manifest(run / "bundle")


def test_one_run_is_no_comparison(trained: Path, cli: Cli, refused: Any) -> None:
    outcome = cli("compare", trained, "--data", trained.parent / "reviews.jsonl")
    refused(outcome, "compare: two runs or more are compared. trainformer compare RUN RUN --data FILE")


def test_a_run_against_itself(trained: Path, cli: Cli, refused: Any) -> None:
    refused(cli("compare", trained, trained, "--data", "rows.jsonl"), f"{trained}: this run is named twice.")


def test_runs_of_other_labels(trained: Path, two: Path, cli: Cli, refused: Any) -> None:
    change(two, labels=["awful", "good"])
    outcome = cli("compare", trained, two, "--data", trained.parent / "reviews.jsonl")
    what = f"FOLDER/two: its labels are not those of {trained}: only FOLDER/two has 'awful'. "
    refused(outcome, what + "Compare runs that were trained on the same labels.")


def test_runs_of_other_tasks(trained: Path, two: Path, cli: Cli, refused: Any) -> None:
    change(two, name="multi_label")
    outcome = cli("compare", trained, two, "--data", trained.parent / "reviews.jsonl")
    what = f"FOLDER/two: its task is multi_label (f1_micro); that of {trained} is text_classification (accuracy). "
    refused(outcome, what + "Compare runs of one task.")


def test_no_run_and_no_rows(trained: Path, two: Path, cli: Cli, refused: Any, tmp_path: Path) -> None:
    refused(cli("compare", trained, tmp_path / "none", "--data", "rows.jsonl"), "FOLDER/none: no such folder.")
    outcome = cli("compare", trained, two, "--data", tmp_path / "none.jsonl")
    refused(outcome, "FOLDER/none.jsonl: no such file. There is: two.")


def test_nothing_is_written_over(trained: Path, two: Path, cli: Cli, refused: Any, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("mine")
    outcome = cli("compare", trained, two, "--data", trained.parent / "reviews.jsonl", "--json", tmp_path / "c.json")
    refused(outcome, "--json FOLDER/c.json: it exists; nothing is written over. Choose another name.")
    assert (tmp_path / "c.json").read_text() == "mine"
