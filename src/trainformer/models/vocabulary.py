"""The head of a language model: a score for each token of the vocabulary, where a token is to be told."""

import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.models.design import BASE_WIDTH
from trainformer.models.transformer import ACTIVATIONS, Transformer, norm
from trainformer.nn.blocks import by_blocks


class VocabularyHead(nn.Module):
    """States -> scores, by the table of embeddings itself (Press and Wolf 2017, arXiv:1608.05859) or a matrix of its own.

    It reads the batch's last part, at the tokens that `at` names; none: at all of them, in their order.
    """

    def __init__(self, body: Transformer):
        super().__init__()
        design = body.design
        self._table = (body.table,)  # in a tuple, so that its weight has one name and is stored once
        self.out = None if design.tied else nn.Linear(design.width, design.vocabulary, bias=False)
        inner = (nn.Linear(design.width, design.width), ACTIVATIONS[design.activation](), norm(design))
        self.transform = nn.Sequential(*inner) if design.output == "transformed" else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(design.vocabulary)) if design.output in ("bias", "transformed") else None
        self.scale = design.width**-0.5 if design.output == "scaled" and design.tied else 1.0
        self.scale *= BASE_WIDTH / design.width if design.initialisation == "mup" else 1.0
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)

    def forward(self, hidden: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """States "T D" of each part -> scores "U V"."""
        states = hidden[-1]
        return self.scores(states if batch.at is None else states[batch.at])

    def scores(self, states: Tensor) -> Tensor:
        """ "... D" -> "... V"."""
        states = self.transform(states) * self.scale
        weight = self._table[0].weight if self.out is None else self.out.weight
        return by_blocks(states, weight, self.bias)
