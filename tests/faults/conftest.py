"""A shim around every operation that changes the disk: it counts them, makes one fail, or ends the process at one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

OPERATIONS = ("open", "write", "fsync", "rename", "replace", "unlink", "rmdir", "mkdir", "chmod")
SHORT_BYTES = 300
"""The disk takes so much at a time: a file is several writes."""


class Crash(BaseException):
    """The process is gone: nothing after it touches the disk, no cleaning up either."""


class Shim:
    """Counts operations that change the disk; the one of number `at` raises `error`, or ends it all."""

    def __init__(self, at: int, error: int | None):
        self.at, self.error, self.done, self.names = at, error, False, []
        self.real = {name: getattr(os, name) for name in OPERATIONS}
        self.unsynced: dict[int, str] = {}
        """Files that were written and not flushed yet: after a loss of power a part of them is gone."""

    def call(self, name: str, *given: Any, **words: Any) -> Any:
        if name == "open" and not given[1] & os.O_WRONLY:
            return self.real["open"](*given, **words)
        if self.done and self.error is None:
            raise Crash
        self.names.append(name)
        if len(self.names) == self.at:
            self.done = True
            if self.error is not None:
                raise OSError(self.error, os.strerror(self.error))
            if name == "write":
                self.real["write"](given[0], given[1][:1])
            for path in self.unsynced.values():
                os.truncate(path, os.path.getsize(path) // 2)
            raise Crash
        return self._through(name, *given, **words)

    def _through(self, name: str, *given: Any, **words: Any) -> Any:
        if name == "write":
            given = (given[0], given[1][:SHORT_BYTES])
            self.unsynced[given[0]] = f"/proc/self/fd/{given[0]}"
        if name == "fsync":
            self.unsynced.pop(given[0], None)
            return None  # nobody cuts the power here, and waiting for the disk is what takes time
        return self.real[name](*given, **words)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`with disk(at=3, error=errno.EIO) as shim`: the third operation fails; without an error the process ends there."""

    @contextmanager
    def sick(at: int = 0, error: int | None = None) -> Iterator[Shim]:
        shim = Shim(at, error)
        with monkeypatch.context() as patch:
            for name in OPERATIONS:
                patch.setattr(os, name, lambda *a, _n=name, **k: shim.call(_n, *a, **k))
            yield shim

    return sick
