"""What is too much is refused at once, with the words that tell when to come back; what is accepted is answered."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from trainformer.serve.queue import ticket
from trainformer.serve.refusals import Refusal

TEXT = "a good film"
"""Three words and two special tokens."""


def post(it: Any, content: Any, **headers: str) -> Any:
    return it.client.post("/v1/predict", content=content, headers={"content-type": "application/json", **headers})


def test_a_full_queue_refuses_and_says_when(running: Any) -> None:
    """Batches of one, 4 requests at a time: of 20 at once 4 are answered and 16 get 429; then all is as before."""

    async def main() -> tuple[list[Any], Any]:
        async with running(queue_requests=4, batch_tokens=5) as it:
            it.worker().hold.clear()
            asked = [asyncio.create_task(it.predict(TEXT)) for _ in range(20)]
            await it.until(lambda: sum(task.done() for task in asked) == 16)
            it.worker().hold.set()
            return list(await asyncio.gather(*asked)), await it.predict(TEXT)

    found, after = asyncio.run(main())
    assert Counter(r.status_code for r in found) == {200: 4, 429: 16}
    refused = next(r for r in found if r.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "overloaded"
    assert after.status_code == 200


def test_a_body_is_not_read_where_there_is_no_room(running: Any) -> None:
    """To read it costs more than to refuse it: what is no JSON gets 429 while the queue is full, and 400 afterwards."""

    async def main() -> tuple[list[int], int]:
        async with running(queue_requests=1, batch_tokens=5) as it:
            it.worker().hold.clear()
            asked = asyncio.create_task(it.predict(TEXT))
            await it.until(lambda: it.worker().batches)
            full = [await post(it, "{"), await post(it, "{", **{"content-type": "text/plain"}), await it.client.get("/metrics")]
            it.worker().hold.set()
            await asked
            return [answer.status_code for answer in full], (await post(it, "{")).status_code

    assert asyncio.run(main()) == ([429, 415, 200], 400)


def test_the_queue_is_bounded_in_tokens(running: Any) -> None:
    """50 tokens wait at most: 10 texts of 5. The first goes to the model at once."""

    async def main() -> Counter[int]:
        async with running(queue_tokens=50, batch_tokens=5) as it:
            it.worker().hold.clear()
            asked = [asyncio.create_task(it.predict(TEXT))]
            await it.until(lambda: it.worker().batches)
            asked += [asyncio.create_task(it.predict(TEXT)) for _ in range(15)]
            await it.until(lambda: sum(task.done() for task in asked) == 5)
            it.worker().hold.set()
            return Counter(r.status_code for r in await asyncio.gather(*asked))

    assert asyncio.run(main()) == {200: 11, 429: 5}


def test_what_never_fits_is_413(running: Any) -> None:
    async def main() -> Any:
        async with running(queue_tokens=50, texts=30) as it:
            return await it.predict([TEXT] * 11), await it.predict([TEXT] * 31)

    tokens, texts = asyncio.run(main())
    assert (tokens.status_code, tokens.json()["error"]["code"]) == (413, "too_many_tokens")
    assert tokens.json()["error"]["message"].startswith("The texts have 55 tokens together, and at most 50 fit")
    assert (texts.status_code, texts.json()["error"]["code"]) == (413, "too_many_texts")


def test_a_request_that_cannot_be_answered_in_time_is_not_begun(running: Any) -> None:
    """By the rate that was measured the queue takes seconds; a request that has 10 ms is told so at once."""

    async def main() -> Any:
        async with running(batch_tokens=5) as it:
            lane = it.service.models.find(None).current.lane
            it.worker().hold.clear()
            lane.queue.rate = 10.0
            waiting = [asyncio.create_task(it.predict(TEXT)) for _ in range(4)]
            await it.until(lambda: len(lane.queue.open) == 4 and lane.queue.tokens == 15)
            refused = await it.predict(TEXT, deadline_ms=10)
            it.worker().hold.set()
            return refused, [r.status_code for r in await asyncio.gather(*waiting)]

    refused, others = asyncio.run(main())
    assert (refused.status_code, others) == (429, [200] * 4)
    assert int(refused.headers["retry-after"]) >= 1


def test_a_deadline_that_is_over_before_the_queue_is_504(running: Any) -> None:
    """Nothing waits, so it is not the queue that is full."""

    async def main() -> None:
        async with running() as it:
            queue = it.service.models.find(None).current.lane.queue
            late = ticket([("a film",)], [4], asyncio.get_running_loop().time() - 1)
            queue.put(late)
            queue.close(late)
            with pytest.raises(Refusal) as caught:
                await it.service.models.find(None).current.lane.ask(ticket([("a film",)], [4], late.deadline))
            assert (caught.value.status, caught.value.code, queue.tokens) == (504, "deadline", 0)

    asyncio.run(main())


def test_a_deadline_is_kept_and_what_it_leaves_is_not_run(running: Any) -> None:
    async def main() -> Any:
        async with running(batch_tokens=5) as it:
            it.worker().hold.clear()
            first = asyncio.create_task(it.predict("a film"))
            await it.until(lambda: it.worker().batches)
            late = await it.predict("so late", deadline_ms=50)
            it.worker().hold.set()
            await first
            await it.predict("after")
            lane = it.service.models.find(None).current.lane
            return late, it.worker().batches, (lane.queue.tokens, len(lane.queue.open))

    late, batches, left = asyncio.run(main())
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline")
    assert batches == [["a film"], ["after"]] and left == (0, 0)


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large_is_refused_before_it_is_parsed(
    declared: bool, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Declared, not a byte of it is read; in pieces, no more than the limit and the piece that goes beyond."""
    read = []

    async def pieces() -> Any:
        for _ in range(100):
            read.append(1000)
            yield b'"' + b"x" * 999

    async def main() -> Any:
        async with running(body_bytes=5000) as it:
            real, parsed = json.loads, []
            monkeypatch.setattr("json.loads", lambda *a, **k: parsed.append(a) or real(*a, **k))
            extra = {"content-length": "100000"} if declared else {}
            response = await post(it, pieces(), **extra)
            return response, list(parsed)

    response, parsed = asyncio.run(main())
    assert response.status_code == 413 and parsed == []
    assert response.json()["error"]["code"] == "too_large"
    assert sum(read) <= 7000


def test_a_slow_body_is_given_up(running: Any) -> None:
    async def pieces() -> Any:
        yield b'{"texts"'
        await asyncio.sleep(5)
        yield b': "a"}'

    async def main() -> Any:
        async with running(body_seconds=0.1) as it:
            return await post(it, pieces())

    response = asyncio.run(main())
    assert (response.status_code, response.json()["error"]["code"]) == (408, "slow_body")


def test_drain_answers_what_was_accepted_and_refuses_what_comes_after(running: Any) -> None:
    async def main() -> Any:
        async with running(batch_tokens=5, drain_seconds=20) as it:
            it.worker().hold.clear()
            accepted = [asyncio.create_task(it.predict(TEXT)) for _ in range(20)]
            await it.until(lambda: len(it.service.models.find(None).current.lane.queue.open) == 20)
            ending = asyncio.create_task(it.service.stop())
            await asyncio.sleep(0)
            ready = await it.client.get("/health/ready")
            live = await it.client.get("/health/live")
            it.worker().hold.set()
            await ending
            it.service.store = type(it.service.store).sqlite(it.service.models.state / "again.sqlite", 10)
            it.service.watch.store = it.service.store
            return await asyncio.gather(*accepted), ready, live, await it.predict(TEXT)

    accepted, ready, live, late = asyncio.run(main())
    assert [r.status_code for r in accepted] == [200] * 20
    assert (ready.status_code, live.status_code, late.status_code) == (503, 200, 503)
    assert late.json()["error"]["code"] == "stopping"
    assert ready.headers["connection"] == "close"
