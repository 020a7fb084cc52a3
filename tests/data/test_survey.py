"""What one pass keeps of each row, which rows it refuses, and that its memory does not grow with the file."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainformer.core.config import DataSettings
from trainformer.core.roles import Task
from trainformer.data.columns import choose
from trainformer.data.damage import damage
from trainformer.data.read import open_source
from trainformer.data.survey import Survey, groups, survey

Look = Callable[..., Survey]
LONG = "a rather long sentence about nothing in particular, written only to be repeated"


def test_equal_texts_have_equal_hashes(look: Look) -> None:
    seen = look([("Good film", "p"), ("good film!", "p"), ("Good film", "n"), ("bad", "n"), (LONG, "p"), (LONG + " twice", "p")])
    assert seen.text_hash.dtype == torch.int64 and seen.rows == 6
    assert seen.text_hash[0] == seen.text_hash[2] != seen.text_hash[1]
    assert seen.loose_hash[0] == seen.loose_hash[1] != seen.loose_hash[3]
    assert seen.label_hash[0] == seen.label_hash[1] != seen.label_hash[2]
    assert seen.near_group.tolist() == [0, 0, 0, 3, 4, 4]
    assert seen.label_counts() == {"p": 4, "n": 2} and seen.label_counts(torch.tensor([2, 3])) == {"n": 2}


def test_groups_reach_across_sources(look: Look) -> None:
    one = look([("something else", "p"), (LONG, "p")], "one.jsonl")
    other = look([(LONG.upper(), "p"), ("nothing", "n")], "other.jsonl")
    assert [g.tolist() for g in groups([one, other])] == [[0, 1], [1, 3]]


def test_refused_rows_are_findings_with_their_places(look: Look) -> None:
    rows = [("a", "x"), (None, "x"), (5, "x"), ("b", None)] + [("c", 0.5)] * 30
    seen = look(rows)
    assert seen.ok.tolist() == [True] + [False] * 33
    errors = [f for f in seen.findings if f.severity == "error"]
    assert len(errors) == 21 and errors[-1].count == 13 and "13" in errors[-1].message
    assert errors[0].where[0].endswith("rows.jsonl line 2") and "is null" in errors[0].message
    assert errors[1].where[0].endswith("line 3") and "int (5)" in errors[1].message
    assert len(torch.unique(seen.text_hash)) == 34, "rows that were not understood are no duplicates of each other"


def test_a_target_that_is_nan_is_an_error(look: Look, numbers_task: Task, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,score\na,1.5\nb,nan\nc,2\n")
    source = open_source(path)
    seen = survey(source, choose(source, DataSettings(), False, True)[0], numbers_task)
    assert seen.numeric and seen.label_counts() == {}
    assert [(f.severity, f.where) for f in seen.findings] == [("error", [f"{path} line 3"])]


def test_what_is_odd_is_counted(look: Look) -> None:
    rows = [("", "x"), (" \n", "x"), ("cafÃ© au lait", "x"), ("lost \ufffd", "x"), ("nul \0", "x"), ("fine", 1), ("fine", "1")]
    found = {f.code: f for f in look(rows).findings}
    assert {code: f.count for code, f in found.items()} == {
        "empty_text": 2, "mojibake": 1, "replacement_characters": 1, "control_characters": 1, "mixed_label_types": 1
    }  # fmt: skip
    assert found["mojibake"].where[0].endswith("rows.jsonl line 3") and found["empty_text"].severity == "warning"
    assert "6 strings, 1 whole numbers" in found["mixed_label_types"].message
    assert found["mixed_label_types"].where[0].endswith("line 6")


def test_all_empty_and_no_weight_are_errors(look: Look) -> None:
    assert look([("", "x"), (" ", "y")]).findings[0].severity == "error"
    rows = [{"text": t, "label": "x", "w": 0} for t in "ab"]
    assert [f.code for f in look(rows, weight="w").findings] == ["no_weight"]


def test_rows_of_several_labels_count_each(look: Look) -> None:
    assert look([("a", ["x", "y"]), ("b", ["x"]), ("c", [])]).label_counts() == {"x": 2, "y": 1}


def test_without_labels(tmp_path: Path, task: Task) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    source = open_source(path)
    seen = survey(source, choose(source, DataSettings(), False, False)[0], task, labelled=False)
    assert seen.label_hash.tolist() == [0, 0] and seen.label_counts() == {} and seen.findings == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It’s a café — naïve", []),
        ("Itâ€™s broken", ["mojibake"]),
        ("ä½ å¥½", ["mojibake"]),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", ["mojibake"]),
        ("浣犲ソ锛屼笘鐣", ["mojibake"]),
        ("你好，世界，这是一个很长的句子", []),
        ("LA BEAUTÉ»", []),
        ("SÃO PAULO Â", []),
        ("锟斤拷", ["replacement_characters"]),
        ("a\x07b", ["control_characters"]),
        ("line\nline\ttab", []),
        ("emoji 😀 ok", []),
    ],
)
def test_signs_of_damage(text: str, expected: list[str]) -> None:
    assert damage(text) == expected


def test_real_chinese_reviews_have_no_errors(shared: Path, task: Task) -> None:
    for name in ("train", "validation", "test"):
        source = open_source(shared / "zh_sentiment" / f"{name}.jsonl")
        seen = survey(source, choose(source, DataSettings(), False, True)[0], task)
        assert [f for f in seen.findings if f.severity != "note"] == [] and set(seen.label_counts()) == {"negative", "positive"}


MEASURE = """
import resource, sys
from types import SimpleNamespace
from trainformer.core.batch import Example
from trainformer.core.config import DataSettings
from trainformer.data.columns import choose
from trainformer.data.read import open_source
from trainformer.data.survey import survey
task = SimpleNamespace(parse=lambda texts, label, row, weight: Example(texts, label, row, weight))
source = open_source(sys.argv[1])
seen = survey(source, choose(source, DataSettings(), False, True)[0], task)
assert len(seen.near_group) == seen.rows
print(seen.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peak_mb: dict[int, int] = {}
    for rows in (20_000, 200_000):
        path = tmp_path / f"{rows}.jsonl"
        with path.open("w") as f:
            for i in range(rows):
                text = f"{i * 0x9E3779B97F4A7C15 % 2**64:x} {(i + 7) * 0xC2B2AE3D27D4EB4F % 2**64:x}"
                f.write(json.dumps({"text": text, "label": "ab"[i % 2]}) + "\n")
        done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
        counted, peak_mb[rows] = (int(word) for word in done.stdout.split())
        assert counted == rows
    assert peak_mb[200_000] - peak_mb[20_000] < 40


def test_extra_keys_do_not_matter(look: Look) -> None:
    rows: list[Any] = [{"text": "a", "label": "x", "id": 1}, {"text": "b", "label": "x"}]
    assert look(rows).ok.all()


def test_more_labels_than_are_kept_are_said(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainformer.data.survey.MAX_LABELS", 2)
    seen = look([(f"text {c}", c) for c in "abcab"])
    assert seen.label_counts() == {"a": 2, "b": 2} and [f.code for f in seen.findings] == ["many_labels"]
    assert len(torch.unique(seen.label_hash)) == 3
