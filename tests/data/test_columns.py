"""Columns are named, found and said, or refused; a row becomes an example or an error with its place."""

import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from trainformer.core.batch import Row
from trainformer.core.config import DataSettings
from trainformer.core.errors import UserError
from trainformer.core.roles import Task
from trainformer.data.columns import Columns, choose, example
from trainformer.data.read import open_source


def chosen(columns: list[str], pair: bool = False, labelled: bool = True, **settings: str) -> tuple[Columns, list[str]]:
    values = {c: 1 if c.startswith("n") else "word" for c in columns}
    return choose(open_source(pandas.DataFrame([values])), DataSettings(**settings), pair, labelled)


@pytest.mark.parametrize(
    ("columns", "pair", "settings", "expected"),
    [
        (["text", "label"], False, {}, Columns("text", None, "label")),
        (["id", "Review", "Sentiment", "n"], False, {}, Columns("Review", None, "Sentiment")),
        (["n1", "said", "label"], False, {}, Columns("said", None, "label")),
        (["review", "verdict"], False, {}, Columns("review", None, "verdict")),
        (["text", "label", "score"], False, {"label": "score"}, Columns("text", None, "score")),
        (["a", "b", "c", "n"], False, {"text": "b", "label": "a", "weight": "n"}, Columns("b", None, "a", "n")),
        (["premise", "hypothesis", "label"], True, {}, Columns("premise", "hypothesis", "label")),
        (["context", "response", "label"], True, {}, Columns("context", "response", "label")),
        (["question", "answer", "label"], True, {"text": "answer", "text_b": "question"}, Columns("answer", "question", "label")),
        (["sentence1", "sentence2", "label"], True, {"text": "sentence1"}, Columns("sentence1", "sentence2", "label")),
        (["n1", "left", "right", "label"], True, {"text_b": "left"}, Columns("right", "left", "label")),
        (["文本", "标签"], False, {}, Columns("文本", None, "标签")),
    ],
)
def test_columns_are_found(columns: list[str], pair: bool, settings: dict[str, str], expected: Columns) -> None:
    assert chosen(columns, pair, **settings)[0] == expected


def test_guesses_are_said_and_named_ones_are_not() -> None:
    assert chosen(["text", "label"], label="label")[1] == ["text: column 'text' (found by its name; --text chooses another)"]
    assert chosen(["said", "label"])[1][1] == "text: column 'said' (the only column of strings left; --text chooses another)"


def test_without_labels_none_is_read() -> None:
    assert chosen(["said", "label"], labelled=False)[0] == Columns("said")


@pytest.mark.parametrize(
    ("columns", "pair", "settings", "message"),
    [
        (["text", "label"], False, {"text": "txt"}, r"no column 'txt' \(--text\)\. Did you mean 'text'\?"),
        (["text", "label"], False, {"text": "text", "label": "text"}, r"'text' is given twice \(--text and --label\)"),
        (["one", "two", "label"], False, {}, r"which column is the text\. Say it with --text\. There is: one, two, label"),
        (["text", "one", "two"], False, {}, r"not clear which column is the label\. Say it with --label"),
        (["one", "two", "three", "label"], True, {}, r"which column is the texts\. Say it with --text and --text-b"),
        (["text", "more", "label"], False, {"text_b": "more"}, r"--text-b: the task reads one text\."),
    ],
)
def test_unclear_columns_are_refused(columns: list[str], pair: bool, settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen(columns, pair, **settings)


def test_a_row_becomes_an_example(task: Task) -> None:
    row = Row({"text": "", "b": "two", "label": 3, "w": "0.5"}, "a.csv", 7)
    made = example(row, Columns("text", "b", "label", "w"), task, 5)
    assert (made.texts, made.target, made.row, made.weight) == (("", "two"), "3", 5, 0.5)
    assert example(row, Columns("text", None, "label"), task, 5, labelled=False).target is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, r"a\.csv line 7: the text 'text' is null, not a string\. Give it a text or remove the row"),
        ({"text": 5}, r"a\.csv line 7: the text 'text' is int \(5\), not a string"),
        ({"text": "a\ud83d"}, r"a\.csv line 7: 'text' holds half of a character \(\\ud83d\) at place 2"),
        ({"label": None}, r"a\.csv line 7: the label 'label' is null"),
        ({"label": 0.5}, r"a\.csv line 7: the label is 0\.5\. Write a word"),
        ({"w": -1}, r"a\.csv line 7: the weight 'w' is -1\. It must be a number, 0 or more"),
        ({"w": "nan"}, r"the weight 'w' is 'nan'"),
        ({"w": True}, r"the weight 'w' is True"),
        ({"w": None}, r"the weight 'w' is None"),
    ],
)
def test_bad_rows_are_refused_with_their_place(task: Task, change: dict[str, Any], message: str) -> None:
    row = Row({"text": "a", "label": "x", "w": 1} | change, "a.csv", 7)
    with pytest.raises(UserError, match=message):
        example(row, Columns("text", None, "label", "w"), task, 0)


def test_a_key_that_a_row_lacks_is_named(tmp_path: Path, task: Task) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "a", "label": "x"}) + "\n" + json.dumps({"txt": "b", "label": "x"}) + "\n")
    rows = list(open_source(path))
    with pytest.raises(UserError, match=r"a\.jsonl line 2: this row has no 'text'\. Did you mean 'txt'\?"):
        example(rows[1], Columns("text", None, "label"), task, 1)
