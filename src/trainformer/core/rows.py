"""What is read: a row of the user's file, and the example that a task makes of it. Strings in, strings out."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it stands in the user's file; file and line are for messages."""

    values: dict[str, Any]
    file: str
    line: int

    @property
    def where(self) -> str:
        return f"{self.file} line {self.line}"


@dataclass(frozen=True, slots=True)
class Example:
    """A row that the task understood. `row` counts from 0 in its file; `target` is what the task made of the label."""

    texts: tuple[str, ...]
    target: Any
    row: int
    weight: float = 1.0
    kind: str = ""
