"""Asking a bundle: order, lengths, long texts, pairs, and numbers that agree with training's."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from trainformer.bundle import Bundle, asking
from trainformer.core.batch import pack
from trainformer.core.config import parse
from trainformer.core.errors import UserError
from trainformer.core.roles import Decision
from trainformer.data import prepare
from trainformer.data.plan import Plan
from trainformer.data.tokens import HubTokens
from trainformer.engine.engine import Engine, Job

LABELS = ["bad", "good", "so-so"]


def alone(bundle: Bundle, text: Any) -> torch.Tensor:
    """The logits "C" of one text, by hand: pieces, encode, forward."""
    parts = [text] if isinstance(text, str) else list(text)
    example = bundle.task.parse(tuple(parts), ..., 0, 1.0)
    encoded = bundle.task.encode(example, bundle.tokens.pieces(parts), bundle.tokens, bundle.limit)
    with torch.inference_mode():
        output: torch.Tensor = bundle.model(pack([encoded]))[0]
    return output


@pytest.mark.parametrize("chunk", [7, 100, 2048])
def test_answers_stand_in_order(chunk: int, opened: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "CHUNK_ROWS", chunk)
    bundle = opened()
    bundle.micro_tokens = 50
    expected = torch.stack([alone(bundle, text) for text in texts])
    torch.testing.assert_close(bundle.logits(texts), expected, atol=1e-5, rtol=0)
    answers = bundle.predict(texts, logits=True)
    torch.testing.assert_close(torch.tensor([a["logits"] for a in answers]), expected, atol=1e-5, rtol=0)
    assert [a["label"] for a in answers] == [LABELS[int(i)] for i in expected.argmax(1)]
    for answer, row in zip(answers, expected.softmax(1), strict=True):
        assert answer["score"] == pytest.approx(float(row.max()), abs=1e-4)
        assert answer["scores"] == pytest.approx(dict(zip(LABELS, row.tolist(), strict=True)), abs=1e-4)


def test_cut_tokens_are_counted(opened: Any, texts: list[str]) -> None:
    """16 tokens hold 14 words between their special tokens."""
    bundle = opened(max_tokens=16)
    assert [a["cut_tokens"] for a in bundle.predict(texts)] == [max(0, len(t.split()) - 14) for t in texts]
    long = "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14"
    assert torch.equal(bundle.logits([long + " w15 w16"]), bundle.logits([long]))


def test_head_and_tail(opened: Any) -> None:
    """Of 14 places a quarter (14 * 128 / 510 = 3) is read from the head and 11 from the tail."""
    bundle = opened(long_text="head_tail", max_tokens=16)
    words = [f"w{i}" for i in range(40)]
    [answer] = bundle.predict([" ".join(words)])
    assert answer["cut_tokens"] == 26
    torch.testing.assert_close(
        bundle.logits([" ".join(words)]), bundle.logits([" ".join(words[:3] + words[29:])]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("how", ["mean", "max"])
def test_windows(how: str, opened: Any) -> None:
    """24 words in windows of 14 that overlap by a quarter (4) are windows from 0 and 10; their outputs are made one."""
    bundle = opened(long_text="window", window_pool=how, window_overlap=0.25, max_tokens=16)
    words = [f"w{i}" for i in range(24)]
    both = bundle.logits([" ".join(words[:14]), " ".join(words[10:])])
    expected = both.mean(0) if how == "mean" else both.amax(0)
    asked = ["w1", " ".join(words), "w2 w3"]
    torch.testing.assert_close(bundle.logits(asked)[1], expected, atol=1e-5, rtol=0)
    assert [a["cut_tokens"] for a in bundle.predict(asked)] == [0, 0, 0]


@pytest.mark.parametrize("long_text", ["truncate", "head_tail", "window"])
def test_pairs(long_text: str, opened: Any, texts: list[str]) -> None:
    bundle = opened("text_pair", long_text=long_text)
    pairs = list(zip(texts[:80], texts[80:160], strict=True))
    expected = torch.stack([alone(bundle, pair) for pair in pairs])
    torch.testing.assert_close(bundle.logits(pairs), expected, atol=1e-5, rtol=0)
    answers = bundle.predict([list(p) for p in pairs])
    assert [a["label"] for a in answers] == [LABELS[int(i)] for i in expected.argmax(1)]
    assert not torch.equal(bundle.logits([("w1", "w2")]), bundle.logits([("w2", "w1")]))
    if long_text == "truncate":  # 13 places for two texts
        assert [a["cut_tokens"] for a in answers] == [max(0, len(a.split()) + len(b.split()) - 13) for a, b in pairs]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (3, "a text or a list of texts is expected, not 3"),
        (None, "not None"),
        (b"bytes", "not b'bytes'"),
        ({"text": "w1"}, "not {'text': 'w1'}"),
        ({"w1", "w2"}, "a list of texts is expected"),
        (["w1", None], "text 2: one text is expected, not None"),
        (["w1", 2.5], "text 2: one text is expected, not 2.5"),
        ([("w1", "w2")], r"text 1: one text is expected, not \('w1', 'w2'\)"),
        ([{"text": "w1"}], "text 1: one text is expected, not {'text': 'w1'}"),
    ],
)
def test_what_is_no_text_is_refused(given: Any, words: str, opened: Any) -> None:
    with pytest.raises(UserError, match=words):
        opened().predict(given)


@pytest.mark.parametrize("given", ["w1", ["w1"], ("w1", "w2"), [("w1", "w2", "w3")], [("w1", None)]])
def test_a_pair_is_two_texts(given: Any, opened: Any) -> None:
    with pytest.raises(UserError, match="text 1: a pair of texts is expected"):
        opened("text_pair").predict(given)


def test_one_none_and_any_number(opened: Any) -> None:
    bundle = opened()
    assert bundle.predict("w1 w2") == bundle.predict(["w1 w2"]) == bundle.predict(t for t in ["w1 w2"])
    assert bundle.predict([]) == [] and bundle.logits([]).shape == (0, 3)
    assert len(bundle.predict(["", "   "])) == 2
    assert bundle.labels == LABELS


@pytest.mark.parametrize("name", ["multi_label", "regression"])
def test_other_tasks(name: str, opened: Any, texts: list[str]) -> None:
    bundle = opened(name)
    expected = torch.stack([alone(bundle, text) for text in texts])
    torch.testing.assert_close(bundle.logits(texts), expected, atol=1e-5, rtol=0)
    assert len(bundle.predict(texts)) == len(texts)


def rows(path: Path, texts: list[str]) -> list[str]:
    labels = [LABELS[(i * i + i // 3) % 3] for i in range(len(texts))]
    with path.open("w", newline="") as f:
        csv.writer(f).writerows([("text", "label"), *zip(texts, labels, strict=True)])
    return labels


def test_prediction_evaluation_and_training_agree(
    make: Any, encoder: Path, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "CHUNK_ROWS", 64)
    file = tmp_path / "rows.csv"
    texts = [text or "w0" for text in texts]
    labels = rows(file, texts)
    bundle = Bundle.open(make(max_tokens=16, decision=Decision(temperature=2.0)))

    answers = list(bundle.predict_file(str(file)))
    assert answers == bundle.predict(texts)
    scores = bundle.evaluate(str(file))
    right = sum(a["label"] == label for a, label in zip(answers, labels, strict=True))
    assert scores["accuracy"] == pytest.approx(right / len(labels)) and 0 < right < len(labels)

    data = {"train": str(file), "validation": str(file), "test_share": 0, "cache": str(tmp_path / "cache")}
    config = parse({"data": data, "task": {"name": "text_classification", "labels": LABELS}, "train": {"precision": "float32"}})
    prepared = prepare.read(config, {})
    prepare.learn(prepared, config.task)
    prepare.encode(prepared, config, HubTokens.load(str(encoder)), 16)
    part = prepared.slices["validation"].rows
    engine = Engine(Job(make.model, config.task, Plan(part, 16, 512, 1.0, 0), part, config.train, tmp_path / "run"))
    assert engine.evaluate(part, bundle.decision).value() == pytest.approx(scores, abs=1e-6)
    torch.testing.assert_close(engine.outputs(part)[0], bundle.logits(texts), atol=1e-5, rtol=0)


def test_a_file_is_read_with_the_columns_of_training(opened: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"note": "w9", "text": "w1 w2"}\n{"note": "w8", "text": "w3"}\n')
    bundle = opened()
    assert list(bundle.predict_file(str(path))) == bundle.predict(["w1 w2", "w3"])
    path.write_text('{"body": "w1 w2"}\n')
    with pytest.raises(UserError, match="no column 'text'"):
        list(bundle.predict_file(str(path)))
