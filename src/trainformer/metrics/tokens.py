"""Scores of tasks that tell tokens: loss, perplexity of a token and of a byte, how many are told right."""

import math
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from trainformer.core.batch import Batch

MOST = 700.0
"""A loss beyond it has no perplexity that a number can hold."""


class TokenScores:
    """What scores "U V" say of the tokens that are true; constant memory.

    loss: mean negative log-likelihood of a token in nats, without label smoothing. perplexity: exp of it. bits_per_byte,
    perplexity_per_byte: of all tokens over all bytes of UTF-8 that they stand for, which models with other tokenizers can be
    held against (where the task counts bytes). token_accuracy: share of tokens that are the likeliest. `examples` counts rows.
    """

    def __init__(self) -> None:
        self.rows = self.tokens = self.bytes = self.right = 0
        self.loss = 0.0

    def add(self, output: Tensor, batch: Batch) -> None:
        """Output "U V" and the batch whose target "U" is the true token of each unit."""
        target = batch.target
        assert len(target) == len(output), "scores need the true tokens"
        self.rows += len(batch)
        self.tokens += len(target)
        self.bytes += sum(e.bytes for e in batch.examples)
        self.right += int((output.argmax(-1) == target).sum())
        self.loss += float(cross_entropy(output.float(), target, reduction="sum").double())

    def value(self) -> dict[str, float]:
        if not self.tokens:
            return {"examples": self.rows}
        loss = self.loss / self.tokens
        scores = {"examples": self.rows, "loss": loss, "perplexity": math.exp(min(loss, MOST)), "tokens": self.tokens}
        scores["token_accuracy"] = self.right / self.tokens
        if self.bytes:
            each = self.loss / self.bytes
            scores |= {"bits_per_byte": each / math.log(2), "perplexity_per_byte": math.exp(min(each, MOST))}
        return scores

    def detail(self) -> dict[str, Any]:
        return {}
