"""How a text is written, token by token: its settings, and what they rule out at each step."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from trainformer.core.component import Component
from trainformer.core.errors import UserError

NEVER = float("-inf")


class Decoding(Component):
    """How texts are written; with neither a beam nor a temperature the likeliest token is taken each time."""

    max_new_tokens: int = Field(256, ge=1, le=1_000_000)
    """Most tokens of a text that is written; the model's own limit holds besides."""
    min_new_tokens: int = Field(0, ge=0)
    """Least tokens of a text that is written: before them it cannot end."""
    beam: int = Field(1, ge=1, le=256)
    """Texts that are followed at once, of which the best is taken; 1: the likeliest token each time, or a draw."""
    beam_end: Literal["soon", "exact"] = "soon"
    """A beam ends soon, when no open text would be the best if it ended with its next token; exact: when none ever can be."""
    length_penalty: float = Field(0.6, ge=0, le=10)
    """Power a by which a beam's score is divided, ((5 + tokens) / 6)^a: the larger, the longer the texts (arXiv:1609.08144)."""
    coverage_penalty: float = Field(0.0, ge=0, le=10)
    """Weight in a beam's score of source tokens that were attended to little (arXiv:1609.08144); 0: none."""
    temperature: float = Field(0.0, ge=0, le=100)
    """What scores are divided by before a token is drawn; 0: none is drawn, the likeliest is taken."""
    top_k: int = Field(0, ge=0)
    """Draw among so many of the likeliest tokens; 0: among all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw among the likeliest tokens that together have this share (nucleus, arXiv:1904.09751)."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Draw among tokens that are at least this share as likely as the likeliest (arXiv:2407.01082)."""
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    """What scores of tokens that stand there already are divided by (negative ones multiplied, arXiv:1909.05858); 1: nothing."""
    no_repeat: int = Field(0, ge=0)
    """No run of so many tokens is written twice; 0: any may be."""
    stop: list[str] = Field(default_factory=list)
    """Words before which a text ends."""
    decoding_seed: int = Field(0, ge=0, lt=2**31)
    """All draws follow from it and from a text's place in the order."""

    def check_decoding(self) -> None:
        """Raises UserError for limits that can never stop or never begin, and for settings that do not go together."""
        where = "decoding"
        if self.min_new_tokens > self.max_new_tokens:
            what = f"a text of at least {self.min_new_tokens} and at most {self.max_new_tokens} tokens cannot be written."
            raise UserError(what, where=where, fix="Lower min_new_tokens, or raise max_new_tokens.")
        if self.beam > 1 and self.temperature > 0:
            what = "a beam takes the likeliest texts, and a temperature draws one."
            raise UserError(what, where=where, fix="Leave out beam, or temperature.")
        narrowed = [name for name, off in (("top_k", 0), ("top_p", 1.0), ("min_p", 0.0)) if getattr(self, name) != off]
        if narrowed and self.temperature == 0:
            what = f"{narrowed[0]} narrows what is drawn from, and with temperature 0 nothing is drawn."
            raise UserError(what, where=where, fix="Set temperature to 1, or leave the other out.")
        if any(not word for word in self.stop):
            raise UserError("a text cannot stop before an empty word.", where=where, fix="Leave it out of stop.")


def ruled(scores: Tensor, past: Callable[[], list[list[int]]], written: Sequence[int], end: int, how: Decoding) -> Tensor:
    """Scores "N V" of the next token, changed by what is there: `past` gives each text, `written` how many tokens are new."""
    early = [row for row, tokens in enumerate(written) if tokens < how.min_new_tokens]
    if how.repetition_penalty == 1 and not how.no_repeat and not early:
        return scores
    scores = scores.clone()
    for row, text in zip(scores, past(), strict=True):
        if how.repetition_penalty != 1 and text:
            seen = torch.tensor(sorted(set(text)), device=scores.device)
            kept = row[seen]
            row[seen] = torch.where(kept > 0, kept / how.repetition_penalty, kept * how.repetition_penalty)
        if how.no_repeat:
            row[_repeated(text, how.no_repeat)] = NEVER
    scores[early, end] = NEVER
    return scores


def _repeated(text: Sequence[int], size: int) -> list[int]:
    """The tokens that would end a run of `size` which the text has already."""
    last = tuple(text[len(text) - size + 1 :])
    if len(last) < size - 1:
        return []
    return [text[i + size - 1] for i in range(len(text) - size + 1) if tuple(text[i : i + size - 1]) == last]


def shares(scores: Tensor, how: Decoding) -> Tensor:
    """The share of each token that may be drawn, "N V", tokens that may not having none."""
    scores = scores.float() / how.temperature
    if how.top_k and how.top_k < scores.shape[-1]:
        least = scores.topk(how.top_k, -1).values[:, -1:]
        scores = scores.masked_fill(scores < least, NEVER)
    found = scores.softmax(-1)
    if how.top_p < 1:
        ordered, order = found.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        found = found.scatter(-1, order, ordered.masked_fill(before >= how.top_p, 0.0))
    if how.min_p:
        found = found.masked_fill(found < how.min_p * found.amax(-1, keepdim=True), 0.0)
    return found / found.sum(-1, keepdim=True)


def drawn(share: Tensor, draws: Tensor) -> Tensor:
    """The token of each row "N" that a number "N" in 0..1 falls on, the shares "N V" laid end to end."""
    ends = share.double().cumsum(-1)
    place = torch.searchsorted(ends, (draws.double()[:, None] * ends[:, -1:]), right=True).squeeze(1)
    last = share.shape[-1] - 1 - (share.flip(-1) > 0).int().argmax(-1)  # rounding must not fall on a token without a share
    return torch.minimum(place, last)
