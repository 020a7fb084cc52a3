"""Which rows make up which step: a pure function of (seed, step, rank), so that to resume is to ask for a later step."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trainformer.core.batch import Batch, Encoded, pack
from trainformer.core.errors import UserError
from trainformer.core.seeds import seed_of
from trainformer.data.cache import TokenCache
from trainformer.data.groups import grouped


@dataclass(frozen=True)
class Rows:
    """Chosen examples of a cache. `weight_scale` makes the mean weight of the training rows 1."""

    cache: TokenCache
    index: Tensor
    weight_scale: float = 1.0

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Encoded:
        """The i-th example; its `row` becomes i, the place in this choice."""
        found = self.cache[int(self.index[i])]
        return replace(found, row=i, weight=found.weight * self.weight_scale)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each example: int32 "N"."""
        return self.cache.lengths[self.index]

    def scaled(self) -> "Rows":
        """The same rows, whose mean weight is 1. Raises UserError if none counts."""
        mean = float(self.cache.weights[self.index].mean())
        if mean <= 0:
            raise UserError("all row weights are 0.", where="data.weight", fix="Some rows must count.")
        return Rows(self.cache, self.index, 1.0 / mean)


@dataclass
class Plan:
    """`plan[step]`: the micro-batches of a step on this rank. Every epoch reads every row once, in a new order."""

    rows: Rows
    step_rows: int
    micro_tokens: int
    epochs: float
    seed: int
    padded: bool = False
    rank: int = 0
    world: int = 1
    vary: Callable[[Encoded, torch.Generator], Encoded] | None = None
    pick: Callable[[list[int], int], list[int]] | None = None
    """Which rows a step reads instead of those drawn for it: a pure function of the rows and the step."""
    _order: tuple[int, Tensor] = field(default=(-1, torch.empty(0)), repr=False)

    @property
    def steps_an_epoch(self) -> int:
        return math.ceil(len(self.rows) / self.step_rows)

    def __len__(self) -> int:
        return max(1, math.ceil(self.epochs * self.steps_an_epoch - 1e-9))

    def __getitem__(self, step: int) -> list[Batch]:
        epoch, place = divmod(step, self.steps_an_epoch)
        chosen = self.order(epoch)[place * self.step_rows : (place + 1) * self.step_rows].tolist()
        chosen = chosen if self.pick is None else self.pick(chosen, step)
        items = share(sorted((self.rows[i] for i in chosen), key=lambda e: (-e.tokens, e.row)), self.rank, self.world)
        if self.vary is not None:
            items = [self.vary(e, torch.Generator().manual_seed(seed_of(self.seed, epoch, e.row))) for e in items]
        return [pack(group) for group in grouped(items, self.micro_tokens, self.padded)]

    def order(self, epoch: int) -> Tensor:
        """The rows in the order in which an epoch, from 0, reads them: int64 "N"."""
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(seed_of(self.seed, "epoch", epoch))
            self._order = (epoch, torch.randperm(len(self.rows), generator=generator))
        return self._order[1]


def share(items: list[Encoded], rank: int, world: int) -> list[Encoded]:
    """What a rank gets of a step's examples, longest first: each goes to the rank with the fewest tokens so far.

    The fullest rank has at most 4/3 of what the best split would give it (Graham 1969, doi:10.1137/0117039).
    """
    if world == 1:
        return items
    used, found = [0] * world, []
    for item in items:
        least = used.index(min(used))
        used[least] += item.tokens
        if least == rank:
            found.append(item)
    return found


def by_length(rows: Rows, micro_tokens: int, padded: bool = False) -> Iterator[Batch]:
    """All rows once, longest first, so that a lack of memory shows at once; `batch.rows` tells the places."""
    order = torch.argsort(rows.lengths, descending=True, stable=True)
    group: list[Encoded] = []
    used = 0
    for i in order.tolist():
        item = rows[i]
        cost = max(item.lengths) * len(item.lengths) if padded else item.tokens
        if group and used + cost > micro_tokens:
            yield pack(group)
            group, used = [], 0
        group.append(item)
        used += cost
    if group:
        yield pack(group)
