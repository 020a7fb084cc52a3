"""How likely a model finds texts: perplexity of a token and of a byte, from sums that each example has made already."""

import math
from typing import Any

import torch
from torch import Tensor

from trainformer.core.batch import Batch

COLUMNS = ("loss", "tokens", "right", "bytes", "judged", "judged_right")
"""What an example gives: summed loss in nats, tokens told, those that were the likeliest, UTF-8 bytes of the text if all of its
tokens were told (else 0), pairs of sentences judged, and judged rightly."""
MOST = 700.0
"""A loss beyond it has no perplexity that a number can hold."""


class Likelihood:
    """Sums over examples in constant memory; `examples` counts rows.

    loss: mean negative log-likelihood of a token in nats. perplexity: exp of it. token_accuracy: share of tokens that are the
    likeliest. bits_per_byte, perplexity_per_byte: of all tokens over all bytes that they stand for, which models with other
    tokenizers can be held against. sentence_accuracy: share of pairs of sentences that were judged rightly.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.sums = torch.zeros(len(COLUMNS), dtype=torch.float64)

    def add(self, output: Tensor, batch: Batch) -> None:
        """Output "B 6": the COLUMNS of each example."""
        self.rows += len(output)
        self.sums += output.detach().cpu().double().sum(0)

    def value(self) -> dict[str, float]:
        return {"examples": self.rows, **likelihood(self.sums)}

    def detail(self) -> dict[str, Any]:
        return {}


def likelihood(sums: Tensor) -> dict[str, float]:
    """The scores that follow from sums "6" of COLUMNS; nothing without a token."""
    loss, tokens, right, size, judged, judged_right = sums.tolist()
    if not tokens:
        return {}
    each = loss / tokens
    found = {"loss": each, "perplexity": math.exp(min(each, MOST)), "tokens": tokens, "token_accuracy": right / tokens}
    if size:
        found |= {"bits_per_byte": loss / size / math.log(2), "perplexity_per_byte": math.exp(min(loss / size, MOST))}
    return found | ({"sentence_accuracy": judged_right / judged} if judged else {})
