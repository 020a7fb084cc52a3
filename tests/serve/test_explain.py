"""Which words an answer hangs on: what is lost without each, and no more than is asked for."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainformer.bundle import Bundle
from trainformer.core.files import write_manifest
from trainformer.serve.explain import Word, explanation, without, words

TEXT = "a good film so good"


def asked(
    running: Any, texts: Any, bundles: dict[str, Path] | None = None, settings: dict[str, Any] | None = None, **more: Any
) -> Any:
    async def main() -> Any:
        async with running(bundles, **(settings or {})) as it:
            return await it.predict(texts, explain=True, **more)

    return asyncio.run(main())


def test_words_stand_between_blanks_and_ideographs_alone() -> None:
    assert words((" a  film,\n", "好片 ok")) == [Word(0, 1, 2), Word(0, 4, 9), Word(1, 0, 1), Word(1, 1, 2), Word(1, 3, 5)]
    assert without(("a film", "好片"), Word(1, 0, 1)) == ("a film", "片") and without(("a film",), Word(0, 2, 6)) == ("a ",)
    assert words(("",)) == [] and words((" \n",)) == []


def test_the_score_is_what_is_lost_without_the_word() -> None:
    """Of the label that was said; of the likeliest where the model abstains or says several; of the number."""
    one, two = {"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.8}
    place = [Word(0, 0, 1)]
    for label, of, score in (("a", "a", 0.7), ("b", "b", -0.7), (None, "a", 0.7), (["b"], "a", 0.7)):
        found = explanation(place, {"label": label, "scores": one}, [{"label": "b", "scores": two}])
        assert found["of"] == of and found["words"] == [{"text": 0, "start": 0, "end": 1, "score": pytest.approx(score)}]
    found = explanation(place, {"label": 3.0, "scores": {}}, [{"label": 4.5, "scores": {}}])
    assert found["of"] is None and found["words"][0]["score"] == -1.5


def test_a_text_of_too_many_words_is_not_copied_for_each(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainformer.serve.explain.without", None)  # called, it would raise
    response = asked(running, ["a " * 2000])
    assert response.status_code == 413 and "The texts have 2000 words" in response.json()["error"]["message"]


def test_each_word_of_a_text_as_offline(running: Any, offline: Bundle) -> None:
    """Both texts of a request, each with its own words; the rest of the answer is as without."""
    found = asked(running, [TEXT, "bad"]).json()["predictions"]
    for text, prediction in zip((TEXT, "bad"), found, strict=True):
        whole = offline.predict(text)[0]
        assert prediction["label"] == whole["label"] and prediction["scores"] == pytest.approx(whole["scores"], abs=1e-5)
        told = prediction["explanation"]
        assert told["of"] == whole["label"] and [text[w["start"] : w["end"]] for w in told["words"]] == text.split()
        for word in told["words"]:
            less = offline.predict(text[: word["start"]] + text[word["end"] :])[0]
            expected = whole["scores"][told["of"]] - less["scores"][told["of"]]
            assert word["score"] == pytest.approx(expected, abs=1e-5)


def test_a_model_that_knows_one_word(make: Callable[..., Path], running: Any) -> None:
    """All other tokens are the same to it, wherever they stand: without that word nothing matters, with it that word most."""
    folder = make()
    weights = load_file(folder / "model.safetensors")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    table = next(t for n, t in weights.items() if n.endswith("word_embeddings.weight"))
    torch.manual_seed(3)
    table[:], table[vocabulary["good"]] = torch.randn(table.shape[1]), torch.randn(table.shape[1])
    next(t for n, t in weights.items() if n.endswith("position_embeddings.weight")).zero_()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_manifest(folder)
    rest = "a film so very " * 3
    answers = asked(running, [f"{rest}good", f"{rest}bad"], {"m": folder}).json()["predictions"]
    told, other = [[w["score"] for w in each["explanation"]["words"]] for each in answers]
    assert other == pytest.approx([0] * 13, abs=1e-5)
    assert abs(told[12]) > 1e-3 and abs(told[12]) > 2 * max(map(abs, told[:12]))
    assert max(told[:12]) - min(told[:12]) < 1e-5, "which of the same words is left out does not matter"
    whole, less = Bundle.open(folder).predict([f"{rest}good", rest])
    assert told[12] == pytest.approx(whole["score"] - less["scores"][whole["label"]], abs=1e-5)


def test_pairs_and_numbers(make: Callable[..., Path], running: Any) -> None:
    pair = asked(running, [["a film", "so bad"]], {"m": make("text_pair")}).json()["predictions"][0]["explanation"]
    assert [(w["text"], w["start"], w["end"]) for w in pair["words"]] == [(0, 0, 1), (0, 2, 6), (1, 0, 2), (1, 3, 6)]
    folder = make("regression")
    number = asked(running, TEXT, {"m": folder}).json()["predictions"][0]
    whole, less = Bundle.open(folder).predict([TEXT, "a  film so good"])
    assert number["explanation"]["of"] is None
    assert number["explanation"]["words"][1]["score"] == pytest.approx(whole["label"] - less["label"], abs=1e-4)


def test_it_is_bounded_as_other_texts_are(running: Any) -> None:
    """Words count as texts and tokens do; a text that is cut is explained as far as it was read."""
    many = asked(running, TEXT, settings={"texts": 4})
    assert (many.status_code, many.json()["error"]["code"]) == (413, "too_many_texts")
    full = asked(running, TEXT, settings={"queue_tokens": 20})
    assert (full.status_code, full.json()["error"]["code"]) == (413, "too_many_tokens")
    cut = asked(running, "good " * 20, truncate=True).json()["predictions"][0]
    assert cut["cut_tokens"] == 6 and len(cut["explanation"]["words"]) == 20


def test_who_does_not_ask_gets_none(running: Any) -> None:
    async def main() -> Any:
        async with running() as it:
            found = (await it.predict(TEXT)).json()["predictions"][0]
            return found, it.worker().batches

    found, batches = asyncio.run(main())
    assert "explanation" not in found and batches == [[TEXT]]
