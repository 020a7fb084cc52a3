"""Answers over HTTP are those of the bundle: each exactly once, in order, whatever else is asked at the time."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainformer.bundle import Bundle

WORDS = ["good", "fine", "lovely", "bad", "dull", "poor", "a", "the", "film", "story", "was", "and", "it", "plot", "so", "one"]


def texts(count: int, most: int = 12, seed: int = 0) -> list[str]:
    draw = torch.Generator().manual_seed(seed)
    sizes = (1 + torch.randint(most, (count,), generator=draw)).tolist()
    return [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (n,), generator=draw).tolist()) for n in sizes]


def test_three_thousand_requests_at_once(running: Any, offline: Bundle) -> None:
    """Of 1 to 4 texts each, 100 at a time: labels equal, scores within 1e-5, ids unlike, every text in one batch and one only."""
    asked = texts(6000)
    groups, start = [], 0
    while start < len(asked):
        groups.append(asked[start : start + 1 + len(groups) % 4])
        start += len(groups[-1])
    expected = iter(offline.predict(asked))

    async def main() -> tuple[list[Any], list[int], int]:
        async with running(batch_tokens=256, embed_every=1_000_000) as it:
            gate = asyncio.Semaphore(100)

            async def one(group: list[str]) -> Any:
                async with gate:
                    return await it.predict(group)

            found = await asyncio.gather(*(one(group) for group in groups))
            sizes = [len(batch) for batch in it.worker().batches]
            return found, sizes, sum(len(p.json()["predictions"]) for p in found)

    found, sizes, answered = asyncio.run(main())
    ids = set()
    for group, response in zip(groups, found, strict=True):
        assert response.status_code == 200
        body = response.json()
        ids |= {p["id"] for p in body["predictions"]}
        for text, prediction in zip(group, body["predictions"], strict=True):
            wanted = next(expected)
            assert prediction["label"] == wanted["label"]
            assert prediction["scores"] == pytest.approx(wanted["scores"], abs=1e-5)
            assert (prediction["cut_tokens"], prediction["tokens"]) == (0, len(text.split()))
    assert len(groups) == 2400
    assert len(ids) == answered == sum(sizes) == 6000
    assert max(sizes) > 10, "requests that wait are joined"


def test_a_batch_has_no_more_tokens_than_allowed(running: Any) -> None:
    """Texts of 1 to 12 words and 2 special tokens; 64 tokens at once; longest first."""

    async def main() -> list[list[str]]:
        async with running(batch_tokens=64) as it:
            assert (await it.predict(texts(300))).status_code == 200
            return list(it.worker().batches)

    batches = asyncio.run(main())
    counts = [[len(text.split()) + 2 for text in batch] for batch in batches]
    assert all(sum(c) <= 64 and c == sorted(c, reverse=True) for c in counts)
    assert len(counts) < 1.25 * sum(map(sum, counts)) / 64, "they are nearly full"


def test_the_shape_of_an_answer(running: Any) -> None:
    async def main() -> Any:
        async with running() as it:
            return await it.predict("a good film", top_k=2)

    response = asyncio.run(main())
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert (response.headers["cache-control"], response.headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert list(body) == ["model", "version", "id", "predictions"]
    assert body["model"] == "reviews" and len(body["version"]) == 12
    [prediction] = body["predictions"]
    assert list(prediction) == ["id", "label", "score", "scores", "cut_tokens", "tokens"]
    assert prediction["id"] == f"{body['id']}-0"
    assert len(prediction["scores"]) == 2 and next(iter(prediction["scores"])) == prediction["label"]


def test_a_long_text_is_refused_unless_truncate(running: Any, offline: Bundle) -> None:
    """16 tokens hold 14 words."""
    long = " ".join(["good"] * 20)

    async def main() -> tuple[Any, Any]:
        async with running() as it:
            return await it.predict(["a film", long]), await it.predict(["a film", long], truncate=True)

    refused, cut = asyncio.run(main())
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert (error["code"], error["text"], error["tokens"], error["read"]) == ("too_long", 2, 20, 14)
    assert error["message"] == "Text 2 has 20 tokens, and the model reads 14 of them. Send it shorter, or say truncate: true."
    first, second = cut.json()["predictions"]
    assert (first["tokens"], first["cut_tokens"], second["tokens"], second["cut_tokens"]) == (2, 0, 14, 6)
    assert second["label"] == offline.predict(long)[0]["label"]


@pytest.mark.parametrize("name", ["text_pair", "multi_label", "regression"])
def test_other_tasks(name: str, running: Any, make: Callable[..., Path]) -> None:
    folder = make(name)
    asked: list[Any] = [["a film", "good"], ["so dull", "a plot"]] if name == "text_pair" else ["a film", "so very dull"]

    async def main() -> Any:
        async with running({"one": folder}) as it:
            return await it.predict(asked)

    found = asyncio.run(main()).json()["predictions"]
    for prediction, wanted in zip(found, Bundle.open(folder).predict(asked), strict=True):
        assert prediction["score"] == (None if wanted["score"] is None else pytest.approx(wanted["score"], abs=1e-5))
        assert prediction["label"] == (pytest.approx(wanted["label"], abs=1e-5) if name == "regression" else wanted["label"])


def test_several_models_by_name(running: Any, bundle: Path, other: Path) -> None:
    async def main() -> tuple[Any, ...]:
        async with running({"one": bundle, "two": other}) as it:
            answers = [await it.predict("a good film", **asked) for asked in ({}, {"model": "two"}, {"model": "twO"})]
            return *answers, await it.client.get("/v1/models"), await it.client.get("/v1/models/two")

    first, second, wrong, listed, card = asyncio.run(main())
    assert (first.json()["model"], second.json()["model"]) == ("one", "two")
    assert first.json()["version"] != second.json()["version"]
    assert second.json()["predictions"][0]["scores"] == pytest.approx(
        Bundle.open(other).predict("a good film")[0]["scores"], abs=1e-5
    )
    assert wrong.status_code == 404 and "Did you mean 'two'?" in wrong.json()["error"]["message"]
    assert [m["name"] for m in listed.json()["models"]] == ["one", "two"]
    assert listed.json()["models"][0]["labels"] == ["bad", "good", "so-so"]
    assert card.json()["card"] == "# A model\n"


def test_the_document_of_the_api(running: Any) -> None:
    async def main() -> Any:
        async with running() as it:
            return (await it.client.get("/openapi.json")).json()

    document = asyncio.run(main())
    assert {"/v1/predict", "/v1/predict:stream", "/v1/models", "/health/live", "/health/ready", "/metrics"} <= set(
        document["paths"]
    )
    schemas = document["components"]["schemas"]
    assert schemas["Asked"]["examples"] and schemas["Answered"]["examples"] and schemas["Refused"]["examples"]
    assert {"401", "413", "422", "429", "504"} <= set(document["paths"]["/v1/predict"]["post"]["responses"])
    json.dumps(document, allow_nan=False)
