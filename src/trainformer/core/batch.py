"""What flows: an example becomes encoded sequences, and these a packed batch. Letters: core/shapes.py."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from torch import Tensor

from trainformer.core.rows import Example as Example
from trainformer.core.rows import Row as Row


@dataclass(frozen=True, slots=True)
class Part:
    """Sequences of one example, end to end: ids "T", a length each, token types "T" where the model has them."""

    ids: Tensor
    lengths: list[int]
    kinds: Tensor | None = None
    chars: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token sequences, unpadded. `target` is 1-D; `units` of its loss; `cut_tokens` were not taken.

    `bytes`: how many bytes of text its units tell, where that is counted.
    """

    parts: tuple[Part, ...]
    target: Tensor
    row: int
    weight: float = 1.0
    units: int = 1
    at: Tensor | None = None
    kind: str = ""
    cut_tokens: int = 0
    bytes: int = 0

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence of the first part."""
        return self.parts[0].lengths

    @property
    def tokens(self) -> int:
        return sum(sum(p.lengths) for p in self.parts)


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences laid end to end. ids "T", lengths of the S sequences, owner "S": the example each belongs to.

    `shift` "T E" is added to the token embeddings, which are E wide: noise, or an adversary's move.
    """

    ids: Tensor
    lengths: list[int]
    owner: Tensor
    kinds: Tensor | None = None
    chars: Tensor | None = None
    shift: Tensor | None = None

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def starts(self) -> list[int]:
        return [0, *accumulate(self.lengths)]

    def to(self, device: torch.device) -> "Packed":
        move = [None if t is None else t.to(device, non_blocking=True) for t in (self.kinds, self.chars, self.shift)]
        return Packed(self.ids.to(device), self.lengths, self.owner.to(device), *move)


@dataclass(frozen=True, slots=True)
class Batch:
    """B whole examples. No mask, no padding: `units` "B+1" are where each example's loss units start.

    `target` is all targets end to end, `weight` "U", `at` "U": the token where each unit is read (None: the sequence).
    """

    parts: tuple[Packed, ...]
    target: Tensor
    weight: Tensor
    rows: list[int]
    units: list[int]
    at: Tensor | None = None
    kind: str = ""
    examples: list[Encoded] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tokens(self) -> int:
        return sum(len(p.ids) for p in self.parts)

    def to(self, device: torch.device) -> "Batch":
        at = None if self.at is None else self.at.to(device)
        parts = tuple(p.to(device) for p in self.parts)
        target, weight = self.target.to(device), self.weight.to(device)
        return Batch(parts, target, weight, self.rows, self.units, at, self.kind, self.examples)


def pack(items: Sequence[Encoded]) -> Batch:
    """Lays examples end to end, in the order given. All are of one kind and have the same number of parts.

    >>> one = Encoded((Part(torch.tensor([5, 6]), [2]),), torch.tensor([1.0]), row=0)
    >>> two = Encoded((Part(torch.tensor([7, 8, 9]), [1, 2]),), torch.tensor([0.0]), row=1)
    >>> batch = pack([one, two])
    >>> batch.parts[0].ids.tolist(), batch.parts[0].lengths, batch.parts[0].owner.tolist()
    ([5, 6, 7, 8, 9], [2, 1, 2], [0, 1, 1])
    """
    assert items, "a batch has at least one example"
    assert len({(e.kind, len(e.parts)) for e in items}) == 1, "a batch is of one kind"
    return Batch(
        parts=tuple(_lay([e.parts[i] for e in items]) for i in range(len(items[0].parts))),
        target=torch.cat([e.target for e in items]),
        weight=torch.cat([torch.full((e.units,), e.weight) for e in items]),
        rows=[e.row for e in items],
        units=[0, *accumulate(e.units for e in items)],
        at=_positions(items),
        kind=items[0].kind,
        examples=list(items),
    )


def _lay(parts: Sequence[Part]) -> Packed:
    owner = torch.tensor([i for i, p in enumerate(parts) for _ in p.lengths])
    kinds = None if parts[0].kinds is None else torch.cat([p.kinds for p in parts if p.kinds is not None]).long()
    chars = None if parts[0].chars is None else torch.cat([p.chars for p in parts if p.chars is not None])
    ids = torch.cat([p.ids for p in parts]).long()
    return Packed(ids, [n for p in parts for n in p.lengths], owner, kinds, chars)


def _positions(items: Sequence[Encoded]) -> Tensor | None:
    """Each example counts its places from its own first token; in the batch they move by what lies before."""
    if items[0].at is None:
        return None
    before = [0, *accumulate(sum(e.parts[0].lengths) for e in items)]
    return torch.cat([e.at + start for e, start in zip(items, before, strict=False) if e.at is not None])


def join(batches: Iterable[Batch]) -> Batch:
    """One batch of all the examples, in order, with the shifts of all or of none."""
    listed = list(batches)
    whole = pack([e for b in listed for e in b.examples])
    shifts = [[b.parts[i].shift for b in listed] for i in range(len(whole.parts))]
    return shifted(whole, [torch.cat([t for t in each if t is not None]) if each[0] is not None else None for each in shifts])


def shifted(batch: Batch, shifts: Sequence[Tensor | None]) -> Batch:
    """The batch with a shift "T E", or none, for each of its parts."""
    return replace(batch, parts=tuple(replace(p, shift=s) for p, s in zip(batch.parts, shifts, strict=True)))


def cut(batch: Batch, pieces: int) -> list[Batch]:
    """At most `pieces` batches of whole examples, in order: `join(cut(b, n))` is `b`."""
    size = -(-len(batch) // max(1, min(pieces, len(batch))))
    return [pack(batch.examples[i : i + size]) for i in range(0, len(batch), size)]
