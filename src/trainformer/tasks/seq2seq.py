"""A text from a text: translation, summary, rewriting."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from trainformer.core.batch import Encoded, Example, Part
from trainformer.core.errors import UserError
from trainformer.core.protocols import Tokens
from trainformer.core.roles import Decision, Task
from trainformer.data.encode import as_part, require_texts
from trainformer.losses.tokens import TokenLoss
from trainformer.metrics.tokens import TokenScores
from trainformer.metrics.written import Tokenize, scorers, written_scores


class Seq2seq(TokenLoss, Task):
    """A target text from a source text; each target token is learnt from the source and the true tokens before it."""

    pair: ClassVar[bool] = True
    writes: ClassVar[Literal["", "decoder", "encoder-decoder"]] = "encoder-decoder"

    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of the target that is spread over the vocabulary, 0..1 (Vaswani et al. 2017, arXiv:1706.03762)."""
    long_pair: Literal["refuse", "truncate"] = "refuse"
    """What is done with a pair of which a text is longer than the model reads: refused before training, or cut and counted."""
    bleu_tokenize: Tokenize = "auto"
    """How sacrebleu takes texts apart for BLEU; auto: zh where the targets are Chinese, else 13a."""

    def parse(self, texts: tuple[str, ...], label: Any, row: int, weight: float) -> Example:
        """A source and its target, or a source alone (asked). Raises UserError for a source without a target."""
        found = require_texts(texts, min(2, len(texts)))
        if len(found) == 2 and found[0].strip() and not found[1].strip():
            raise UserError("the source has no target: it is empty.", fix="Give the row a target or remove it.")
        return Example(found, None, row, weight)

    def settle(self) -> None:
        """Raises MissingExtra where texts could not be judged at the end."""
        super().settle()
        scorers()

    def encode(self, example: Example, pieces: list[list[int]], tokens: Tokens, limit: int) -> Encoded:
        """Two parts, the source and [begin] target, of which target [end] is told. Raises UserError for one that is too long."""
        begin, end = self.marks
        source, cut = self._source(pieces[0], tokens, limit, self.long_pair == "refuse")
        target = [*pieces[1], end]
        if len(target) > limit and self.long_pair == "refuse":
            raise _too_long("target", len(target), limit)
        cut += max(0, len(target) - limit)
        target = target[:limit]
        ids = torch.tensor([begin, *target[:-1]], dtype=torch.int32)
        size = len(example.texts[1].encode())
        parts = (source, Part(ids, [len(ids)]))
        return Encoded(parts, torch.tensor(target), example.row, example.weight, len(target), cut_tokens=cut, bytes=size)

    def prompt(self, example: Example, pieces: list[list[int]], tokens: Tokens, limit: int) -> Encoded:
        """The source, and [begin], to be gone on with; a source that is too long is cut and counted."""
        source, cut = self._source(pieces[0], tokens, limit, False)
        parts = (source, Part(torch.tensor([self.marks[0]]), [1]))
        return Encoded(parts, torch.empty(0), example.row, units=0, cut_tokens=cut)

    def _source(self, pieces: list[int], tokens: Tokens, limit: int, refuse: bool) -> tuple[Part, int]:
        """The source with its special tokens, and how many tokens were cut from it. An empty one is its end alone."""
        room = limit - tokens.specials[1]
        if len(pieces) > room and refuse:
            raise _too_long("source", len(pieces) + tokens.specials[1], limit)
        ids, _ = tokens.wrap(pieces[:room])
        return as_part([(ids or [self.marks[1]], [])]), max(0, len(pieces) - room)

    def metric(self, decision: Decision | None = None) -> TokenScores:
        return TokenScores()

    def judge(self, written: Sequence[str], wanted: Sequence[str]) -> dict[str, float | str]:
        return written_scores(written, wanted, self.bleu_tokenize)


def _too_long(what: str, length: int, limit: int) -> UserError:
    fix = "Raise data.max_tokens, set task.long_pair=truncate, or remove the row."
    return UserError(f"the {what} has {length} tokens, and {limit} are read.", fix=fix)
