"""Denoising: an encoder-decoder learns a language by filling gaps in plain texts; what T5 is trained on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from trainformer.core.batch import Encoded, Example, Part
from trainformer.core.errors import UserError
from trainformer.core.protocols import Tokens
from trainformer.core.roles import Decision, Task
from trainformer.core.seeds import generator
from trainformer.data.encode import Wrapped, as_part, require_texts
from trainformer.data.gaps import with_gaps, without_gaps
from trainformer.data.masking import chunks
from trainformer.losses.tokens import TokenLoss
from trainformer.metrics.tokens import TokenScores


class Denoising(TokenLoss, Task):
    """Fill gaps in plain texts: pre-training of an encoder-decoder, or more of it on your own texts.

    The source is a text with spans taken out, each marked by a token of its own; the target is each mark with its span. Where
    gaps are is drawn anew in each epoch, from (seed, epoch, row). In scoring they follow from the text alone, so epochs, runs
    and bundles can be compared. A long text is read in pieces and nothing is cut. (Raffel et al. 2020, arXiv:1910.10683.)
    """

    writes: ClassVar[Literal["", "decoder", "encoder-decoder"]] = "encoder-decoder"

    gap_share: float = Field(0.15, gt=0, le=0.9)
    """Share of the tokens that is taken out, 0..0.9; T5's is 0.15."""
    gap_tokens: float = Field(3.0, ge=1, le=1000)
    """Mean length of a gap in tokens; T5's is 3."""

    def meet(self, tokens: Tokens) -> None:
        """Raises UserError for a tokenizer that has no tokens to mark gaps with."""
        super().meet(tokens)
        if not tokens.sentinels:
            what = "its tokenizer has no tokens that mark gaps (<extra_id_0>, <extra_id_1>, ...)."
            raise UserError(what, where="model.tokenizer", fix="Train one: trainformer tokenizer train --like t5, or take T5's.")

    def parse(self, texts: tuple[str, ...], label: Any, row: int, weight: float) -> Example:
        """One text; there is no label."""
        return Example(require_texts(texts, 1), None, row, weight)

    def encode(self, example: Example, pieces: list[list[int]], tokens: Tokens, limit: int) -> Encoded:
        """The sequences of a text with the gaps that scoring asks for, and of [begin] target, of which target [end] is told.

        However gaps are drawn, sequences have these lengths. Raises UserError for a text that has marks of its own.
        """
        own = set(pieces[0]) & set(tokens.sentinels)
        if own:
            what = f"the text has {self._mark(min(own, key=tokens.sentinels.index))}, which marks a gap."
            raise UserError(what, fix="Take it out of the text, or remove the row.")
        room = limit - max(1, tokens.specials[1])  # the target with its end is never longer than the text
        texts = [ids for ids, _ in chunks((pieces[0], pieces[0]), room)]
        found = Encoded((), torch.empty(0), example.row, example.weight)
        return self._gapped(found, texts, generator("scoring", str(texts)))

    def vary(self, encoded: Encoded, rng: torch.Generator) -> Encoded:
        """Takes other spans out in each epoch."""
        source, target = encoded.parts
        before = self.tokens.wrap([-1])[0].index(-1)  # special tokens that stand before a text; the others follow it
        texts = []
        for given, seen in zip(source.ids.split(source.lengths), target.ids.split(target.lengths), strict=True):
            inner = given[before : len(given) - self.tokens.specials[1] + before]
            texts.append(without_gaps(inner.tolist(), seen[1:].tolist(), self.tokens.sentinels))
        return self._gapped(encoded, texts, rng)

    def _gapped(self, one: Encoded, texts: list[list[int]], rng: torch.Generator) -> Encoded:
        """The example with gaps drawn in each of its texts."""
        begin, end = self.marks
        sources: list[Wrapped] = []
        targets: list[list[int]] = []
        for text in texts:
            ids = torch.tensor(text).long()
            given, wanted = with_gaps(ids, self.tokens.sentinels, rng, self.gap_share, self.gap_tokens, anywhere=True)
            sources.append((self.tokens.wrap(given.tolist())[0] or [end], []))
            targets.append([*wanted.tolist(), end])
        told = torch.tensor([i for target in targets for i in target])
        seen = torch.tensor([i for target in targets for i in [begin, *target[:-1]]], dtype=torch.int32)
        parts = (as_part(sources), Part(seen, [len(target) for target in targets]))
        return replace(one, parts=parts, target=told, units=len(told))

    def prompt(self, example: Example, pieces: list[list[int]], tokens: Tokens, limit: int) -> Encoded:
        """A text with marks where something is to be filled in, and [begin]; one that is too long is cut and counted."""
        room = limit - tokens.specials[1]
        ids, _ = tokens.wrap(pieces[0][:room])
        parts = (as_part([(ids or [self.marks[1]], [])]), Part(torch.tensor([self.marks[0]]), [1]))
        return Encoded(parts, torch.empty(0), example.row, units=0, cut_tokens=max(0, len(pieces[0]) - room))

    def text(self, ids: Sequence[int]) -> str:
        """What was written, each mark before what fills its gap."""
        spans: list[tuple[str, list[int]]] = [("", [])]
        for i in ids:
            if i in self.tokens.sentinels:
                spans.append((self._mark(i), []))
            else:
                spans[-1][1].append(i)
        return " ".join(f"{mark} {self.tokens.text(span).strip()}".strip() for mark, span in spans).strip()

    def _mark(self, sentinel: int) -> str:
        return f"<extra_id_{self.tokens.sentinels.index(sentinel)}>"

    def metric(self, decision: Decision | None = None) -> TokenScores:
        return TokenScores()
