"""Bad input ends with exit code 2 and one message that says where, what and how to mend it; nothing is written over."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

Cli = Callable[..., Any]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def train(cli: Cli, tiny_model: Path, tmp_path: Path) -> Cli:
    """`train(data, "--task", "regression")`: into the folder `out` of the test."""
    return lambda data, *words: cli("train", "--data", data, "--model", tiny_model, "--out", tmp_path / "out", *words)


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[Any, str], None]:
    """The outcome is exit code 2 with this one message at the end, and the test's folder `out` was not made.

    FOLDER in the message stands for the folder of the test.
    """

    def check(outcome: Any, message: str) -> None:
        lines = outcome.err.splitlines()
        assert lines[-1:] == [f"error: {message.replace('FOLDER', str(tmp_path))}"]
        assert (outcome.code, outcome.out) == (2, "")
        assert "Traceback" not in outcome.err
        assert sum(line.startswith("error:") for line in lines) == 1
        assert not (tmp_path / "out").exists()

    return check


# Files

GOOD_LINE = '{"text": "good film", "label": "good"}\n'
FILES: dict[str, tuple[str, Any, str]] = {
    "empty": ("rows.jsonl", "", "FOLDER/rows.jsonl: the file is empty."),
    "header only": (
        "rows.csv",
        "text,label\n",
        "FOLDER/rows.csv: it has no rows, only the header (text, label). Add rows with texts.",
    ),
    "not UTF-8": (
        "rows.csv",
        "text,label\ntrès élégant,good\n".encode("latin-1"),
        "FOLDER/rows.csv line 2: byte 3 (0xe8) is not UTF-8; the file is probably WINDOWS-1252. "
        "Convert it: iconv -f WINDOWS-1252 -t UTF-8 FOLDER/rows.csv > rows-utf8.csv",
    ),
    "UTF-16": (
        "rows.csv",
        "text,label\nfine,good\n".encode("utf-16"),
        "FOLDER/rows.csv line 1: the file is UTF-16 (by its first bytes), not UTF-8. "
        "Convert it: iconv -f UTF-16 -t UTF-8 FOLDER/rows.csv > rows-utf8.csv",
    ),
    "NUL bytes": (
        "rows.tsv",
        b"text\tlabel\ngood film\tgood\nbad\0film\tbad\n",
        "FOLDER/rows.tsv line 3: byte 4 is NUL, which is no text. "
        "Look at the line; to take them out: tr -d '\\000' < FOLDER/rows.tsv > rows-utf8.tsv",
    ),
    "broken JSON": (
        "rows.jsonl",
        GOOD_LINE * 6 + '{"text": "bad film", "label": }\n',
        "FOLDER/rows.jsonl line 7: broken JSON at column 31: Expecting value.",
    ),
    "JSON array": (
        "rows.jsonl",
        f"[{GOOD_LINE}]",
        'FOLDER/rows.jsonl: it is one JSON array; one object a line is expected. Convert it: python -c "import json,sys; '
        "[print(json.dumps(r)) for r in json.load(open(sys.argv[1], encoding='utf-8-sig'))]\" FOLDER/rows.jsonl "
        "> rows-rows.jsonl",
    ),
    "no object": (
        "rows.jsonl",
        GOOD_LINE + '"good film"\n',
        'FOLDER/rows.jsonl line 2: a JSON object is expected, and this is a string: "good film" '
        'Write each row as {"text": "...", "label": "..."}.',
    ),
    "ragged CSV": (
        "rows.csv",
        "text,label\ngood film,good\nbad, very bad film,bad\n",
        "FOLDER/rows.csv line 3: 3 fields, where the header names 2 (text, label). "
        'Put "quotes" around a text that holds a comma, and double the quotes inside.',
    ),
    "open quote": (
        "rows.csv",
        'text,label\ngood film,good\n"bad film,bad\n',
        "FOLDER/rows.csv line 3: a quote is opened here and never closed. Close it, or double the quotes inside a text.",
    ),
    "wrong delimiter": (
        "rows.csv",
        "text;label\ngood film;good\n",
        "FOLDER/rows.csv line 1: the header has no comma, but ';'. Save it with commas as .csv or with tabs as .tsv.",
    ),
    "10 MB row": (
        "rows.jsonl",
        GOOD_LINE + json.dumps({"text": "x" * 10 * 2**20, "label": "bad"}) + "\n",
        "FOLDER/rows.jsonl line 2: this row has 10.0 MB; the most is 8 MB. "
        "Look for a quote that is never closed, or cut the text.",
    ),
    "no Parquet": (
        "rows.parquet",
        b"PAR1 and then nothing of the kind",
        "FOLDER/rows.parquet: it is no whole Parquet file: Parquet magic bytes not found in footer. "
        "Either the file is corrupted or this is not a parquet file. Write it again.",
    ),
    "a sheet": ("rows.xlsx", b"PK", "FOLDER/rows.xlsx: files that end in '.xlsx' cannot be read. Save the sheet as CSV UTF-8."),
    "an unknown ending": (
        "rows.jsn",
        GOOD_LINE,
        "FOLDER/rows.jsn: files that end in '.jsn' cannot be read. Did you mean '.json'?",
    ),
    "a column twice": (
        "rows.csv",
        "text,text\ngood film,good\n",
        "FOLDER/rows.csv line 1: the column 'text' stands twice. Rename one of them.",
    ),
}


@pytest.mark.parametrize(("name", "content", "message"), FILES.values(), ids=FILES)
def test_a_file_that_cannot_be_read(train: Cli, write: Any, refused: Any, name: str, content: Any, message: str) -> None:
    refused(train(write(name, content)), message)


def test_a_missing_file_names_the_nearest(train: Cli, write: Any, refused: Any, tmp_path: Path) -> None:
    write("reviews.jsonl", GOOD_LINE)
    refused(train(tmp_path / "review.jsonl"), "FOLDER/review.jsonl: no such file. Did you mean 'reviews.jsonl'?")


def test_a_folder_is_no_file(train: Cli, write: Any, refused: Any, tmp_path: Path) -> None:
    write("reviews.jsonl", GOOD_LINE)
    refused(train(tmp_path), "FOLDER: it is a folder; a file is expected. Name one of its files: reviews.jsonl.")


def test_a_hub_name_without_a_hub_fails_at_once(
    train: Cli, refused: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(
        train("imdb_reviews_of_old"),
        "imdb_reviews_of_old: there is no such file, and no connection to the hub to ask for a data set of that name.",
    )


# Rows

ROWS: dict[str, tuple[list[Any], list[str], str]] = {
    "text is null": (
        [{"text": "good film", "label": "good"}, {"text": None, "label": "bad"}],
        [],
        "FOLDER/rows.jsonl line 2: the text 'text' is null, not a string. Give it a text or remove the row.",
    ),
    "text is a number": (
        [{"text": "good film", "label": "good"}, {"text": 7, "label": "bad"}],
        [],
        "FOLDER/rows.jsonl line 2: the text 'text' is int (7), not a string. Write it as a string, \"in quotes\".",
    ),
    "several bad rows": (
        [{"text": None, "label": "good"}, {"text": "bad film", "label": "bad"}, {"text": None, "label": "bad"}],
        [],
        "FOLDER/rows.jsonl line 1: the text 'text' is null, not a string. (2 rows of FOLDER/rows.jsonl cannot be used.) "
        "Give it a text or remove the row.",
    ),
    "label is null": (
        [{"text": "good film", "label": "good"}, {"text": "bad film", "label": None}],
        [],
        "FOLDER/rows.jsonl line 2: the label 'label' is null. Give the row a label or remove it.",
    ),
    "label is a list": (
        [{"text": "good film", "label": ["good"]}],
        [],
        "FOLDER/rows.jsonl line 1: the label is a list (['good']), not a word or a number. "
        "Rows with several labels: --task multi_label.",
    ),
    "labels are no list": (
        [{"text": "good film", "label": "good;new"}],
        ["--task", "multi_label"],
        "FOLDER/rows.jsonl line 1: the labels are 'good;new', not a list. Give a list, [] for none. "
        "For several labels in one string: --set task.separator=';'.",
    ),
    "target is NaN": (
        [{"text": "good film", "label": 1.5}, {"text": "bad film", "label": float("nan")}],
        ["--task", "regression"],
        "FOLDER/rows.jsonl line 2: the target is nan: it must be finite. Mend the number or remove the row.",
    ),
    "target is infinite": (
        [{"text": "good film", "label": 1.5}, {"text": "bad film", "label": float("-inf")}],
        ["--task", "regression"],
        "FOLDER/rows.jsonl line 2: the target is -inf: it must be finite. Mend the number or remove the row.",
    ),
    "target is a word": (
        [{"text": "good film", "label": "good"}],
        ["--task", "regression"],
        "FOLDER/rows.jsonl line 1: the target 'good' is not a number. Labels that are words: --task text_classification.",
    ),
    "a missing key": (
        [{"text": "good film", "label": "good"}, {"text": "bad film", "lable": "bad"}],
        [],
        "FOLDER/rows.jsonl line 2: this row has no 'label'. Did you mean 'lable'?",
    ),
    "half of a character": (
        [{"text": "good \ud83d", "label": "good"}],
        [],
        "FOLDER/rows.jsonl line 1: 'text' holds half of a character (\\ud83d) at place 6. "
        "The text was cut inside an emoji or the like: take the half out.",
    ),
    "a missing column": (
        [{"text": "good film", "label": "good"}],
        ["--text", "txt"],
        "FOLDER/rows.jsonl: no column 'txt' (--text). Did you mean 'text'?",
    ),
    "a missing label column": (
        [{"text": "good film", "label": "good"}],
        ["--label", "lable"],
        "FOLDER/rows.jsonl: no column 'lable' (--label). Did you mean 'label'?",
    ),
    "no weight": (
        [{"text": "good film", "label": "good", "w": -1}],
        ["--set", "data.weight=w"],
        "FOLDER/rows.jsonl line 1: the weight 'w' is -1. It must be a number, 0 or more.",
    ),
    "one text for a pair": (
        [{"text": "good film", "label": "good"}],
        ["--task", "text_pair"],
        "FOLDER/rows.jsonl: it is not clear which column is the texts. Say it with --text and --text-b. There is: text, label.",
    ),
    "two texts for one": (
        [{"text": "good film", "other": "bad film", "label": "good"}],
        ["--task", "text_classification", "--text-b", "other"],
        "--text-b: the task reads one text. Use --task text_pair, or leave --text-b out.",
    ),
}


@pytest.mark.parametrize(("rows", "words", "message"), ROWS.values(), ids=ROWS)
def test_a_row_that_cannot_be_used(train: Cli, write: Any, refused: Any, rows: list[Any], words: list[str], message: str) -> None:
    refused(train(write("rows.jsonl", rows), *words), message)


def test_labels_that_teach_nothing(train: Cli, write: Any, refused: Any, rows: Any) -> None:
    one = [row | {"label": "good"} for row in rows(40)]
    refused(
        train(write("one.jsonl", one)),
        "all 32 training rows have the label 'good': there is nothing to tell apart. "
        "Name another column with --label, or add rows.",
    )
    refused(
        train(write("single.jsonl", [*rows(40), {"text": "so so", "label": "neutral"}])),
        "'neutral' has only one training row: nothing can be learnt from one. Add rows, merge or remove the label.",
    )
    refused(
        train(write("same.jsonl", [row | {"label": 3} for row in rows(40)]), "--task", "regression"),
        "all 32 training targets are 3.0: there is nothing to learn.",
    )


def test_a_label_that_training_never_saw(train: Cli, write: Any, refused: Any, rows: Any) -> None:
    data, other = write("rows.jsonl", rows(40)), write("other.jsonl", [*rows(6, seed=1), {"text": "so", "label": "god"}])
    for flag in ("--validation", "--test"):
        message = "FOLDER/other.jsonl line 7: the label 'god' was not seen in training. Did you mean 'good'?"
        refused(train(data, flag, other), message)


# Settings

SETTINGS: dict[str, tuple[list[str], str]] = {
    "unknown": (["train.epoch=2"], "settings: no setting 'train.epoch'. Did you mean 'epochs'?"),
    "unknown section": (["trian.epochs=2"], "settings: no setting 'trian'. Did you mean 'train'?"),
    "unknown in a task": (["task.long_txt=window"], "settings: no setting 'task.long_txt'. Did you mean 'long_text'?"),
    "unknown in a method": (["method.llrd.decy=0.5"], "settings: method: llrd: no setting 'decy'. Did you mean 'decay'?"),
    "out of range": (["train.lr=-1"], "settings: train.lr: it must be greater than 0 (you gave -1)"),
    "of another type": (
        ["train.epochs=many"],
        "settings: train.epochs: it must be a valid number, unable to parse string as a number (you gave 'many')",
    ),
    "true for a number": (["train.seed=true"], "settings: train.seed: True is not a number (you gave True)"),
    "none of the words": (
        ["train.schedule=linaer"],
        "settings: train.schedule: it must be 'linear', 'cosine', 'constant', 'polynomial', 'noam', 'one_cycle' or 'wsd' "
        "(you gave 'linaer')",
    ),
    "several": (
        ["train.lr=-1", "train.sed=1"],
        "settings: train.lr: it must be greater than 0 (you gave -1); no setting 'train.sed'. Did you mean 'seed'?",
    ),
    "without section": (
        ["epochs=2"],
        "--set: 'epochs=2' is not of the form section.key=value. "
        "Sections: task, data, model, method, train, decision, callbacks.",
    ),
    "without value": (
        ["train.epochs"],
        "--set: 'train.epochs' is not of the form section.key=value. "
        "Sections: task, data, model, method, train, decision, callbacks.",
    ),
    "neither JSON nor YAML": (["train.lr={"], "--set: '{' is neither JSON nor YAML. Put quotes around it."),
    "inside a number": (["train.lr.x=1", "train.lr.x.y=1"], "--set: 'train.lr.x.y=1': 'x' has no settings inside."),
    "shares": (
        ["data.validation_share=0.6", "data.test_share=0.4"],
        "data: validation_share 0.6 and test_share 0.4 leave no rows to train on. Together they must be below 1.",
    ),
    "no validation": (
        ["data.validation_share=0"],
        "data.validation_share: no validation rows: the best epoch is chosen on them. Give --validation.",
    ),
    "more tokens than the model reads": (
        ["data.max_tokens=512"],
        "data: data.max_tokens 512 is more than the model reads. At most 64.",
    ),
    "a weight of no label": (
        ['task.class_weights={"god": 2}'],
        "task.class_weights: no label 'god' to weigh. Did you mean 'good'?",
    ),
    "a cost of no label": (
        ['decision.costs={"god": {"bad": 2}}'],
        "decision.costs: no label 'god'. Did you mean 'good'?",
    ),
}


@pytest.mark.parametrize(("assignments", "message"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_that_cannot_be(train: Cli, write: Any, refused: Any, rows: Any, assignments: list[str], message: str) -> None:
    refused(train(write("rows.jsonl", rows(40)), *(w for a in assignments for w in ("--set", a))), message)


def test_an_unknown_name(train: Cli, write: Any, refused: Any, rows: Any) -> None:
    data = write("rows.jsonl", rows(40))
    refused(
        train(data, "--task", "text_clasification"),
        "settings: task: no task 'text_clasification'. Did you mean 'text_classification'?",
    )
    refused(train(data, "--method", "lorra"), "settings: method: no method 'lorra'. Did you mean 'lora'?")
    refused(train(data, "--callback", "tensorbord"), "settings: callbacks: no callback 'tensorbord'. Did you mean 'tensorboard'?")


def test_methods_that_clash(
    train: Cli, write: Any, refused: Any, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "frozen.py").write_text(
        "from typing import ClassVar\nfrom trainformer.core.roles import Method\n"
        'class Frozen(Method):\n    """Freeze."""\n    clashes: ClassVar = {"lora": "it freezes what lora adds."}\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    refused(
        train(write("rows.jsonl", rows(40)), "--method", "lora", "--method", "mine.frozen"),
        "settings: the methods 'mine.frozen' and 'lora' cannot be used together: it freezes what lora adds.",
    )


def test_a_settings_file_that_cannot_be_read(cli: Cli, write: Any, refused: Any, tmp_path: Path) -> None:
    def train(content: str) -> Any:
        return cli("train", write("run.yaml", content), "--out", tmp_path / "out")

    refused(
        train("train: [1"),
        'FOLDER/run.yaml: it is not YAML: while parsing a flow sequence   in "<unicode string>", line 1, column 8:     '
        "train: [1            ^ expected ',' or ']', but got '<stream end>'   in \"<unicode string>\", line 1, column 10:     "
        "train: [1              ^",
    )
    refused(
        train("- train"),
        "FOLDER/run.yaml: a mapping of sections is expected. Sections: task, data, model, method, train, decision, callbacks.",
    )
    refused(
        train("train: {lr: fast}"),
        "FOLDER/run.yaml: train.lr: it must be a valid number, unable to parse string as a number (you gave 'fast')",
    )
    refused(train("train:\n"), "FOLDER/run.yaml: train: it must be a mapping of settings (you gave None)")
    refused(
        train("seed: 1"), "FOLDER/run.yaml: no setting 'seed'. There is: task, data, model, method, train, decision, callbacks."
    )
    refused(
        cli("train", tmp_path / "rum.yaml", "--out", tmp_path / "out"), "FOLDER/rum.yaml: no such file. Did you mean 'run.yaml'?"
    )
    refused(cli("train", "--out", tmp_path / "out"), "--data: no training rows given. trainformer train --data FILE --out RUN")


# Models


def test_a_model_that_is_none(cli: Cli, write: Any, refused: Any, rows: Any, tmp_path: Path, tiny_model: Path) -> None:
    def train(model: Any) -> Any:
        return cli("train", "--data", write("rows.jsonl", rows(40)), "--model", model, "--out", tmp_path / "out")

    (tmp_path / "empty").mkdir()
    refused(train(tmp_path / "empty"), "FOLDER/empty: this folder is no model: it has no config.json.")
    refused(train(tmp_path / "empt"), "FOLDER/empt: no such folder. Did you mean 'empty'?")
    refused(train(write("model.bin", b"x")), "FOLDER/model.bin: a model is a folder with config.json, not a file.")
    refused(
        train("bert-base-of-nobody"),
        "bert-base-of-nobody: no folder and no model in the cache has that name, and the hub cannot be reached.",
    )
    shutil.copytree(tiny_model, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    outcome = train(tmp_path / "cut")
    assert outcome.code == 2 and f"error: {tmp_path}/cut: its weights cannot be read: " in outcome.err.splitlines()[-1]
    shutil.copytree(tiny_model, tmp_path / "mute")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "mute" / name).unlink()
    refused(train(tmp_path / "mute"), "FOLDER/mute: it has no tokenizer: no vocabulary is beside it.")


# Bundles


@pytest.fixture
def bundle(trained: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(trained / "bundle", tmp_path / "bundle"))


def test_a_tampered_bundle(cli: Cli, refused: Any, bundle: Path) -> None:
    weights = bundle / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    restore = "Copy the folder again from where it was made."
    refused(cli("predict", bundle, "good film"), "FOLDER/bundle/model.safetensors: its bytes are not those of manifest.json "
                                                 f"(SHA-256 differs). {restore}")  # fmt: skip
    weights.unlink()
    refused(
        cli("predict", bundle, "good film"), f"FOLDER/bundle/model.safetensors: manifest.json lists it, but it is gone. {restore}"
    )


def test_a_bundle_with_a_file_more_or_no_manifest(cli: Cli, refused: Any, bundle: Path) -> None:
    (bundle / "run_me.py").touch()
    refused(cli("predict", bundle, "good film"), "FOLDER/bundle/run_me.py: manifest.json does not list it. Remove it.")
    (bundle / "manifest.json").write_text("{")
    refused(cli("predict", bundle, "good film"), "FOLDER/bundle/manifest.json: it is not JSON: the manifest was changed or cut. "
            "Copy the folder again from where it was made.")  # fmt: skip
    (bundle / "manifest.json").unlink()
    refused(cli("predict", bundle, "good film"), "FOLDER/bundle: no manifest.json in it, so nothing vouches for its files.")


def test_a_folder_that_is_no_bundle(cli: Cli, refused: Any, trained: Path, tmp_path: Path) -> None:
    outcome = cli("predict", trained, "good film")
    assert (
        outcome.err
        == f"error: {trained}: this folder is no bundle: it has no trainformer.json. Did you mean '{trained}/bundle'?\n"
    )
    (tmp_path / "empty").mkdir()
    refused(cli("predict", tmp_path / "empty", "good"), "FOLDER/empty: this folder is no bundle: it has no trainformer.json. "
            "A bundle is what `trainformer train` writes to RUN/bundle.")  # fmt: skip
    refused(cli("predict", tmp_path / "none", "good"), "FOLDER/none: no such folder.")


def test_rows_that_a_bundle_cannot_score(cli: Cli, write: Any, refused: Any, trained: Path) -> None:
    def evaluate(rows: list[Any], *words: str) -> Any:
        return cli("evaluate", trained / "bundle", "--data", write("new.jsonl", rows), *words)

    known = {"text": "good film", "label": "good"}
    refused(
        evaluate([known, {"text": "so so", "label": "god"}]),
        "FOLDER/new.jsonl line 2: the label 'god' was not seen in training. Did you mean 'good'?",
    )
    refused(evaluate([{"text": "good film"}]), "FOLDER/new.jsonl: no column 'label' (--label). There is: text.")
    refused(
        evaluate([known | {"label": None}]),
        "FOLDER/new.jsonl line 1: the label 'label' is null. Give the row a label or remove it.",
    )
    refused(
        evaluate([{"body": "good film", "label": "good"}]), "FOLDER/new.jsonl: no column 'text' (--text). There is: body, label."
    )
    refused(evaluate([]), "FOLDER/new.jsonl: the file is empty.")


def test_a_prediction_of_nothing_or_over_something(cli: Cli, write: Any, refused: Any, trained: Path, tmp_path: Path) -> None:
    bundle, data = trained / "bundle", write("new.jsonl", '{"text": "good film"}\n{"text": null}\n')
    refused(cli("predict", bundle), "predict: give texts or --data FILE, one of the two.")
    refused(cli("predict", bundle, "good", "--data", data), "predict: give texts or --data FILE, one of the two.")
    refused(
        cli("predict", bundle, "--data", data, "--out", tmp_path / "out"),
        "FOLDER/new.jsonl line 2: the text 'text' is null, not a string. Give it a text or remove the row.",
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.jsonl"], "no half-written file of answers is left"
    taken = Path(write("answers.jsonl", "mine\n"))
    refused(
        cli("predict", bundle, "--data", data, "--out", taken),
        "--out FOLDER/answers.jsonl: it exists; nothing is written over. Choose another name.",
    )
    assert taken.read_text() == "mine\n"


# Folders and disks


def test_an_out_that_exists(cli: Cli, write: Any, rows: Any, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "taken"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    words = ("train", "--data", write("rows.jsonl", rows(40)), "--model", tiny_model, "--out")
    outcome = cli(*words, out)
    assert (outcome.code, outcome.err) == (
        2, f"error: --out {out}: it exists and is not empty; nothing is written over. Choose another name.\n"
    )  # fmt: skip
    assert [(p.name, p.read_text()) for p in out.iterdir()] == [("notes.txt", "mine")]
    outcome = cli(*words, out / "notes.txt")
    assert (outcome.code, outcome.err) == (
        2, f"error: --out {out}/notes.txt: it is a file; a run is a folder. Choose another name.\n"
    )  # fmt: skip
    (out / "config.yaml").touch()
    assert cli(*words, out).err.endswith("Choose another name. To go on with it: --resume.\n")


def test_nothing_to_go_on_with(cli: Cli, refused: Any, trained: Path, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    outcome = cli("train", "--out", trained, "--resume")
    assert (outcome.code, outcome.err) == (
        0, f"--out {trained}: this run is finished, and nothing is done. Its bundle: {trained / 'bundle'}\n"
    )  # fmt: skip
    assert {p: p.stat().st_mtime_ns for p in trained.rglob("*")} == before, "nothing was written"
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "none"):
        refused(
            cli("train", "--out", tmp_path / folder, "--resume"),
            f"--out FOLDER/{folder}: there is no run to go on with: it has no config.yaml. Name the data to start one.",
        )


def test_no_space_is_known_before_training(
    train: Cli, write: Any, refused: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1000))
    outcome = train(write("rows.jsonl", rows(40)))
    refused(outcome, "FOLDER/out: no space: about 1 MB are needed, 0 MB are free. Free some, or choose another disk for --out.")


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=["Python", "Rust"])
def test_a_disk_that_fills_up(
    train: Cli, write: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    from trainformer.engine import checkpoint

    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    outcome = train(write("rows.jsonl", rows(40)))
    place = tmp_path / "out" / "checkpoints" / "best-00000000"
    assert outcome.err.splitlines()[-1] == (
        f"error: {place}: no space left on the disk. Nothing half-written is left. Choose another --out."
    )
    assert outcome.code == 2 and "Traceback" not in outcome.err
    assert list((tmp_path / "out" / "checkpoints").iterdir()) == []


def test_a_disk_that_fills_up_at_the_log(
    train: Cli, write: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from trainformer.engine.pieces import Log

    def full(self: Log, **_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "out" / "log.jsonl"))

    monkeypatch.setattr(Log, "write", full)
    outcome = train(write("rows.jsonl", rows(40)))
    assert outcome.code == 2 and "Traceback" not in outcome.err
    assert outcome.err.splitlines()[-1].startswith(f"error: {tmp_path}/out/log.jsonl: no space left on the disk. ")


def test_answers_that_the_disk_has_no_room_for(
    cli: Cli, write: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, answers = write("new.jsonl", [{"text": "good film"}]), tmp_path / "answers.jsonl"

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    outcome = cli("predict", trained / "bundle", "--data", data, "--out", answers)
    assert (outcome.code, outcome.err) == (
        2, f"error: {answers}: no space left on the disk. Nothing half-written is left. Choose another --out.\n"
    )  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["new.jsonl"]


def test_a_folder_without_permission(train: Cli, write: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "out"))

    data = write("rows.jsonl", rows(40))
    monkeypatch.setattr(Path, "mkdir", refuse)
    outcome = train(data, "--set", f"data.cache={tmp_path}")
    assert outcome.code == 2, outcome.err
    assert "no permission to write" in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err


# Words of the command line

WORDS: dict[str, tuple[list[str], str]] = {
    "option": (
        ["train", "--dta", "x", "--out", "y"],
        "No such option: --dta (Possible options: --data, --set, --task) See: trainformer train --help",
    ),
    "missing option": (["train", "--data", "x"], "Missing option '--out'. See: trainformer train --help"),
    "missing value": (["train", "--data"], "Option '--data' requires an argument. See: trainformer --help"),
    "missing argument": (["evaluate", "--data", "x"], "Missing argument 'BUNDLE'. See: trainformer evaluate --help"),
    "verb": (["trian"], "No such command 'trian'. Did you mean 'train'? See: trainformer --help"),
    "role": (["list", "method"], "list: nothing is called 'method'. Did you mean 'methods'?"),
}


@pytest.mark.parametrize(("words", "message"), WORDS.values(), ids=WORDS)
def test_a_wrong_word(cli: Cli, refused: Any, words: list[str], message: str) -> None:
    refused(cli(*words), message)


def test_check_lists_all_that_is_wrong(cli: Cli, write: Any, rows: Any, tiny_model: Path) -> None:
    broken = [{"text": None, "label": "good"}, *rows(20), {"text": 5, "label": "bad"}]
    data = write("rows.jsonl", broken)
    outcome = cli("check", "--data", data, "--model", tiny_model, "--json")
    found = json.loads(outcome.out)
    assert outcome.code == 2 and found["errors"] == 2
    assert [f["where"] for f in found["findings"][:2]] == [[f"{data} line 1"], [f"{data} line 22"]]


# As a user runs it


def command(*words: Any, **settings: Any) -> list[str]:
    return [sys.executable, "-m", "trainformer", *map(str, words)]


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"TRAINFORMER_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def test_a_process_ends_with_one_message(tmp_path: Path, surroundings: dict[str, str], tiny_model: Path) -> None:
    words = command("train", "--data", tmp_path / "none.csv", "--model", tiny_model, "--out", tmp_path / "out")
    ended = subprocess.run(words, capture_output=True, text=True, env=surroundings)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: {tmp_path}/none.csv: no such file.\n"
    assert not (tmp_path / "out").exists()


def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(
    write: Any, rows: Any, cli: Cli, tiny_model: Path, tmp_path: Path, surroundings: dict[str, str]
) -> None:
    out = tmp_path / "a run"
    words = command("train", "--data", write("rows.jsonl", rows(60)), "--model", tiny_model, "--out", out,
                    "--set", "train.epochs=200", "--set", "callbacks.early_stopping.patience=1000")  # fmt: skip
    running = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=surroundings)
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("step ") and "/600 " in line:
            running.send_signal(signal.SIGINT)
            break
    rest = running.stderr.read().splitlines()
    running.stderr.close()
    assert running.wait() == 130
    step = int(rest[-1].partition(" at step ")[2].partition(";")[0])
    assert rest[-1] == (
        f"stopped by SIGINT at step {step}; its checkpoint is kept. Go on with: trainformer train --out '{out}' --resume"
    )
    assert (out / "checkpoints" / f"step-{step:08d}" / "manifest.json").is_file()
    assert not (out / "bundle").exists()
