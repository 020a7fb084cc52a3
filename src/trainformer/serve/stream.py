"""A file through the service: lines in, lines out, in order, in constant memory; a bad line gets an error of its own."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trainformer.serve.gate import Gone, Receive
from trainformer.serve.refusals import Refusal
from trainformer.serve.schemas import Asked
from trainformer.serve.service import Service
from trainformer.serve.settings import ServeSettings

PAUSE = 0.02


@dataclass(frozen=True)
class Options:
    """How all lines of a stream are answered."""

    model: str | None = None
    top_k: int | None = None
    truncate: bool = False


async def lines(receive: Receive, settings: ServeSettings) -> AsyncIterator[bytes]:
    """The lines of a body as they come. Raises Refusal for a line that is too long or too slow."""
    rest, more = b"", True
    while more:
        try:
            async with asyncio.timeout(settings.body_seconds):
                came = await receive()
        except TimeoutError as error:
            raise Refusal(408, "slow_body", f"Nothing had come for {settings.body_seconds:g} s.") from error
        if came["type"] == "http.disconnect":
            raise Gone
        *whole, rest = (rest + came.get("body", b"")).split(b"\n")
        more = came.get("more_body", False)
        for line in whole:
            _refuse_long(line, settings)
            yield line
        _refuse_long(rest, settings)
    if rest:
        yield rest


def _refuse_long(line: bytes, settings: ServeSettings) -> None:
    if len(line) > settings.body_bytes:
        raise Refusal(413, "too_large", f"A line is longer than {settings.body_bytes} bytes.")


async def answers(service: Service, receive: Receive, options: Options) -> AsyncIterator[bytes]:
    """One line for each line that is not empty: `{"line": N, ...prediction}`, with the client's own `id` if it gave one."""
    waiting: deque[asyncio.Task[dict[str, Any]]] = deque()
    number = 0
    try:
        async for line in lines(receive, service.settings):
            number += 1
            if not line.strip():
                continue
            waiting.append(asyncio.create_task(_answer(service, line, options, number)))
            while waiting and (waiting[0].done() or len(waiting) >= service.settings.stream_lines):
                yield _line(await waiting.popleft())
        while waiting:
            yield _line(await waiting.popleft())
    except Refusal as refusal:
        while waiting:
            yield _line(await waiting.popleft())
        yield _line({"line": number + 1, **refusal.body})
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


async def _answer(service: Service, line: bytes, options: Options, number: int) -> dict[str, Any]:
    given: dict[str, Any] = {"line": number}
    try:
        texts, own = _parsed(line)
        given |= own
        asked = Asked(texts=texts, model=options.model, top_k=options.top_k, truncate=options.truncate)
        return given | {"prediction": (await _patient(service, asked))["predictions"][0]}
    except Refusal as refusal:
        return given | refusal.body
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        return given | Refusal(422, "invalid_line", f"The line: {message}.").body


def _parsed(line: bytes) -> tuple[list[Any], dict[str, Any]]:
    """The text or pair of a line, as a list of one, and the client's id. Raises Refusal."""
    form = 'a text in quotation marks, or {"text": "...", "text_b": "...", "id": ...}'
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refusal(422, "invalid_line", f"The line is no JSON; {form} is expected.") from error
    if isinstance(value, str):
        return [value], {}
    if not isinstance(value, dict) or "text" not in value or not set(value) <= {"text", "text_b", "id"}:
        raise Refusal(422, "invalid_line", f"The line is not {form}.")
    own = {"id": value["id"]} if isinstance(value.get("id"), str | int) else {}
    if "id" in value and (not own or len(str(value["id"])) > 200):
        raise Refusal(422, "invalid_line", "The id is a text or a whole number of at most 200 characters.")
    return [[value["text"], value["text_b"]] if "text_b" in value else value["text"]], own


async def _patient(service: Service, asked: Asked) -> dict[str, Any]:
    """A full queue makes a stream wait, and through it the client; nothing is lost and nobody is pushed aside."""
    while True:
        try:
            return await service.predict(asked)
        except Refusal as refusal:
            if refusal.code != "overloaded":
                raise
            await asyncio.sleep(max(PAUSE, (refusal.retry_after or 0) / 4))
