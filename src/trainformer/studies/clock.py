"""The time that a study has used in its folder, over all its sessions; a killed session loses a few seconds of it at most."""

import json
import time
from pathlib import Path

from trainformer.core.files import write_json


class Clock:
    """Seconds used and left. `reserve` is kept for shipping the winner: it is opened, scored and written like a run."""

    def __init__(self, path: Path, minutes: float | None):
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.path, self.budget = path, None if minutes is None else 60 * minutes
        self.before: float = told.get("seconds", 0.0)
        self.reserve: float = told.get("reserve", 0.0)
        self.began = time.monotonic()

    def used(self) -> float:
        return self.before + time.monotonic() - self.began

    def left(self) -> float:
        """Infinite where there is no budget."""
        return float("inf") if self.budget is None else self.budget - self.reserve - self.used()

    def keep(self) -> None:
        """Writes the time down."""
        write_json(self.path, {"seconds": round(self.used(), 1), "reserve": round(self.reserve, 1)})
