"""The layers of one model beside those of another, and how far their states are apart."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from trainformer.core.batch import Batch
from trainformer.core.errors import UserError
from trainformer.core.roles import Model
from trainformer.nn.shifts import owners
from trainformer.nn.states import noted

Pairs = list[tuple[nn.Module, nn.Module]]


def beside(model: Model, other: Model) -> Pairs:
    """Each layer of a model with the one of the other model that is as high up: the top with the top.

    Raises UserError where states cannot be compared: other widths, or padding inside.
    """
    where = "method.distil.hidden"
    if model.body.width != other.body.width:
        what = f"the states of this model are {model.body.width} wide, the teacher's {other.body.width}."
        raise UserError(what, where=where, fix="Leave hidden at 0: answers can be compared all the same.")
    if not all(getattr(m.body, "packed", True) for m in (model, other)):
        raise UserError("states can be compared of packed models only.", where=where, fix="Leave hidden at 0.")
    own, others = model.body.blocks()[1:], other.body.blocks()[1:]
    return [(block, others[(i + 1) * len(others) // len(own) - 1]) for i, block in enumerate(own)]


@dataclass
class Seen:
    """What went into a body, batch by batch, and what each of its layers gave."""

    batches: list[Any]
    layers: list[list[Tensor]]

    def states(self, layer: int, tokens: int) -> Tensor:
        """The states "T D" of a layer in the first run, which may have gone through in pieces, at length 1."""
        found = [s.flatten(0, -2)[: b.tokens].float() for s, b in zip(self.layers[layer], self.batches, strict=True)]
        return normalize(torch.cat(found)[:tokens], dim=-1)


@contextmanager
def layers_noted(body: nn.Module, layers: list[nn.Module]) -> Iterator[Seen]:
    """Inside, what a body reads and what its layers give is kept, run by run."""
    with ExitStack() as stack:
        batches = stack.enter_context(noted(body))
        yield Seen(batches, [stack.enter_context(noted(layer, before=False)) for layer in layers])


def distance(own: Seen, known: Seen, batch: Batch) -> Tensor:
    """Squared difference "U" of states brought to length 1, the mean over the layers and the tokens of each unit's example."""
    owner, tokens = owners(batch.parts[0]), len(batch.parts[0].ids)
    apart = [(own.states(i, tokens) - known.states(i, tokens)).pow(2).sum(-1) for i in range(len(own.layers))]
    total = torch.zeros(len(batch), device=owner.device).index_add(0, owner, torch.stack(apart).mean(0))
    sizes = torch.tensor(batch.units, device=owner.device).diff()
    return (total / torch.bincount(owner, minlength=len(batch))).repeat_interleave(sizes)
