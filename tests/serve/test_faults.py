"""A model's process that dies or hangs costs its own request; the others of its batch are answered."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from trainformer.bundle import Bundle
from trainformer.serve import process as processes
from trainformer.serve.process import Lost, Process


@pytest.mark.parametrize("word", ["DIE", "HANG", "FAIL"])
def test_one_bad_request_among_twenty(word: str, running: Any) -> None:
    """All in one batch: the bad one gets 500, the nineteen others 200, and the process runs again."""

    async def main() -> Any:
        async with running(hang_seconds=600) as it:
            it.worker().hold.clear()
            tasks = [asyncio.create_task(it.predict("first"))]
            await it.until(lambda: it.worker().batches)
            asked = [f"a good film {i}" for i in range(9)] + [f"a {word} film"] + [f"so bad {i}" for i in range(10)]
            tasks += [asyncio.create_task(it.predict(text)) for text in asked]
            await it.until(lambda: len(it.service.models.find(None).current.lane.queue.open) == 21)
            lane = it.service.models.find(None).current.lane
            lane.settings = lane.settings.model_copy(update={"hang_seconds": 2 if word == "HANG" else 600})
            it.worker().hold.set()
            first, *found = await asyncio.gather(*tasks)
            assert first.status_code == 200
            sizes = [len(b) for b in it.worker().batches]
            return found, sizes, it.worker().starts, (await it.predict("after")).status_code

    found, sizes, starts, after = asyncio.run(main())
    assert [r.status_code for r in found] == [200] * 9 + [500] + [200] * 10
    assert found[9].json()["error"] == {
        "code": "model_failed",
        "message": "The model failed on this request; others were not harmed.",
    }
    assert sizes[:2] == [1, 20] and sizes[2:] == [1] * 20, "after the loss each is tried alone"
    assert starts == (1 if word == "FAIL" else 3) and after == 200


def test_a_process_that_ends_while_idle_is_started_again(running: Any) -> None:
    async def main() -> Any:
        async with running() as it:
            it.worker().die()
            await it.until(lambda: it.worker().alive)
            return it.worker().starts, (await it.predict("a film")).status_code

    assert asyncio.run(main()) == (2, 200)


def test_what_waits_while_a_process_cannot_start_gets_its_deadline(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise Lost("no memory")

    async def main() -> Any:
        async with running() as it:
            monkeypatch.setattr(it.worker(), "start", broken)
            it.worker().die()
            late = await it.predict("a film", deadline_ms=200)
            ready = await it.client.get("/health/ready")
            return late.status_code, ready.status_code

    assert asyncio.run(main()) == (504, 503)


def test_the_real_process(bundle: Path, offline: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers equal the bundle's; killed, it raises Lost and starts again; closed, it ends by itself with code 0."""

    monkeypatch.setattr(processes, "STOP_SECONDS", 600)

    async def main() -> Any:
        process = Process(bundle, 1, 600)
        await process.start()
        assert process.child is not None
        asked = {"texts": [["a good film"], ["so bad"]], "embed": [1]}
        reply = await process.ask(asked)
        for ignored in (signal.SIGTERM, signal.SIGINT):
            process.child.send_signal(ignored)
        again = await process.ask(asked)
        os.kill(process.child.pid, signal.SIGKILL)
        with pytest.raises(Lost):
            await process.ask(asked)
        gone = process.alive
        await process.stop()
        await process.start()
        third, child = await process.ask(asked), process.child
        await process.stop()
        return reply, again, gone, third, child.returncode

    reply, again, gone, third, code = asyncio.run(main())
    assert reply["answers"] == again["answers"] == third["answers"]
    for answer, wanted in zip(reply["answers"], offline.predict(["a good film", "so bad"]), strict=True):
        assert answer["label"] == wanted["label"] and answer["scores"] == pytest.approx(wanted["scores"], abs=1e-5)
    assert len(reply["embeddings"]) == 1 and len(reply["embeddings"][0]) == 32
    assert (gone, code) == (False, 0)


def test_a_folder_that_is_no_bundle_is_lost_at_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(Lost, match="it ended with code 1"):
            await Process(tmp_path, 1, 600).start()

    asyncio.run(main())
