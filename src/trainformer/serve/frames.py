"""Messages between the service and a model's process: four bytes of length, then JSON. Nothing in them can run."""

import asyncio
import json
from typing import Any, BinaryIO

HEAD = 4


def frame(value: Any) -> bytes:
    """A message as bytes. NaN is refused: it is not JSON."""
    body = json.dumps(value, allow_nan=False).encode()
    return len(body).to_bytes(HEAD) + body


def read(stream: BinaryIO) -> Any:
    """The next message, or None at the end of the stream."""
    head = stream.read(HEAD)
    if len(head) < HEAD:
        return None
    return json.loads(stream.read(int.from_bytes(head)))


async def read_async(stream: asyncio.StreamReader) -> Any:
    """The next message. Raises asyncio.IncompleteReadError at the end of the stream."""
    size = int.from_bytes(await stream.readexactly(HEAD))
    return json.loads(await stream.readexactly(size))
