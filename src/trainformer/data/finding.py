"""A finding of the pre-flight check, and the tally that findings are counted with."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
MAX_PLACES = 20
"""Places that a finding names; all are counted."""


@dataclass(frozen=True)
class Finding:
    """What was found: a `code` for programs, a sentence for people, how many rows, their `share` (0..1), the first places."""

    code: str
    severity: Severity
    message: str
    count: int = 0
    share: float = 0.0
    where: list[str] = field(default_factory=list)
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def named(names: list[str]) -> str:
    """The first few names in quotes, and how many more there are."""
    return ", ".join(f"'{name:.40}'" for name in names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")


class Tally:
    """Counts rows by what is wrong with them and keeps the places of the first ones: constant memory."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.places: dict[str, list[str]] = {}

    def add(self, key: str, place: str) -> None:
        self.counts[key] = self.counts.get(key, 0) + 1
        places = self.places.setdefault(key, [])
        if len(places) < MAX_PLACES:
            places.append(place)

    def finding(self, key: str, severity: Severity, what: str, rows: int, fix: str = "") -> list[Finding]:
        """One finding, "what: count", if anything was counted under the key, else none."""
        if key not in self.counts:
            return []
        count = self.counts[key]
        share = count / max(1, rows)
        return [Finding(key, severity, f"{what}: {count} ({100 * share:.1f} %).", count, share, self.places[key], fix)]
