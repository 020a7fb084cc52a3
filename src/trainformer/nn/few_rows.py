"""An embedding table cut down, while it trains, to the rows of the tokens that the run will read.

A row whose token never comes has no gradient, so no optimiser moves it: training the others alone is the same training,
without the zeros that a gradient, its norm, the optimiser's averages and a checkpoint would hold for it.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

M = TypeVar("M", bound=nn.Module)


class FewRows(nn.Embedding):
    """Rows `kept` "R" (sorted) of a table "V D". A token outside raises IndexError."""

    kept: Tensor
    place: Tensor
    whole: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Tokens, of any shape -> "... D"."""
        return functional.embedding(self.place[input], self.weight, self.padding_idx)


def keep_rows(model: nn.Module, table: nn.Embedding, tokens: Tensor) -> bool:
    """Leaves the rows of some tokens "N" and of the padding; whether the table was cut.

    It is not where it is frozen, shared with another module, of an unusual kind, or read almost whole.
    """
    weight = table.weight
    shared = sum(p is weight for m in model.modules() for p in m._parameters.values()) > 1
    if type(table) is not nn.Embedding or shared or not weight.requires_grad or table.max_norm is not None or table.sparse:
        return False
    wanted = torch.zeros(len(weight), dtype=torch.bool)
    wanted[tokens] = True
    if table.padding_idx is not None:
        wanted[table.padding_idx] = True
    kept = wanted.nonzero().squeeze(1)
    if len(kept) > 0.9 * len(weight):
        return False
    place = torch.full((len(weight),), -1).index_copy(0, kept, torch.arange(len(kept)))
    table.__class__ = FewRows
    assert isinstance(table, FewRows)
    table.register_buffer("place", place.to(weight.device), persistent=False)
    table.kept, table.whole = kept, weight.detach().cpu()
    table.weight = nn.Parameter(weight.detach()[kept.to(weight.device)])
    table.num_embeddings = len(kept)
    if table.padding_idx is not None:
        table.padding_idx = int(place[table.padding_idx])
    return True


def whole_again(model: M) -> M:
    """The same model, the rows put back among those that were left out."""
    for table in [m for m in model.modules() if isinstance(m, FewRows)]:
        whole = table.whole.clone()
        whole[table.kept] = table.weight.detach().to(whole)
        if table.padding_idx is not None:
            table.padding_idx = int(table.kept[table.padding_idx])
        table.weight = nn.Parameter(whole.to(table.weight.device), table.weight.requires_grad)
        table.num_embeddings = len(whole)
        del table.kept, table.whole, table.place
        table.__class__ = nn.Embedding  # type: ignore[assignment]
    return model
