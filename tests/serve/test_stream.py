"""A file through the service: a line for each line, in order, in constant memory."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from trainformer.bundle import Bundle


async def sent(it: Any, content: Any, path: str = "/v1/predict:stream") -> Any:
    return await it.client.post(path, content=content, headers={"content-type": "application/x-ndjson"})


def parsed(response: Any) -> list[Any]:
    return [json.loads(line) for line in response.text.splitlines()]


def test_a_thousand_lines(running: Any, offline: Bundle) -> None:
    texts = [f"{'good' if i % 3 else 'bad'} film {'so ' * (i % 7)}" for i in range(1000)]
    offline.micro_tokens = 1024
    body = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)).encode()

    async def main() -> Any:
        async with running(queue_requests=32, stream_lines=64) as it:
            return await sent(it, body)

    response = asyncio.run(main())
    found = parsed(response)
    assert response.headers["content-type"] == "application/x-ndjson"
    assert [f["id"] for f in found] == list(range(1000)) and [f["line"] for f in found] == list(range(1, 1001))
    assert [f["prediction"]["label"] for f in found] == [a["label"] for a in offline.predict(texts)]


def test_bad_lines_get_errors_of_their_own(running: Any) -> None:
    lines = ['"a film"', "", "{", '{"text": 3}', '{"text": "a", "label": "x"}', '{"text": "a", "text_b": "b"}', '"\\ud800"',
             "[1]", '{"text": "a", "id": {}}', '"' + "good " * 20 + '"', "[" * 100_000,
             '{"id": "last", "text": "so good"}']  # fmt: skip

    async def main() -> Any:
        async with running() as it:
            return await sent(it, "\n".join(lines).encode())

    found = parsed(asyncio.run(main()))
    assert [f["line"] for f in found] == [1, *range(3, 13)]
    assert [f.get("error", {}).get("code") for f in found] == [
        None, "invalid_line", "invalid_line", "invalid_line", "invalid_text", "invalid_line", "invalid_line", "invalid_line",
        "too_long", "invalid_line", None,
    ]  # fmt: skip
    assert found[-1]["id"] == "last" and all(f["error"]["message"].endswith(".") for f in found if "error" in f)


@pytest.mark.parametrize("bytes_at_once", [1, 2, 1000])
def test_empty_lines_and_lines_of_one_byte_count(bytes_at_once: int, running: Any) -> None:
    """However the body is cut on its way: an empty line has a number and no answer, a line of one byte has both."""

    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        for i in range(0, len(body), bytes_at_once):
            yield body[i : i + bytes_at_once]

    async def main() -> Any:
        async with running() as it:
            return [parsed(await sent(it, pieces(body))) for body in (b'"a"\n\n\n"b"\n', b"1\n1", b"1\n\n1\n")]

    texts, ends, gap = asyncio.run(main())
    assert [(f["line"], "prediction" in f) for f in texts] == [(1, True), (4, True)]
    assert [(f["line"], f["error"]["code"]) for f in ends] == [(1, "invalid_line"), (2, "invalid_line")]
    assert [(f["line"], f["error"]["code"]) for f in gap] == [(1, "invalid_line"), (3, "invalid_line")]


def test_options_stand_in_the_address(running: Any) -> None:
    async def main() -> Any:
        async with running() as it:
            long = json.dumps("good " * 20).encode()
            found = await sent(it, long, "/v1/predict:stream?truncate=true&top_k=1&model=reviews")
            wrong = [
                await sent(it, long, f"/v1/predict:stream?{q}") for q in ("model=else", "top_k=0", "top_k=x", "truncate=perhaps")
            ]
            return parsed(found), [r.status_code for r in wrong]

    [found], wrong = asyncio.run(main())
    assert found["prediction"]["cut_tokens"] == 6 and len(found["prediction"]["scores"]) == 1
    assert wrong == [404, 422, 422, 422]


def test_what_is_read_ahead_is_bounded(running: Any) -> None:
    """A source of lines that is asked again only as answers go out: never more than the window ahead of them."""
    given, ahead = [0], []

    async def source() -> Any:
        while given[0] < 1000:
            given[0] += 10
            yield b'"a good film"\n' * 10

    async def main() -> int:
        async with running(stream_lines=50) as it:
            it.worker().seconds = 0.001
            count = 0
            from trainformer.serve.stream import Options, answers

            chunks = source()

            async def receive() -> Any:
                async for chunk in chunks:
                    return {"type": "http.request", "body": chunk, "more_body": True}
                return {"type": "http.request", "body": b"", "more_body": False}

            async for _ in answers(it.service, receive, Options()):
                count += 1
                ahead.append(given[0] - count)
            return count

    assert asyncio.run(main()) == 1000
    assert max(ahead) <= 60


def test_a_line_that_is_too_long_ends_the_stream_with_an_error(running: Any) -> None:
    async def main() -> Any:
        async with running(body_bytes=1000) as it:
            return await sent(it, b'"a film"\n"' + b"x" * 5000)

    found = parsed(asyncio.run(main()))
    assert [f["line"] for f in found] == [1, 2]
    assert found[1]["error"]["code"] == "too_large"
