"""The pages of a run: they hold the numbers, escape every word from outside, and fetch nothing."""

import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import yaml
from torch import Tensor

from trainformer.core.batch import Batch
from trainformer.core.protocols import Metric
from trainformer.core.roles import Decision
from trainformer.data.check import CheckReport
from trainformer.data.finding import Finding
from trainformer.metrics.many_labels import ManyLabels
from trainformer.metrics.number import Number
from trainformer.metrics.one_label import OneLabel
from trainformer.trust import card, figures, report, words

NASTY = '<script>alert("x")</script> & 好的|*'
VOID = {"meta", "br"}

Make = Callable[..., dict[str, Any]]


class Page(HTMLParser):
    """Reads a page strictly: every tag is closed in order; keeps tags, attributes and text."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def measured(metric: Metric, output: Tensor, target: Tensor, rows: int) -> dict[str, Any]:
    """What a run keeps of a metric, as plain JSON."""
    metric.add(output, Batch((), target.reshape(-1), torch.ones(rows), list(range(rows)), list(range(rows + 1))))
    return json.loads(json.dumps({"scores": metric.value(), "detail": metric.detail()}))


def one_label(labels: list[str], rows: int = 400, decision: Decision | None = None) -> dict[str, Any]:
    """Rows of which exactly four in five are right."""
    target = torch.arange(rows) % len(labels)
    place = torch.where(torch.arange(rows) % 5 == 0, (target + 1) % len(labels), target)
    output = 3.0 * torch.nn.functional.one_hot(place, len(labels)).float()
    return measured(OneLabel(labels, decision), output, target, rows)


def many_labels(labels: list[str]) -> dict[str, Any]:
    target = (torch.arange(300)[:, None] % torch.tensor([2, 3, 5]) == 0).float()
    output = torch.where(torch.arange(300)[:, None] % 10 == 0, 0.5, 4.0) * (target - 0.4)
    return measured(ManyLabels(labels), output, target, 300)


def numbers(rows: int = 50) -> dict[str, Any]:
    target = torch.linspace(-1, 1, rows)
    return measured(Number(10.0, 2.0), (target + 0.1 * torch.cos(9 * target))[:, None], target, rows)


def data(labels: dict[str, int]) -> dict[str, Any]:
    histogram = [{"from": i * 5, "to": i * 5 + 4, "texts": n} for i, n in enumerate((3, 20, 9, 0, 1))]
    tokens = {"p50": 7, "p95": 14, "max": 24, "total": 300, "cut_texts": 1, "cut_tokens": 4, "unknown": 2, "histogram": histogram}
    part = {"rows": sum(labels.values()) or 33, "unusable_rows": 0, "different_texts": 32, "different_texts_nearly": 31}
    part |= {"labels": labels, "majority_share": 0.5 if labels else None, "half_width_95": 0.1706, "tokens": tokens}
    parts = {name: part | {"source": f"{name}.jsonl"} for name in ("train", "validation", "test")}
    found = Finding(
        "overlap", "warning", f"texts that leak: 2 {NASTY}", 2, 0.1, ["a.jsonl line 3", "a.jsonl line 9"], "Remove them."
    )
    return CheckReport(parts, [found], {"training_seconds": 12.5, "device": "cpu"}).to_dict()


@pytest.fixture
def results() -> Make:
    """What a run gathers, for labels or, without any, for numbers."""

    def make(labels: list[str] | None = None, own: dict[str, Any] | None = None, **other: Any) -> dict[str, Any]:
        own = own or one_label(labels or [])
        key = "accuracy" if "accuracy" in own["scores"] else "f1_micro" if labels else "r2"
        history = [{"step": s, "epoch": s / 25, "validation": own["scores"], "best": s == 25} for s in (0, 25, 50)]
        curve = [[s, 2.0 / (1 + s), 1e-4 * (1 - s / 50)] for s in range(1, 51)]
        error = {"text": NASTY, "text_b": None, "label": labels[0] if labels else 3.5, "said": labels[1] if labels else 9.25}
        return {
            "task": "text_classification" if labels else "regression", "model": "small-encoder", "labels": labels,
            "created": "2026-11-24T22:00:00Z", "seconds": 123.4, "versions": {"python": "3.11.2"}, "said": ["epochs: 3"],
            "config": f"note: '{NASTY}'\n", "data": data(dict.fromkeys(labels or [], 11)), "fingerprint": {"train.jsonl": "abc1"},
            "baselines": [{"name": "majority class", "validation": own["scores"], "test": own["scores"]}],
            "history": history, "curve": curve, "validation": own, "test": own, "decision_notes": ["3 rows were left out."],
            "decision": {"temperature": 1.25, "thresholds": {}, "abstain": None, "costs": {}}, "key": key,
            "higher_is_better": True, "best_step": 25, "errors": [error | {"score": 0.991 if labels else None}],
            "verdict": "Fine-tuning is better.", "parameters": 22713216, "trained_parameters": 1538, "max_tokens": 20,
            "opens_in_transformers": True,
        } | other  # fmt: skip

    return make


def test_the_page_is_whole_and_holds_the_numbers(results: Make) -> None:
    page = Page(report.render(results(["bad", "good"])))
    # Wilson's interval of 320 of 400, from scipy's binomtest: 0.75803, 0.83626
    for expected in ("80.0 %", "75.8–83.6 %", "Fine-tuning is better.", "2 min 3 s", "22,713,216", "majority class", "abc1",
                     "epochs: 3", "a.jsonl line 3, 9", "scored on the test rows once", "ships: 0.8", "0.991"):  # fmt: skip
        assert expected in page.text, expected


@pytest.mark.parametrize("case", ["one", "many", "numbers"])
def test_nothing_is_fetched_or_run_and_figures_are_well_formed_and_named(results: Make, case: str) -> None:
    labels = ["a", "b", NASTY]
    given = {"one": (labels, one_label(labels)), "many": (labels, many_labels(labels)), "numbers": (None, numbers())}[case]
    html = report.render(results(*given))
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    loads = [
        v for _, attrs in page.tags for k, v in attrs.items() if k in ("src", "href", "srcset") and not (v or "").startswith("#")
    ]
    assert loads == [] and "url(" not in html and "@import" not in html
    assert not any(k.startswith("on") for _, attrs in page.tags for k in attrs)
    drawings = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len(drawings) >= 7
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img" and root.get("aria-label") == root[0].text and root[0].tag.endswith("title")
        assert "nan" not in drawing and "inf" not in drawing


def test_words_from_outside_are_words(results: Make) -> None:
    html = report.render(results(["好的", NASTY], verdict=NASTY, model=NASTY, said=[NASTY], decision_notes=[NASTY]))
    assert "<script" not in html and "好的" in html
    assert Page(html).text.count(NASTY) >= 8


def test_without_a_test_the_page_says_so(results: Make) -> None:
    made = results(["bad", "good"], test=None, baselines=[])
    page = Page(report.render(made))
    assert "There is no test." in page.text and "once, after" not in page.text and "No baselines were fitted." in page.text
    assert "accuracy on validation" in page.text and "There was no test" in card.render(made)


def test_classes_have_the_intervals_of_their_counts(results: Make) -> None:
    page = Page(report.render(results(["bad", "good"])))
    # each label: 160 hits of 200 said and 200 true; scipy's binomtest(160, 200).proportion_ci(method="wilson")
    assert page.text.count("73.9–85.0 %") >= 4
    # 160 hits of 240 said or true: 0.60481 to 0.72327, which is F1 0.75375 to 0.83941
    assert page.text.count("75.4–83.9 %") == 2


def test_a_label_that_never_occurs_and_many_labels(results: Make) -> None:
    labels = [f"label {i}" for i in range(70)]
    made = results(labels, one_label(labels, rows=340))
    page = Page(report.render(made))
    assert "Labels taken for another" in page.text and "Confusion on" not in page.text
    assert "10 more are not" in page.text and "10 more labels are not listed" in page.text
    assert "and 30 more, listed in" in card.render(made)


def test_the_decision_layer_is_told_whole(results: Make) -> None:
    decision = {"temperature": 1.0, "thresholds": {"bad": 0.25}, "abstain": 0.7, "costs": {"bad": {"good": 5.0}}}
    own = one_label(["bad", "good"], decision=Decision(**decision))
    made = results(["bad", "good"], own, decision=decision)
    page = Page(report.render(made))
    text = " ".join(page.text.split())
    for expected in (
        "below a score of 0.7000",
        "bad 0.2500",
        "bad said for good: 5;",
        "right of answered",
        "mean cost",
        "3 rows were",
    ):
        assert expected in text, expected
    assert "below a score of 0.7000 nothing is said" in card.render(made)


def test_numbers_have_correlations_and_a_scatter_and_no_labels(results: Make) -> None:
    page = Page(report.render(results(None, numbers())))
    own = numbers()["scores"]
    # Fisher: tanh(atanh(r) -+ 1.959964 / sqrt(50 - 3)) = tanh(atanh(r) -+ 0.285890)
    low, high = (math.tanh(math.atanh(own["pearson"]) + side * 0.285890) for side in (-1, 1))
    assert f"{low:.3f} to {high:.3f}" in page.text
    assert "RMSE" in page.text and "furthest off" in page.text and "9.25" in page.text
    assert "Errors by label" not in page.text and "Can its scores be believed?" not in page.text and "Said and true" in page.text


def test_micro_f1_has_the_interval_of_all_counts_together(results: Make) -> None:
    own = {"scores": {"examples": 60, "f1_micro": 0.75}, "detail": {"classes": [
        {"hits": 10, "said": 19, "support": 22}, {"hits": 20, "said": 19, "support": 20}]}}  # fmt: skip
    # 30 hits, 38 said, 42 true: scipy's binomtest(30, 50) has 0.461814 to 0.723916, and F1 = 2 x / (1 + x)
    assert words.bounds("f1_micro", own["scores"], own["detail"]) == pytest.approx((0.631837, 0.839851), abs=1e-6)
    assert words.bounds("f1_macro", own["scores"] | {"f1_macro": 0.7}, own["detail"]) is None


def test_the_check_page_stands_alone() -> None:
    page = Page(report.check_page(data({"a": 20, "b": 13})))
    for expected in ("Data report", "0 errors, 1 warning", "texts that leak: 2", "Remove them.", "training seconds", "60.6 %"):
        assert expected in page.text, expected
    assert sum(tag == "svg" for tag, _ in page.tags) == 3
    empty = {"errors": 0, "warnings": 0, "parts": {}, "findings": [], "forecast": None}
    assert "Nothing was found." in Page(report.check_page(empty)).text


def test_the_card_has_front_matter_scores_and_relative_use(results: Make) -> None:
    text = card.render(results(["bad", NASTY]))
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers", "pipeline_tag": "text-classification",
        "tags": ["trainformer", "text-classification"], "metrics": ["accuracy"]}  # fmt: skip
    assert "| this model | 80.0 % (75.8–83.6 %) |" in body and 'Bundle.open(".")' in body and "](report.html)" in body
    assert "<script" not in body and "AutoModelForSequenceClassification" in body and "\n\n\n" not in body
    rows = [line for line in body.splitlines() if line.startswith("| this model") or line.startswith("| model")]
    assert len({line.count("|") for line in rows}) == 1
    other = card.render(results(None, numbers(), opens_in_transformers=False))
    assert "library_name: trainformer" in other and "AutoModel" not in other and "a number comes out" in other


def test_a_pair_is_asked_as_a_pair(results: Make) -> None:
    text = card.render(results(["no", "yes"], task="text_pair"))
    assert 'model.predict([("a text", "another text")])' in text and 'predict . "a text" "another text"' in text


@pytest.mark.parametrize(("low", "high", "expected"), [
    (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 503, [0, 200, 400]), (-0.3, 0.31, [-0.2, 0, 0.2]), 
    (2e-5, 9e-5, [2e-5, 4e-5, 6e-5, 8e-5]),
])  # fmt: skip
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert figures.ticks(low, high) == pytest.approx(expected)


def test_smoothing_keeps_a_line_and_the_number_of_points() -> None:
    assert figures.smooth([5.0] * 100) == pytest.approx([5.0] * 100)
    assert figures.smooth([0.0, 3.0, 0.0]) == [1.5, 1.0, 1.5]


def test_a_run_of_one_step_is_drawn(results: Make) -> None:
    own = one_label(["a", "b"])
    history = [{"step": 0, "epoch": 0.0, "validation": own["scores"], "best": True}]
    Page(report.render(results(["a", "b"], own, curve=[[1, 0.7, 0.0]], history=history, best_step=0)))


def test_words_fit_their_columns() -> None:
    assert figures.shorten("好好好好", 5) == "好好…" and figures.shorten("plain", 5) == "plain"
    assert words.places(["table row 3"]) == "table row 3" and words.label([]) == "(none)" and words.label(2.0) == "2"


def test_ranks_over_time_are_drawn(results: Make) -> None:
    told = {"steps": [1, 5, 9], "ranks": {"encoder.layer.0.query": [6, 4, 1], "encoder.layer.1.query": [6, 5, 5]}}
    html = report.render(results(["bad", "good"], methods={"adalora": told, "ema": {}}))
    page = Page(html)
    assert "Rank of 2 layers over time, at most 6; in the end from 1 to 5" in html
    assert "0 query, step 9: rank 1" in page.text and "1 query, step 5: rank 5" in page.text
