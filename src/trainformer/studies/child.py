"""The study's end of a trial's process: starts it, hears it, answers it, stops it."""

import fcntl
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from trainformer.core.errors import UserError
from trainformer.core.files import write_json

OUTPUT = "output.txt"
GRACE_S = 60.0
"""How long a trial that is told to stop may take to save where it stands."""


class Child:
    """A running trial. Use it in a `with`: whatever happens, no process stays behind."""

    def __init__(self, folder: Path, values: dict[str, Any]):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "trial.json", values)
        self.folder, self.heard = folder, Queue[dict[str, Any] | None]()
        self.stopping = False
        command = [sys.executable, "-P", "-m", "trainformer.studies.trial", str(folder)]
        with (folder / OUTPUT).open("a", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True, encoding="utf-8",
                start_new_session=True,
            )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):  # a killed process may leave half a line
                self.heard.put(json.loads(line))
        self.heard.put(None)

    def next(self, seconds: float) -> dict[str, Any] | None:
        """The next message, {"kind": "quiet"} if none comes in time, None when the process has ended."""
        try:
            return self.heard.get(timeout=seconds)
        except Empty:
            return {"kind": "quiet"}

    def answer(self, stop: bool) -> None:
        """Answers a message that asks."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"stop": stop}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died meanwhile: `next` will say so

    def stop(self) -> None:
        """Asks it to save where it stands and end; kills it if it does not."""
        if not self.stopping:
            self.stopping = True
            self.process.terminate()
            last = threading.Timer(GRACE_S, self.process.kill)
            last.daemon = True
            last.start()

    def last_words(self) -> str:
        """The last line of what it said: the error of a trial that died."""
        said = (self.folder / OUTPUT).read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(said) if line.strip()), "it said nothing")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside, no other search works in the folder. Raises UserError if one does. The lock goes with the process."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                "another search is at work in this folder.", where=f"--out {folder}", fix="Wait for its end."
            ) from error
        yield
