"""A load generator for a server on this machine: requests at given times, whether or not earlier ones were answered.

It speaks HTTP/1.1 over kept connections with nothing but asyncio, so that it takes little of the processor that it shares with
the server. Loops are bounded in time and in requests under way.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

HOST = "127.0.0.1"
MOST_OPEN = 900
"""Requests under way at most: the server takes 1000 connections."""


@dataclass(frozen=True)
class Got:
    """An answer. Status 0: the connection broke after the request was sent; -1: it was refused before."""

    number: int
    status: int
    seconds: float
    at: float
    body: bytes = b""


class Client:
    """Connections to one port, kept and used again."""

    def __init__(self, port: int):
        self.port = port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, number: int, body: bytes, path: str = "/v1/predict") -> Got:
        began = time.perf_counter()
        head = f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        while True:
            kept = bool(self.idle)
            try:
                reader, writer = self.idle.pop() if kept else await asyncio.open_connection(HOST, self.port)
            except OSError:
                return Got(number, -1, time.perf_counter() - began, began)
            try:
                writer.write(head.encode() + body)
                await writer.drain()
                status, keep, found = await self._read(reader)
            except (OSError, asyncio.IncompleteReadError) as error:
                writer.close()
                if kept and getattr(error, "partial", b"") == b"":
                    continue  # an idle connection that the server had closed: RFC 9110 9.2.2 lets a client try again
                return Got(number, 0, time.perf_counter() - began, began)
            self.idle.append((reader, writer)) if keep else writer.close()
            return Got(number, status, time.perf_counter() - began, began, found)

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(lines.get("content-length", 0)))
        return int(head.split(" ", 2)[1]), lines.get("connection") != "close", body

    async def get(self, path: str) -> bytes:
        """The body of a page. Raises OSError."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n".encode())
            status, _, body = await self._read(reader)
            if status != 200:
                raise OSError(f"{path}: {status}")
            return body
        finally:
            writer.close()

    async def close(self) -> None:
        """Ends the kept connections; a client belongs to the event loop that it has spoken in."""
        writers = [writer for _, writer in self.idle]
        self.idle.clear()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


def bodies(texts: Sequence[str], each: int = 1) -> Iterator[bytes]:
    """Requests of so many texts, over and over; what a model cannot read of one is cut, as it is offline."""
    groups = [texts[i : i + each] for i in range(0, len(texts), each)]
    return cycle([json.dumps({"texts": group, "truncate": True}).encode() for group in groups])


async def open_loop(client: Client, asked: Iterable[bytes], rate: float, seconds: float, seed: int = 0) -> list[Got]:
    """Requests at random times (Poisson), `rate` a second; what would be more than MOST_OPEN under way is not sent."""
    draw, going, done = random.Random(seed), set(), []
    began, due, number, source = time.perf_counter(), 0.0, 0, iter(asked)
    while due < seconds:
        due += draw.expovariate(rate)
        pause = began + due - time.perf_counter()
        if pause > 0.0005:
            await asyncio.sleep(pause)
        elif number % 20 == 0:
            await asyncio.sleep(0)
        if len(going) < MOST_OPEN:
            task = asyncio.create_task(client.post(number, next(source)))
            going.add(task)
            task.add_done_callback(lambda t: (going.discard(t), done.append(t.result())))
        number += 1
    while going:
        await asyncio.wait(going)
    await client.close()
    return sorted(done, key=lambda got: got.number)


async def closed_loop(client: Client, asked: Iterable[bytes], at_once: int, seconds: float) -> list[Got]:
    """So many clients, each of which asks again as soon as it is answered, until nothing is left to ask or the time is over."""
    source, found, end = enumerate(asked), [], time.perf_counter() + seconds

    async def one() -> None:
        for number, body in source:
            found.append(await client.post(number, body))
            if time.perf_counter() > end:
                break

    await asyncio.gather(*(one() for _ in range(at_once)))
    await client.close()
    return found


async def slow(port: int, count: int, seconds: float) -> int:
    """So many clients that send a byte a second; how many connections were open at the end."""
    writers = [(await asyncio.open_connection(HOST, port))[1] for _ in range(count)]
    for writer in writers:
        writer.write(
            f"POST /v1/predict HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n".encode()
        )
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for writer in writers:
            if not writer.is_closing():
                writer.write(b" ")
        await asyncio.sleep(1)
    still = sum(not writer.is_closing() for writer in writers)
    for writer in writers:
        writer.close()
    return still


def percentile(found: Iterable[Got], share: float) -> float:
    """Seconds below which this share of the answered requests lies; nan where none was answered."""
    times = sorted(got.seconds for got in found if got.status == 200)
    return times[min(len(times) - 1, int(share * len(times)))] if times else float("nan")


def statuses(found: Iterable[Got]) -> Counter[int]:
    return Counter(got.status for got in found)
