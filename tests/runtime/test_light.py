"""A graph answers without PyTorch as it does with it: each task, texts of every length, the same sentences where it refuses."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainformer.bundle import Bundle, asking
from trainformer.core.errors import UserError
from trainformer.data.fast_tokens import FastTokens
from trainformer.data.tokens import HubTokens
from trainformer.runtime.light import Light
from trainformer.runtime.opening import opened
from trainformer.runtime.session import cores
from trainformer.tasks.text_classification import TextClassification

Graph = Callable[[str], Path]
ROOT = Path(__file__).resolve().parents[2]
CASES = ["one label", "costs", "many labels", "a pair", "likeness", "a number", "head and tail", "documents"]


def same(ours: list[Any], theirs: list[Any]) -> None:
    """Labels alike, numbers to 1e-9."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert set(one) == set(other) and one["cut_tokens"] == other["cut_tokens"]
        number = isinstance(other["label"], float)
        assert one["label"] == (pytest.approx(other["label"], abs=1e-9) if number else other["label"])
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-9)
        assert one["score"] == (None if other["score"] is None else pytest.approx(other["score"], abs=1e-9))
        assert one.get("abstained") == other.get("abstained")


@pytest.mark.parametrize("name", CASES)
def test_it_answers_as_pytorch_does(name: str, graph: Graph, of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks of 50, so that three are read; texts that are cut, windows of them, and empty ones are there."""
    monkeypatch.setattr(asking, "CHUNK_ROWS", 50)
    light, bundle, texts = opened(graph(name)), Bundle.open(graph(name)), of.asked(name)
    assert isinstance(light, Light)
    ours, theirs = light.predict(texts, logits=True), bundle.predict(texts, logits=True)
    same(
        [{k: v for k, v in a.items() if k != "logits"} for a in ours],
        [{k: v for k, v in a.items() if k != "logits"} for a in theirs],
    )
    assert np.abs(np.array([a["logits"] for a in ours]) - np.array([a["logits"] for a in theirs])).max() < 1e-6
    assert light.logits(texts) == pytest.approx(bundle.logits(texts).numpy(), abs=1e-6)
    assert light.logits([]).shape == tuple(bundle.logits([]).shape)
    assert light.labels == bundle.labels and light.decision == bundle.decision and light.limit == bundle.limit
    long = [a["cut_tokens"] for a in theirs]
    assert np.ptp([a["logits"] for a in theirs], axis=0).min() > 0.1, "the texts are told apart"
    assert any(long) or "window" in str(bundle.task.settings())


@pytest.mark.parametrize("name", CASES)
def test_it_is_scored_as_with_pytorch(name: str, graph: Graph, of: Any, write: Any) -> None:
    path = write("rows.jsonl", of.rows(name))
    light, bundle = opened(graph(name)), Bundle.open(graph(name))
    ours, theirs = light.evaluate(path), bundle.evaluate(path)
    assert list(ours) == list(theirs) and ours == pytest.approx(theirs, rel=1e-9, abs=1e-9)
    same(list(light.predict_file(path)), list(bundle.predict_file(path)))


@pytest.mark.parametrize("name", ["one label", "a pair", "many labels", "a number"])
def test_it_refuses_in_the_same_words(name: str, graph: Graph, of: Any, write: Any, tmp_path: Path) -> None:
    good = of.rows(name)[0]
    files = [write("unknown.jsonl", [good | {"label": "no such"}]), write("null.jsonl", [good | {"text": None}])]
    files += [write("column.jsonl", [{"label": good["label"]}]), write("empty.jsonl", ""), str(tmp_path / "gone.jsonl")]
    light, bundle = opened(graph(name)), Bundle.open(graph(name))
    asks: list[Callable[[Any], Any]] = [lambda b, f=f: b.evaluate(f) for f in files]
    asks += [lambda b, g=g: b.predict(g) for g in (3, b"film", [None], [("a", "b", "c")], {"a": 1})]
    asks += [lambda b: b.evaluate(files[0], choices="c"), lambda b: list(b.predict_file(files[1]))]
    for ask in asks:
        said = []
        for each in (light, bundle):
            with pytest.raises(UserError) as error:
                ask(each)
            said.append(str(error.value))
        assert said[0] == said[1]


def test_an_adapter_is_refused_in_the_same_words(graph: Graph) -> None:
    said = []
    for ask in (opened, Bundle.open):
        with pytest.raises(UserError, match="it has no adapter") as error:
            ask(graph("one label"), adapter="en")
        said.append(str(error.value))
    assert said[0] == said[1]


def test_what_is_no_graph_is_opened_by_pytorch(trained: Path) -> None:
    bundle = opened(trained / "bundle")
    assert isinstance(bundle, Bundle) and bundle.predict("a good film") == Bundle.open(trained / "bundle").predict("a good film")


def test_a_task_that_says_no_targets_is_asked_with_tensors(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a user's own, that encodes its examples itself, as docs/extend.md shows: its answers may take tensors alone."""
    folder = graph("one label")
    monkeypatch.delattr(TextClassification, "targets")
    assert isinstance(opened(folder), Bundle)
    assert isinstance(opened(graph("a number")), Light)


def test_its_tokens_are_those_of_the_library(graph: Graph, of: Any) -> None:
    folder, texts = graph("a pair"), of.sentences(100)
    light, hub = FastTokens.of(folder), HubTokens.load(str(folder))
    assert light.pieces(texts) == hub.pieces(texts) and light.spans(texts) == hub.spans(texts)
    assert light.wrap([1, 2], [3]) == hub.wrap([1, 2], [3]) and light.specials == hub.specials
    assert light.unknown_id == hub.unknown_id is not None
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["unk_token"] == "[UNK]"


def test_threads_are_those_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cores() == 3
    for silent in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", silent)
        assert 1 <= cores() <= 4096


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "e5-small-zh-en"])
def test_tokens_of_real_models_are_those_of_the_library(name: str) -> None:
    folder = Path(os.environ.get("TRAINFORMER_SHARED", ROOT.parent / "shared")) / "models" / name
    if not folder.is_dir():
        pytest.skip(f"no model at {folder}; TRAINFORMER_SHARED says where the folder of models is")
    texts = [
        "",
        " ",
        "A fine film, isn't it?",
        "好电影！两小时\n不后悔。",
        "naïve Ünïcödé ﬁ 🎬",
        "[MASK] <s> </s> [SEP]",
        "x" * 300,
        "１２３ ，。",
    ]
    light, hub = FastTokens.of(folder), HubTokens.load(str(folder))
    assert light.pieces(texts) == hub.pieces(texts) and light.specials == hub.specials
    assert light.wrap([5, 6], [7]) == hub.wrap([5, 6], [7]) and light.wrap([5, 6]) == hub.wrap([5, 6])
