"""Examples that go through a model together: neighbours within a budget of tokens."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar


class Long(Protocol):
    """What has a length: the tokens of each of its sequences, and of all."""

    @property
    def lengths(self) -> list[int]: ...

    @property
    def tokens(self) -> int: ...


T = TypeVar("T", bound=Long)


def grouped(items: Iterable[T], micro_tokens: int, padded: bool = False) -> Iterator[list[T]]:
    """Neighbours that together stay within the budget of tokens (padded: with their padding); order is kept."""
    group: list[T] = []
    for item in items:
        if group and _cost([*group, item], padded) > micro_tokens:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _cost(group: list[T], padded: bool) -> int:
    if not padded:
        return sum(e.tokens for e in group)
    lengths = [n for e in group for n in e.lengths]
    return len(lengths) * max(lengths)
