"""Where the sequences of a packed batch lie, and which of them attention takes together."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

SHORT_TOKENS = 256
"""Up to this length neighbours of unequal length are padded to go through attention together."""
WASTE = 4096
"""Most scores of padding that a group may have: computing them costs about as much as one more group would."""


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbours that go through attention together, from token `start` on."""

    start: int
    lengths: tuple[int, ...]

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def width(self) -> int:
        """Places for each sequence: a multiple of 8, so that few shapes of product have to be compiled."""
        return -(-self.longest // 8) * 8


@dataclass(frozen=True, slots=True)
class Places:
    """How rows "T*H" of a packed tensor are laid out as "S H L", and back.

    `index` "S*H*L": the row of each place (padding reads its sequence's first). `real` "S L": which places are no
    padding; None: all are.
    """

    index: Tensor
    real: Tensor | None


@dataclass(frozen=True)
class Layout:
    """Lengths of the sequences of a batch, in order, and their groups."""

    lengths: tuple[int, ...]
    groups: tuple[Group, ...]
    _places: dict[tuple[int, str], tuple[list[Places], Tensor]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, lengths: list[int]) -> "Layout":
        """
        >>> [g.lengths for g in Layout.of([3, 3, 2, 300, 300, 299]).groups]
        [(3, 3, 2), (300, 300), (299,)]
        """
        return cls(tuple(lengths), tuple(_grouped(lengths)))

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def places(self, heads: int, device: torch.device) -> tuple[list[Places], Tensor]:
        """The places of each group, and for each row "T*H" its place among all groups' places laid end to end."""
        key = (heads, str(device))
        if key not in self._places:
            found = [_places(group, heads) for group in self.groups]
            back = torch.empty(self.tokens * heads, dtype=torch.long)
            begun = 0
            for places in found:
                count = len(places.index)
                kept = torch.arange(count) + begun
                if places.real is None:
                    back[places.index] = kept
                else:
                    real = places.real[:, None].expand(-1, heads, -1).reshape(-1)
                    back[places.index[real]] = kept[real]
                begun += count
            moved = [Places(p.index.to(device), None if p.real is None else p.real.to(device)) for p in found]
            self._places[key] = (moved, back.to(device))
        return self._places[key]


def _places(group: Group, heads: int) -> Places:
    lengths = torch.tensor(group.lengths)
    starts = group.start + lengths.cumsum(0) - lengths
    place = torch.arange(group.width)
    real = place < lengths[:, None]
    token = starts[:, None] + place * real
    index = (token[:, None] * heads + torch.arange(heads)[:, None]).reshape(-1)
    return Places(index, None if real.all() else real)


def _grouped(lengths: list[int]) -> Iterator[Group]:
    """Neighbours as long as their padding stays cheap; long sequences only with those of their very length."""
    start, longest, squares = 0, 0, 0
    group: list[int] = []
    for length in lengths:
        longest = max(longest, length)
        waste = (len(group) + 1) * longest**2 - squares - length**2
        if group and waste > (WASTE if longest <= SHORT_TOKENS else 0):
            yield Group(start, tuple(group))
            start, group, longest, squares = start + sum(group), [], length, 0
        group.append(length)
        squares += length**2
    if group:
        yield Group(start, tuple(group))
