"""A budget of ranks that all layers share: how important each rank is, and who keeps how many (arXiv:2303.10512)."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

MOST_POINTS = 60
"""So many points at most of the ranks over time are kept for the report."""


@dataclass(frozen=True)
class Triplet:
    """The change of one layer: A "R D", E "R 1", B "D R"."""

    name: str
    a: nn.Parameter
    e: nn.Parameter
    b: nn.Parameter


def start_orthogonal(triplets: list[Triplet]) -> None:
    """A with orthogonal rows and B with orthogonal columns, all of length 1, as in a singular value decomposition."""
    for triplet in triplets:
        nn.init.orthogonal_(triplet.a)
        nn.init.orthogonal_(triplet.b)


def apart(triplets: list[Triplet]) -> Tensor:
    """How far A and B are from orthogonal: the mean of `|A A' - 1|` and `|B' B - 1|` (Frobenius) over the layers."""
    norms = [torch.linalg.norm(m - torch.eye(len(m), device=m.device)) for t in triplets for m in (t.a @ t.a.T, t.b.T @ t.b)]
    return torch.stack(norms).mean()


@dataclass
class RankBudget:
    """Importance of each rank, smoothed, and the ranks that are kept.

    `phases` are the step at which cutting begins, the one at which it ends, and how many steps lie between allocations.
    """

    triplets: list[Triplet]
    rank: int
    phases: tuple[int, int, int]
    smooth: float
    _mean: dict[str, Tensor] = field(default_factory=dict)
    _spread: dict[str, Tensor] = field(default_factory=dict)
    _seen: dict[str, Tensor] = field(default_factory=dict)
    _keep: Tensor | None = None
    _history: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, parameter in self._named():
            self._mean[name] = torch.zeros_like(parameter, requires_grad=False)
            self._spread[name] = torch.zeros_like(parameter, requires_grad=False)

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return [(f"{t.name}.{letter}", getattr(t, letter)) for t in self.triplets for letter in "aeb"]

    @torch.no_grad()
    def note(self) -> None:
        """Looks at the gradients of a step before they are used: `|w * gradient|`, what it would cost to set a weight to 0."""
        self._seen = {n: (p * p.grad).abs() for n, p in self._named() if p.grad is not None}

    @torch.no_grad()
    def step(self, step: int) -> None:
        """After the optimiser has stepped, `step` steps being done: importance is smoothed, and ranks are cut if it is time."""
        for name, seen in self._seen.items():
            self._mean[name].lerp_(seen, 1 - self.smooth)
            self._spread[name].lerp_((seen - self._mean[name]).abs(), 1 - self.smooth)
        begin, end, every = self.phases
        if begin <= step < end and (step - begin) % every == 0:
            self._allocate(self.budget(step))
        elif step >= end:
            if self._keep is None or step == end:
                self._allocate(self.budget(step))
            self._cut()
        if step in (1, end) or (step < end and step % max(1, end // MOST_POINTS) == 0):
            self._history.append([step, *self.ranks()])

    def budget(self, step: int) -> int:
        """How many ranks all layers have together after a step: a cube from all that there are down to the target."""
        begin, end, _ = self.phases
        all_of_them, target = sum(len(t.e) for t in self.triplets), self.rank * len(self.triplets)
        left = min(1.0, max(0.0, 1 - (step - begin) / max(1, end - begin)))
        return int(target + (all_of_them - target) * left**3)

    def importance(self) -> Tensor:
        """One number for each rank of each layer, end to end: that of its E, and the means of those of its A and B."""
        found = {n: self._mean[n] * self._spread[n] for n, _ in self._named()}
        each = [found[f"{t.name}.e"][:, 0] + found[f"{t.name}.a"].mean(1) + found[f"{t.name}.b"].mean(0) for t in self.triplets]
        return torch.cat(each)

    def _allocate(self, budget: int) -> None:
        every = self.importance()
        self._keep = torch.zeros_like(every).index_fill_(0, every.topk(budget).indices, 1.0)
        self._cut()

    def _cut(self) -> None:
        assert self._keep is not None, "ranks are allocated before they are cut"
        for triplet, kept in zip(self.triplets, self._keep.split([len(t.e) for t in self.triplets]), strict=True):
            triplet.e.data.mul_(kept[:, None])

    def ranks(self) -> list[int]:
        """How many ranks each layer keeps."""
        sizes = [len(t.e) for t in self.triplets]
        return sizes if self._keep is None else [int(k.sum()) for k in self._keep.split(sizes)]

    def told(self) -> dict[str, Any]:
        """Plain values: steps, and the ranks of each layer at those steps."""
        steps, *layers = zip(*self._history, strict=True) if self._history else ((),)
        ranks = {t.name: list(r) for t, r in zip(self.triplets, layers, strict=True)} if layers else {}
        return {"steps": list(steps), "ranks": ranks}

    def state(self) -> dict[str, Tensor]:
        """Copies: what goes on must not change what is saved."""
        found = {f"mean.{n}": v.clone() for n, v in self._mean.items()} | {
            f"spread.{n}": v.clone() for n, v in self._spread.items()
        }
        found["history"] = torch.tensor(self._history, dtype=torch.int32).reshape(-1, len(self.triplets) + 1)
        return found if self._keep is None else found | {"keep": self._keep.clone()}

    def restore(self, state: dict[str, Tensor]) -> None:
        for name in self._mean:
            self._mean[name].copy_(state[f"mean.{name}"])
            self._spread[name].copy_(state[f"spread.{name}"])
        self._keep = state["keep"].to(self._mean[next(iter(self._mean))].device) if "keep" in state else None
        self._history = state["history"].tolist()
