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


# Search

SPACES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown setting": ({"train.lrr": {"log": [1e-5, 1e-3]}}, "no setting 'train.lrr'. Did you mean 'lr'?"),
    "unknown section": ({"trian.lr": {"log": [1e-5, 1e-3]}}, "no setting 'trian'. Did you mean 'train'?"),
    "low above high": (
        {"train.lr": {"log": [1e-3, 1e-5]}},
        "train.lr: the low end 0.001 is not below the high end 1e-05. SHAPE",
    ),
    "low is high": ({"train.epochs": {"int": [3, 3]}}, "train.epochs: the low end 3 is not below the high end 3. SHAPE"),
    "log of nothing": (
        {"train.lr": {"log": [0, 1e-3]}},
        "train.lr: a logarithmic range begins above 0, not at 0. Use {float: [...]} or a low end above 0.",
    ),
    "no whole numbers": (
        {"train.epochs": {"int": [1.5, 3]}},
        "train.epochs: 1.5 and 3 are not both whole numbers. Use {float: [...]}.",
    ),
    "no number": ({"train.lr": {"log": ["low", 1]}}, "train.lr: 'low' is not a number. SHAPE"),
    "three ends": ({"train.lr": {"log": [1, 2, 3]}}, "train.lr: [1, 2, 3] is not a list of two numbers. SHAPE"),
    "one choice": (
        {"train.schedule": {"choice": ["linear"]}},
        "train.schedule: one choice is no choice. Give two or more that differ.",
    ),
    "a choice twice": (
        {"train.schedule": {"choice": ["linear", "linear"]}},
        "train.schedule: a choice is given twice. Give two or more that differ.",
    ),
    "no range": ({"train.lr": 0.1}, "train.lr: 0.1 is no range and no choice. SHAPE"),
    "a kind misspelt": (
        {"train.lr": {"logg": [1, 2]}},
        "train.lr.logg: [1, 2] is no range and no choice. Did you mean 'log'? SHAPE",
    ),
    "a rank without its method": (
        {"method": {"choice": [["llrd"], ["ema"]]}, "method.lora.rank": {"int": [2, 8]}},
        "no trial has the method 'lora', so 'method.lora.rank' cannot be searched. There is: ema, llrd. Or add it to `method`.",
    ),
    "the measure itself": (
        {"data.validation_share": {"float": [0.1, 0.3]}},
        "'data.validation_share' cannot be searched: all trials must be measured on the same rows.",
    ),
    "the decision": (
        {"decision.calibrate": {"choice": [True, False]}},
        "'decision.calibrate' cannot be searched: it is fitted after training, and the trials are compared before.",
    ),
    "the rows held out": (
        {"train.seed": {"int": [0, 9]}},
        "'train.seed' also chooses the rows that are held out, and all trials must be measured on the same. "
        "Give files for validation and test.",
    ),
    "a section": (
        {"train": {"choice": ["a", "b"]}},
        "'train' is a section; settings of it can be searched. Name one: train.SETTING.",
    ),
    "an empty space": ({}, "a mapping of settings to ranges is expected. train.lr: ... SHAPE"),
}  # fmt: skip


@pytest.fixture
def searched(tiny_model: Path, write: Any, rows: Any, cli: Cli, tmp_path: Path) -> Cli:
    """`searched(space, study)`: a search over a small file, into the folder `study` of the test; its outcome."""

    def run(space: Any, study: Any, *words: Any, name: str = "s.yaml", **extra: Any) -> Any:
        values = {"data": {"train": write("rows.jsonl", rows(40))}, "model": str(tiny_model), "search": space, "study": study}
        return cli("search", write(name, json.dumps(values | extra)), "--out", tmp_path / "study", *words)

    return run


@pytest.mark.parametrize("case", SPACES)
def test_a_space_with_a_mistake(searched: Cli, refused: Any, tmp_path: Path, case: str) -> None:
    from trainformer.studies.space import SHAPE

    space, message = SPACES[case]
    refused(searched(space, {"trials": 2}), f"FOLDER/s.yaml: search: {message.replace('SHAPE', SHAPE)}")
    assert not (tmp_path / "study").exists()


def test_a_value_that_the_schema_refuses(searched: Cli, tmp_path: Path) -> None:
    outcome = searched({"train.warmup": {"float": [0, 1.5]}}, {"trials": 2})
    assert outcome.code == 2 and "train.warmup: it must be less than 1 (you gave 1.5)" in outcome.err
    assert not (tmp_path / "study").exists()


LR = {"train.lr": {"log": [1e-4, 1e-2]}}


def test_a_search_without_an_end(searched: Cli, refused: Any) -> None:
    refused(searched(LR, {}), "FOLDER/s.yaml: nothing says when the search ends. Give --minutes M, --trials N, or both.")


def test_a_setting_of_the_study_misspelt(searched: Cli, refused: Any) -> None:
    refused(searched(LR, {"trial": 3}), "FOLDER/s.yaml: study: no setting 'trial'. Did you mean 'trials'?")
    outcome = searched(LR, {"minutes": -1})
    assert outcome.code == 2 and "minutes: it must be greater than 0 (you gave -1)" in outcome.err


def test_a_budget_too_small_for_one_trial(searched: Cli, tmp_path: Path) -> None:
    """Before any training, and nothing stays behind. What a forecast finds too long: tests/studies/test_search.py."""
    outcome = searched(LR, {}, "--minutes", "0.01")
    assert outcome.code == 2
    assert "minutes 0.01: the budget is too small: it was over before the first trial was ready to train." in outcome.err
    assert not (tmp_path / "study").exists()


def test_bad_rows_are_the_users_words_and_nothing_stays(searched: Cli, write: Any, refused: Any, tmp_path: Path) -> None:
    data = write("one.jsonl", [{"text": f"good film {i}", "label": "good"} for i in range(20)])
    outcome = searched(LR, {"trials": 2}, data={"train": data})
    what = "no rows for validation: a share of 0.1 of 20 rows (1 different texts) is none. "
    refused(outcome, f"FOLDER/one.jsonl: {what}Add rows, or give the parts in files of their own (--validation, --test).")
    assert not (tmp_path / "study").exists()


def test_no_rows(tiny_model: Path, write: Any, cli: Cli, refused: Any, tmp_path: Path) -> None:
    page = write("s.yaml", json.dumps({"model": str(tiny_model), "search": LR, "study": {"trials": 1}}))
    refused(
        cli("search", page, "--out", tmp_path / "study"),
        "--data: no training rows given. trainformer search config.yaml --data FILE --out STUDY",
    )
    refused(
        cli("search", "--out", tmp_path / "study"),
        "--out FOLDER/study: nothing says what to search. trainformer search config.yaml --out STUDY",
    )


def test_a_study_that_exists(searched: Cli, refused: Any, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "mine.txt").write_text("mine")
    refused(
        searched(LR, {"trials": 1}),
        "--out FOLDER/study: it exists and is not empty; nothing is written over. Choose another name.",
    )
    refused(
        cli("search", "--out", tmp_path / "study", "--resume"),
        "--out FOLDER/study: there is no search to go on with: it has no study.yaml. Choose another name.",
    )
    assert [p.name for p in (tmp_path / "study").iterdir()] == ["mine.txt"]


def test_going_on_with_something_else(searched: Cli, refused: Any, write: Any, rows: Any, cli: Cli, tmp_path: Path) -> None:
    assert searched(LR, {"trials": 1}, train={"epochs": 1, "precision": "float32"}).code == 0
    same = {"epochs": 1, "precision": "float32"}
    again = "--out FOLDER/study: it exists and is not empty; nothing is written over. To go on with it: --resume."
    refused(searched(LR, {"trials": 2}, train=same), again)
    other = searched({"train.lr": {"log": [1e-4, 1e-1]}}, {"trials": 2}, "--resume", train=same)
    what = "the space is another than that which the search began with: train.lr differs. "
    refused(other, f"--out FOLDER/study: {what}Go on with --resume and no config, or choose another --out.")
    base = searched(LR, {"trials": 2}, "--resume", train={"epochs": 2, "precision": "float32"})
    refused(base, "--out FOLDER/study: train.epochs was 1.0 when the search began, and is 2.0 now. "
            "Go on with the same settings, or choose another --out and study.name.")  # fmt: skip
    elsewhere = cli("search", "--out", tmp_path / "study", "--resume", "--storage", "sqlite:///other.db")
    refused(elsewhere, "--out FOLDER/study: its trials are in study.db under the name 'trainformer'. "
            "Go on without --storage and study.name.")  # fmt: skip
    write("rows.jsonl", rows(50))
    changed = cli("search", "--out", tmp_path / "study", "--resume", "--trials", "2")
    refused(changed, "FOLDER/rows.jsonl: the rows of train are not those that the search began with. Begin another study.")


def test_a_storage_that_is_none(searched: Cli, tmp_path: Path) -> None:
    outcome = searched(LR, {"trials": 1, "storage": "nosuch://host/db"})
    assert outcome.code == 2 and "error: storage nosuch://host/db: it cannot be opened: " in outcome.err


def test_a_storage_that_has_another_study_of_the_name(searched: Cli, refused: Any, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    assert searched(LR, {"trials": 1, "storage": storage}, train={"epochs": 1, "precision": "float32"}).code == 0
    (tmp_path / "study").rename(tmp_path / "before")
    other = {"train.lr": {"log": [1e-4, 1e-1]}}
    outcome = searched(other, {"trials": 2, "storage": storage}, train={"epochs": 1, "precision": "float32"})
    refused(outcome, "study 'trainformer': its storage has it with another space. Use the same space, or another study.name.")


def test_two_searches_in_one_folder(tmp_path: Path) -> None:
    from trainformer.core.errors import UserError
    from trainformer.studies.child import alone

    with alone(tmp_path), pytest.raises(UserError, match="another search is at work in this folder"), alone(tmp_path):
        pass


def test_the_sections_of_a_search_are_not_for_train(
    tiny_model: Path, write: Any, rows: Any, cli: Cli, refused: Any, tmp_path: Path
) -> None:
    page = write("s.yaml", json.dumps({"data": {"train": write("rows.jsonl", rows(20))}, "search": LR}))
    outcome = cli("train", page, "--out", tmp_path / "out")
    refused(
        outcome, "FOLDER/s.yaml: the section 'search' is for `trainformer search`. trainformer search CONFIG.yaml --out STUDY"
    )
    outcome = cli("train", "--data", tmp_path / "rows.jsonl", "--auto", "1", "--strict", "--out", tmp_path / "out")
    refused(outcome, "train: --strict and --auto do not go together. Run `trainformer check --strict` first.")


def test_optuna_is_not_installed(searched: Cli, refused: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    outcome = searched(LR, {"trials": 1})
    refused(outcome, "this needs the package 'optuna'. pip install 'trainformer[search]'")
    assert not (tmp_path / "study").exists()


def test_several_processes(searched: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    outcome = searched(LR, {"trials": 1})
    assert outcome.code == 2 and not (tmp_path / "study").exists()
