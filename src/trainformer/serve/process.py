"""A model's process as the service sees it: start, ask, and end it when it hangs."""

import asyncio
import sys
from pathlib import Path
from typing import Any, Protocol

from trainformer.serve import frames

NICE = 10
"""How much a shadow's process stands back."""
STOP_SECONDS = 10
"""What a process gets to end by itself when its input is closed; it has nothing to write then."""


class Lost(Exception):
    """The process ended, or broke the protocol, before it answered."""


class Worker(Protocol):
    """What answers a batch; the tests put one in the place of the process."""

    @property
    def alive(self) -> bool: ...

    async def start(self) -> None: ...

    async def ask(self, asked: dict[str, Any]) -> dict[str, Any]: ...

    async def ended(self) -> None: ...

    async def stop(self, at_once: bool = False) -> None: ...


class Process:
    """One child process at a time; `start` after `stop` begins a new one with the same bundle."""

    def __init__(self, folder: Path, threads: int | None, start_seconds: float, nice: int = 0):
        # -P: a file of the folder that the service was started in is no module, whatever its name
        self.words = [sys.executable, "-P", "-m", "trainformer.serve.worker", str(folder), "--nice", str(nice)]
        self.words += [] if threads is None else ["--threads", str(threads)]
        self.start_seconds = start_seconds
        self.child: asyncio.subprocess.Process | None = None
        self.ready = False

    @property
    def alive(self) -> bool:
        """Whether it has opened its bundle and has not ended."""
        return self.ready and self.child is not None and self.child.returncode is None

    async def begin(self) -> None:
        """Starts it and does not wait: opening the bundle goes on beside whatever else there is to do."""
        pipe = asyncio.subprocess.PIPE
        self.child = await asyncio.create_subprocess_exec(*self.words, stdin=pipe, stdout=pipe)

    async def start(self) -> None:
        """Waits until it is ready. Raises Lost if it ends, or takes too long, before it is."""
        if self.child is None:
            await self.begin()
        try:
            async with asyncio.timeout(self.start_seconds):
                await self._read()
        except TimeoutError as error:
            await self.stop(at_once=True)
            raise Lost(f"it was not ready within {self.start_seconds:.0f} s") from error
        self.ready = True

    async def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The reply to a batch. Raises Lost if the process ends first."""
        if self.child is None or self.child.stdin is None:
            raise Lost("it is not running")
        try:
            self.child.stdin.write(frames.frame(asked))
            await self.child.stdin.drain()
        except OSError as error:
            self.ready = False
            raise Lost("it has ended") from error
        reply: dict[str, Any] = await self._read()
        return reply

    async def _read(self) -> Any:
        assert self.child is not None and self.child.stdout is not None
        try:
            return await frames.read_async(self.child.stdout)
        except (asyncio.IncompleteReadError, ValueError, OSError) as error:
            code = await self.child.wait() if not isinstance(error, ValueError) else None
            self.ready = False
            raise Lost(f"it ended with code {code}" if code is not None else "what it wrote is no message") from error

    async def ended(self) -> None:
        """Waits until the process is no more."""
        if self.child is not None:
            await self.child.wait()

    async def stop(self, at_once: bool = False) -> None:
        """Closes its input, so that it ends when it is done; or kills it."""
        self.ready = False
        child, self.child = self.child, None
        if child is None or child.returncode is not None:
            return
        if at_once:
            child.kill()
        elif child.stdin is not None:
            child.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()
