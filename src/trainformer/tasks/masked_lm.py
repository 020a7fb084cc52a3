"""Masked language modelling: an encoder learns a language by telling hidden tokens of plain texts; what BERT is trained on."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from trainformer.core.batch import Batch, Encoded, Example, pack
from trainformer.core.protocols import Tokens
from trainformer.core.roles import Answer, Decision, Task
from trainformer.core.seeds import generator
from trainformer.data.encode import as_part, require_texts
from trainformer.data.masking import Text, chosen, chunks, folds, hidden, in_a_row, marked, ordinary, read, told
from trainformer.data.sentences import halves
from trainformer.data.words import word_numbers
from trainformer.losses.classification import symmetric_kl
from trainformer.losses.vocabulary import token_cross_entropy
from trainformer.metrics.likelihood import COLUMNS, Likelihood, likelihood


class MaskedLm(Task):
    """Tell hidden tokens of plain texts: pre-training of an encoder, or more of it on your own texts.

    A unit is a hidden token. Which are hidden is drawn anew in each epoch, from (seed, epoch, row). In scoring all are behind
    the mask, the same ones each time: they follow from the text alone, so epochs, runs and bundles can be compared.
    A long text is read in pieces and nothing is cut. (Devlin et al. 2019, arXiv:1810.04805.)
    """

    unlabelled: ClassVar[bool] = True
    vocabulary: ClassVar[bool] = True

    mask_share: float = Field(0.15, gt=0, le=0.9)
    """Share of the tokens to be told, 0..0.9: 80 % of them are masked, 10 % are random tokens, 10 % stay as they are."""
    whole_words: Literal["none", "words", "chinese"] = "words"
    """What is hidden together: a piece alone (none), a whole word, or also whole Chinese words by jieba's dictionary (rjieba)."""
    sentences: Literal["none", "next", "order"] = "none"
    """Also judge two halves of each text: does the one follow the other (BERT's next), or are they in order (ALBERT's order)."""
    score_all: bool = False
    """Score every token once, in 1/mask_share passes: it gives bits per byte too (Salazar et al. 2020, arXiv:1910.14659)."""
    mask_id: int | None = None
    """The mask token; filled by training."""
    ordinary_ids: list[tuple[int, int]] | None = None
    """Runs of ids from..to that are no special tokens; filled by training."""

    _others: Tensor | None = PrivateAttr(None)
    _before: Text | None = PrivateAttr(None)

    def meet(self, tokens: Tokens) -> None:
        """A tokenizer without a mask gets one, and the model a row for it."""
        if tokens.mask is None:
            tokens.add_mask()
        self.mask_id, self.ordinary_ids, self._others = tokens.mask, ordinary(tokens), None

    def parse(self, texts: tuple[str, ...], label: Any, row: int, weight: float) -> Example:
        """One text; there is no label."""
        return Example(require_texts(texts, 1), None, row, weight)

    def observe(self, example: Example) -> None:
        """Nothing is learnt from single rows."""

    def settle(self) -> None:
        """There is nothing to settle."""

    def encode(self, example: Example, pieces: list[list[int]], tokens: Tokens, limit: int) -> Encoded:
        """One sequence or more; the target is the word of each token (-1: special), then the bytes of the text.

        With `sentences` there are two sequences, of which `vary` takes one: the halves as they follow each other, and the
        same in the other order, or the first with the second half of the row before; bytes are not counted (0).
        """
        parts = halves(example.texts[0]) if self._judges else example.texts
        numbered = zip(parts, tokens.spans(parts), tokens.pieces(parts) if self._judges else pieces, strict=True)
        texts = [(ids, word_numbers(text, spans, self.whole_words == "chinese")) for text, spans, ids in numbered]
        choices = self._choices(*texts) if self._judges else [[text] for text in chunks(texts[0], limit - tokens.specials[1])]
        made = [marked(choice, tokens, limit) for choice in choices]
        words = [word for (_, _, own), _ in made for word in own]
        if self.whole_words == "none":
            words = [place if word >= 0 else -1 for place, word in enumerate(words)]
        target = torch.tensor([*words, 0 if self._judges else len(example.texts[0].encode())])
        part = as_part([(ids, kinds) for (ids, kinds, _), _ in made])
        return Encoded((part,), target, example.row, example.weight, kind=example.kind, cut_tokens=made[0][1])

    def _choices(self, first: Text, second: Text) -> list[list[Text]]:
        """The pairs that a row may be read as, the true one first."""
        before, self._before = self._before, second
        if self.sentences == "order":
            return [in_a_row(first, second), in_a_row(second, first)]
        return [in_a_row(first, second), *([in_a_row(first, before)] if before else [])]

    @property
    def _judges(self) -> bool:
        return self.sentences != "none"

    def outputs(self) -> int:
        return 1  # for each token of the vocabulary: how many there are, the model knows

    def vary(self, encoded: Encoded, rng: torch.Generator) -> Encoded:
        """Hides other tokens in each epoch."""
        assert self.mask_id is not None, "a task has met its tokenizer"
        if self._others is None:
            self._others = torch.cat([torch.arange(a, b) for a, b in self.ordinary_ids or []])
        one, words = read(encoded, self._judges, rng)
        picked = chosen(words, self.mask_share, rng)
        return told(one, picked, hidden(one.parts[0].ids, picked, self.mask_id, self._others, rng))

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return token_cross_entropy(output, batch.target)

    def divergence(self, one: Tensor, other: Tensor) -> Tensor:
        return symmetric_kl(one, other)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """The COLUMNS of each example, "B 6": what the model makes of the tokens that its text chooses to hide."""
        sums = torch.zeros(len(batch), len(COLUMNS), device=batch.weight.device)
        for places, asked in self._passes(batch.examples):
            moved = pack(asked).to(sums.device)
            scores = model(moved).float()
            owner = torch.tensor(places).repeat_interleave(torch.tensor([e.units for e in asked])).to(sums.device)
            lost, right = token_cross_entropy(scores, moved.target), (scores.argmax(-1) == moved.target).float()
            judged = torch.zeros_like(lost).index_fill(0, torch.tensor(moved.units[:-1] if self._judges else []).long(), 1.0)
            kept = 1 - judged
            sums.index_add_(0, owner, torch.stack([lost * kept, kept, right * kept, 0 * kept, judged, right * judged], 1))
        if self.score_all:
            sums[:, COLUMNS.index("bytes")] = torch.tensor([float(e.target[-1]) for e in batch.examples], device=sums.device)
        return sums

    def _passes(self, examples: list[Encoded]) -> Iterator[tuple[list[int], list[Encoded]]]:
        """Examples by their places, with units: once, or so often that every token is told once."""
        ways = []
        for item in examples:
            rng = generator("scoring", str(item.parts[0].ids.tolist()))
            one, words = read(item, self._judges, rng)
            masks = folds(words, self.mask_share, rng) if self.score_all else [chosen(words, self.mask_share, rng)]
            ids = one.parts[0].ids
            ways.append([told(one, mask, ids.masked_fill(mask, self.mask_id or 0)) for mask in masks if bool(mask.any())])
        for turn in range(max(map(len, ways), default=0)):
            places = [i for i, way in enumerate(ways) if turn < len(way)]
            yield places, [ways[i][turn] for i in places]

    def answer(self, output: Tensor, decision: Decision) -> list[Answer]:
        """The perplexity of each text as `score`, and what else is known of its likelihood."""
        found = [likelihood(row) for row in output.double()]
        return [{"label": None, "score": scores.get("perplexity"), "scores": scores} for scores in found]

    def metric(self, decision: Decision | None = None) -> Likelihood:
        return Likelihood()
