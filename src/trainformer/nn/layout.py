"""Where the sequences of a packed batch lie, and which of them attention takes together."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

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
        groups = _together([(n, n) for n in lengths])
        return cls(tuple(lengths), _placed([tuple(n for n, _ in group) for group in groups]))

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def starts(self) -> tuple[int, ...]:
        """The first token of each sequence."""
        return tuple(accumulate(self.lengths[:-1], initial=0))

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


def paired(lengths: list[int], others: list[int]) -> tuple[Layout, Layout]:
    """The layouts of sequences that attend to others, one to one: group by group they hold the same pairs.

    >>> [[g.lengths for g in layout.groups] for layout in paired([2, 3, 300], [4, 4, 5])]
    [[(2, 3), (300,)], [(4, 4), (5,)]]
    """
    groups = list(_together(list(zip(lengths, others, strict=True))))
    own, across = ([tuple(pair[side] for pair in group) for group in groups] for side in (0, 1))
    return Layout(tuple(lengths), _placed(own)), Layout(tuple(others), _placed(across))


def _placed(groups: list[tuple[int, ...]]) -> tuple[Group, ...]:
    starts = accumulate((sum(lengths) for lengths in groups), initial=0)
    return tuple(Group(start, lengths) for start, lengths in zip(starts, groups, strict=False))


def _together(pairs: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Neighbours (queries, keys) as long as their padding stays cheap; long ones only with those of their very lengths."""
    group: list[tuple[int, int]] = []
    most, scores = (0, 0), 0
    for pair in pairs:
        most = max(most[0], pair[0]), max(most[1], pair[1])
        waste = (len(group) + 1) * most[0] * most[1] - scores - pair[0] * pair[1]
        if group and waste > (WASTE if max(most) <= SHORT_TOKENS else 0):
            yield group
            group, most, scores = [], pair, 0
        group.append(pair)
        scores += pair[0] * pair[1]
    if group:
        yield group
