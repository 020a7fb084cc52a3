"""Each finding of the pre-flight check, with its count and first places, and the report that shows them."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from trainformer.core.config import DataSettings
from trainformer.core.roles import Task
from trainformer.data.check import CheckReport, Finding, Part, check
from trainformer.data.check_text import render, verdict
from trainformer.data.columns import choose
from trainformer.data.read import open_source
from trainformer.data.survey import Survey, survey

Look = Callable[..., Survey]


@dataclass
class Counted:
    lengths: Tensor
    cut: Tensor
    unknown: Tensor


def text(i: int) -> str:
    return f"{i * 0x9E3779B97F4A7C15 % 2**64:x} {(i + 7) * 0xC2B2AE3D27D4EB4F % 2**64:x}".translate(
        str.maketrans("0123456789", "ghijklmnop")
    )


def rows(start: int, count: int, labels: str = "ab") -> list[tuple[str, str]]:
    return [(text(i), labels[i % len(labels)]) for i in range(start, start + count)]


@pytest.fixture
def report(look: Look, task: Task) -> Callable[..., CheckReport]:
    def make(cache: Counted | None = None, max_tokens: int = 512, **parts: list[Any]) -> CheckReport:
        made = [Part(n, f"{n}.jsonl", look(given, f"{n}.jsonl"), None, cache) for n, given in parts.items()]
        return check(made, task, max_tokens)

    return make


Report = Callable[..., CheckReport]


def found(report: CheckReport, code: str) -> Finding:
    return next(f for f in report.findings if f.code == code)


def codes(report: CheckReport) -> set[str]:
    return {f.code for f in report.findings}


def places(finding: Finding) -> list[str]:
    return [Path(place).name for place in finding.where]


def test_clean_data_has_notes_alone(report: Report) -> None:
    clean = report(train=rows(0, 400), validation=rows(1000, 400), test=rows(2000, 400))
    assert codes(clean) == {"majority"} and verdict(clean) == "0 errors, 0 warnings"
    assert clean.parts["train"]["labels"] == {"a": 200, "b": 200} and clean.parts["test"]["majority_share"] == 0.5


def test_duplicates(report: Report) -> None:
    given = [*rows(0, 100), *rows(0, 2), (text(5).upper() + "!", "b")]
    seen = report(train=given)
    assert (found(seen, "duplicates").count, places(found(seen, "duplicates"))) == (
        2,
        ["train.jsonl line 101", "train.jsonl line 102"],
    )
    assert (found(seen, "near_duplicates").count, places(found(seen, "near_duplicates"))) == (1, ["train.jsonl line 103"])
    assert found(seen, "duplicates").share == pytest.approx(2 / 103) and found(seen, "duplicates").severity == "warning"
    assert seen.parts["train"]["different_texts"] == 101 and seen.parts["train"]["different_texts_nearly"] == 100


def test_overlap_between_parts(report: Report) -> None:
    near = (text(3) + "!", "b")
    seen = report(train=rows(0, 100), validation=rows(500, 100), test=[*rows(200, 97), *rows(0, 2), near])
    assert (found(seen, "overlap").count, places(found(seen, "overlap"))) == (2, ["test.jsonl line 98", "test.jsonl line 99"])
    assert (found(seen, "near_overlap").count, places(found(seen, "near_overlap"))) == (1, ["test.jsonl line 100"])
    assert "texts of test that also stand in train: 2 (2.0 %)" in found(seen, "overlap").message
    assert found(seen, "overlap").severity == "warning"


def test_conflicting_labels_within_and_across(report: Report) -> None:
    train = [*rows(0, 50), (text(1), "a"), (text(1), "b")]
    seen = found(report(train=train, test=[*rows(100, 50), (text(2), "b")]), "conflicting_labels")
    assert (seen.count, places(seen)) == (5, [
        "train.jsonl line 2", "train.jsonl line 51", "train.jsonl line 52", "train.jsonl line 3", "test.jsonl line 51"
    ])  # fmt: skip
    assert "texts that stand with different labels: 2 (5 rows)" in seen.message


def test_labels_of_one_part_alone(report: Report) -> None:
    seen = report(train=[*rows(0, 40), (text(90), "c"), (text(91), "c")], test=[*rows(100, 40), (text(99), "d")])
    assert (found(seen, "unseen_label").severity, places(found(seen, "unseen_label"))) == ("warning", ["test.jsonl line 41"])
    assert "'d'" in found(seen, "unseen_label").message and "'c'" in found(seen, "untested_label").message


def test_another_mixture_of_labels(report: Report) -> None:
    """Half and half in train, one in ten in test: 160 of 400 rows would need another label. Chance is no finding."""
    seen = found(report(train=rows(0, 400), test=rows(1000, 400, "b" + "a" * 9)), "label_shift")
    assert (seen.severity, seen.count, seen.share) == ("warning", 160, pytest.approx(0.4))
    assert "'a' 50.0 % there, 90.0 % here" in seen.message or "'b' 50.0 % there, 10.0 % here" in seen.message
    assert "label_shift" not in codes(report(train=rows(0, 400), test=rows(1000, 10, "b" + "a" * 2)))
    assert "label_shift" not in codes(report(train=rows(0, 400), test=rows(1000, 400, "b" * 9 + "a" * 11)))


def test_a_label_with_one_row_and_a_single_label_are_errors(report: Report) -> None:
    seen = found(report(train=[*rows(0, 40), (text(90), "c")]), "single_row_class")
    assert seen.severity == "error" and places(seen) == ["train.jsonl line 41"] and "'c'" in seen.message
    assert found(report(train=rows(0, 40, "a")), "one_class").severity == "error"


def test_imbalance_and_the_score_to_beat(report: Report) -> None:
    seen = report(train=rows(0, 220, "a" * 10 + "b"))
    assert "'a' has 200 rows and 'b' has 20: 10 to 1" in found(seen, "imbalance").message
    assert "always saying 'a' is right in 90.9 % of train" in found(seen, "majority").message


def test_labels_that_are_alike_or_too_many(report: Report) -> None:
    given = [*rows(0, 40), *[(text(50 + i), "A") for i in range(3)], *[(text(60 + i), "v1") for i in range(2)]]
    given += [(text(70 + i), "v2") for i in range(2)]
    assert (found(report(train=given), "similar_labels").count, "v1" in found(report(train=given), "similar_labels").message) == (
        3,
        False,
    )
    assert found(report(train=[(text(i), f"id {i // 2}") for i in range(100)]), "many_labels").count == 50


def test_sizes(report: Report) -> None:
    seen = report(train=rows(0, 19), validation=rows(100, 95), test=rows(300, 383))
    assert found(seen, "few_rows").severity == "warning"
    few = [f for f in seen.findings if f.code == "few_to_score"]
    assert [(f.severity, f.count) for f in few] == [("warning", 95), ("note", 383)]
    # 1.96 * sqrt(0.25 / 95) = 0.1005
    assert "+-10.1 points" in few[0].message and seen.parts["validation"]["half_width_95"] == pytest.approx(0.10055, abs=1e-4)


def test_tokens(report: Report) -> None:
    cache = Counted(*(torch.zeros(100, dtype=torch.int32) for _ in range(3)))
    cache.lengths[:] = torch.arange(1, 101).clamp(max=90)
    cache.cut[90:] = torch.arange(1, 11)
    cache.unknown[:5] = 40
    seen = report(cache, 90, train=rows(0, 100))
    tokens = seen.parts["train"]["tokens"]
    assert (tokens["p50"], tokens["p95"], tokens["max"], tokens["total"]) == (51, 96, 100, 5050)
    assert (tokens["cut_texts"], tokens["cut_tokens"], tokens["unknown"]) == (10, 55, 200)
    assert sum(bar["texts"] for bar in tokens["histogram"]) == 100 and len(tokens["histogram"]) <= 20
    assert tokens["histogram"][0] == {"from": 0, "to": 5, "texts": 5}
    cut = found(seen, "cut")
    assert "texts of train that max_tokens 90 cuts: 10 (10.0 %), in all 55 tokens (1.1 %)" in cut.message
    assert (cut.severity, cut.count, places(cut)[0]) == ("warning", 10, "train.jsonl line 91")
    assert found(seen, "unknown_tokens").count == 200 and "4.0 % of the tokens" in found(seen, "unknown_tokens").message


def test_advice_names_only_what_the_task_has(report: Report, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task without labels has no accuracy, and one without `long_text` no windows."""
    cut = Counted(*(torch.ones(100, dtype=torch.int32) for _ in range(3)))
    monkeypatch.setattr(type(task), "unlabelled", True)
    seen = report(cut, validation=rows(0, 100))
    assert "long_text" not in type(task).model_fields and found(seen, "cut").fix == "Raise data.max_tokens."
    assert found(seen, "few_to_score").message == "validation has 100 rows: what is measured on so few is rough."


def test_parts_of_one_file(look: Look, task: Task) -> None:
    seen = look([*rows(0, 60), *rows(0, 60)], "all.jsonl")
    lengths = torch.arange(120, dtype=torch.int32)
    cache = Counted(lengths, torch.zeros_like(lengths), torch.zeros_like(lengths))
    cut = {"train": torch.arange(0, 80), "test": torch.arange(80, 120)}
    made = check([Part(n, "all.jsonl", seen, r, cache) for n, r in cut.items()], task, 512)
    assert made.parts["test"]["tokens"]["max"] == 119 and made.parts["train"]["tokens"]["max"] == 79
    assert (found(made, "overlap").count, places(found(made, "overlap"))[0]) == (40, "all.jsonl line 81")
    assert found(made, "duplicates").count == 20


def test_bad_rows_and_an_empty_part_are_errors(report: Report) -> None:
    seen = report(train=[*rows(0, 40), (None, "a"), (7, "a")])
    assert [(f.code, places(f)) for f in seen.errors] == [("row", ["train.jsonl line 41"]), ("row", ["train.jsonl line 42"])]
    assert verdict(seen).startswith("2 errors") and seen.parts["train"]["unusable_rows"] == 2


def test_an_empty_part_is_an_error(look: Look, task: Task) -> None:
    seen = look(rows(0, 40))
    made = check([Part("train", "a", seen), Part("test", "a", seen, torch.empty(0, dtype=torch.int64))], task)
    assert [f.code for f in made.errors] == ["no_rows"]


def test_numbers_have_no_labels(look: Look, numbers_task: Task) -> None:
    seen = look([(text(i), i / 7) for i in range(50)], task=numbers_task)
    made = check([Part("train", "a", seen)], numbers_task)
    assert made.findings == [] and made.parts["train"]["labels"] == {}


def test_the_report_is_plain_json_and_short(report: Report) -> None:
    cache = Counted(*(torch.ones(60, dtype=torch.int32) for _ in range(3)))
    seen = report(cache, train=[*rows(0, 58), (None, "a"), *rows(0, 1)])
    plain = json.loads(json.dumps(seen.to_dict(), allow_nan=False))
    assert plain["errors"] == 1 and plain["findings"][0]["code"] == "row" and plain["parts"]["train"]["rows"] == 60
    out = io.StringIO()
    render(CheckReport(seen.parts, seen.findings, {"memory_mb": 812.5}), Console(file=out, width=200))
    lines = out.getvalue().splitlines()
    assert lines[-1] == verdict(seen) and "memory mb: 812.5" in lines
    assert any("rows of train that repeat a text exactly: 1 (1.7 %). See " in line and "line 60." in line for line in lines)
    assert any("train.jsonl line 59: the text 'text' is null" in line for line in lines) and len(lines) < 20


def test_real_reviews_pass(shared: Path, task: Task) -> None:
    parts = []
    for name in ("train", "validation", "test"):
        source = open_source(shared / "zh_sentiment" / f"{name}.jsonl")
        parts.append(Part(name, source.name, survey(source, choose(source, DataSettings(), False, True)[0], task)))
    made = check(parts, task)
    assert made.errors == [] and "overlap" not in codes(made) and made.parts["train"]["rows"] == 13851
