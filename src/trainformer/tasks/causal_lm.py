"""The next token of a text, from those before it: language modelling as GPT-2 learns it."""

from typing import Any, ClassVar, Literal

import torch

from trainformer.core.batch import Encoded, Example, Part
from trainformer.core.errors import UserError
from trainformer.core.protocols import Tokens
from trainformer.core.roles import Decision, Task
from trainformer.data.encode import require_texts
from trainformer.losses.tokens import TokenLoss
from trainformer.metrics.tokens import TokenScores


class CausalLm(TokenLoss, Task):
    """Each token of a text from those before it; every text is a document of its own, and sees no other.

    A text that is longer than the model reads goes through it in windows that follow each other, so that every token is told
    once; the first of a window knows the last of the window before alone.
    """

    writes: ClassVar[Literal["", "decoder", "encoder-decoder"]] = "decoder"

    def parse(self, texts: tuple[str, ...], label: Any, row: int, weight: float) -> Example:
        """The text alone: a row is one document."""
        return Example(require_texts(texts, 1), None, row, weight)

    def encode(self, example: Example, pieces: list[list[int]], tokens: Tokens, limit: int) -> Encoded:
        """[begin] text, of which text [end] is told, in windows of at most `limit` tokens."""
        begin, end = self.marks
        ids, told = [begin, *pieces[0]], [*pieces[0], end]
        lengths = [min(limit, len(ids) - start) for start in range(0, len(ids), limit)]
        part = Part(torch.tensor(ids, dtype=torch.int32), lengths)
        size = len(example.texts[0].encode())
        return Encoded((part,), torch.tensor(told), example.row, example.weight, units=len(told), bytes=size)

    def prompt(self, example: Example, pieces: list[list[int]], tokens: Tokens, limit: int) -> Encoded:
        """[begin] text, to be gone on with."""
        ids = [self.marks[0], *pieces[0]]
        if len(ids) >= limit:
            what = f"the prompt has {len(ids)} tokens, and the model reads {limit}: there is no room to go on."
            raise UserError(what, where=f"text {example.row + 1}", fix="Shorten it.")
        return Encoded((Part(torch.tensor(ids), [len(ids)]),), torch.empty(0), example.row, units=0)

    def metric(self, decision: Decision | None = None) -> TokenScores:
        return TokenScores()
