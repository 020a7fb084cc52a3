"""Writes texts token by token: the likeliest each time, or drawn; many at once, each ending by itself.

    all prompts at once: what each token is told is kept
    while a text is not finished:
        the next token of each, and the cache goes on with it
        texts that have ended leave the batch

What is drawn follows from the seed and from a text's number, not from the texts beside it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from trainformer.core.batch import Packed
from trainformer.core.seeds import generator
from trainformer.nn.cache import Cache
from trainformer.nn.decoding import Decoding, drawn, ruled, shares
from trainformer.nn.likeliest import likeliest


class Writer(Protocol):
    """A body that goes on with texts (models/transformer.py)."""

    def begin(self, texts: int, source: Packed | None = None) -> Cache: ...

    def step(self, ids: Tensor, cache: Cache, counts: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Voice:
    """What writes: a body, the scores "N V" of states "N D", the token that ends a text, the most tokens that it reads."""

    body: Writer
    scores: Callable[[Tensor], Tensor]
    end: int
    limit: int
    text: Callable[[Sequence[int], Sequence[int]], str] = lambda before, ids: ""
    """What ids add to the text of those before them: where words stop a text."""


@dataclass
class Written:
    """A text that was written: its new tokens, their log-likelihood in nats, and whether it ended by itself."""

    ids: list[int] = field(default_factory=list)
    score: float = 0.0
    ended: bool = False
    cut: str | None = None
    """The text up to a word that stopped it."""


@dataclass(frozen=True)
class Prompts:
    """What texts begin with, as ids; of translations also the sources, one for each. `numbers`: what the draws of each follow."""

    ids: list[list[int]]
    source: Packed | None = None
    numbers: Sequence[int] | None = None

    @property
    def block(self) -> tuple[Tensor, Tensor]:
        """The ids "N W", filled up at their ends, and the length of each "N"."""
        counts = [len(row) for row in self.ids]
        return torch.tensor([row + [0] * (max(counts) - len(row)) for row in self.ids]), torch.tensor(counts)


def generate(voice: Voice, prompts: Prompts, how: Decoding) -> list[Written]:
    """A text for each prompt, in order."""
    found = [Written() for _ in prompts.ids]
    for number, token, score in stream(voice, prompts, how):
        text = found[number]
        text.score += score
        text.ended = token == voice.end
        if not text.ended:
            text.ids.append(token)
    for before, text in zip(prompts.ids, found, strict=True):
        cut = stopped(voice, before, text.ids, how)
        text.cut, text.ended = cut, text.ended or cut is not None
    return found


@torch.inference_mode()
def stream(voice: Voice, prompts: Prompts, how: Decoding) -> Iterator[tuple[int, int, float]]:
    """(number of the text, token, log-likelihood in nats), as they are written; a text that ends gives the end's token."""
    ids, counts = prompts.block
    cache = voice.body.begin(len(prompts.ids), prompts.source)
    ids, counts = ids.to(cache.lengths.device), counts.to(cache.lengths.device)
    alive = list(range(len(prompts.ids)))
    written: list[list[int]] = [[] for _ in alive]
    draws = [generator(how.decoding_seed, "text", n) for n in prompts.numbers or alive]
    states = voice.body.step(ids, cache, counts)[torch.arange(len(alive), device=ids.device), counts - 1]
    for length in range(1, how.max_new_tokens + 1):
        past = partial(_past, prompts, written, alive)
        scores = ruled(voice.scores(states).float(), past, [length - 1] * len(alive), voice.end, how)
        gained, tokens = _chosen(scores, [draws[n] for n in alive], how)
        going: list[int] = []
        for place, (number, token, score) in enumerate(zip(alive, tokens.tolist(), gained.tolist(), strict=True)):
            yield number, token, score
            written[number].append(token)
            full = len(prompts.ids[number]) + length >= voice.limit
            if token != voice.end and not full and stopped(voice, prompts.ids[number], written[number], how) is None:
                going.append(place)
        if not going or length == how.max_new_tokens:
            return
        if len(going) < len(alive):
            kept = torch.tensor(going, device=ids.device)
            cache.select(kept, kept)
            alive, tokens = [alive[place] for place in going], tokens[kept]
        states = voice.body.step(tokens[:, None], cache)[:, 0]


def _past(prompts: Prompts, written: list[list[int]], alive: list[int]) -> list[list[int]]:
    return [prompts.ids[n] + written[n] for n in alive]


def _chosen(scores: Tensor, draws: list[torch.Generator], how: Decoding) -> tuple[Tensor, Tensor]:
    """The log-likelihood "N" of the next token of each text, and the token "N"."""
    if how.temperature == 0:
        best, place = likeliest(scores, 1)
        return best.squeeze(1), place.squeeze(1)
    numbers = torch.cat([torch.rand(1, generator=each, dtype=torch.float64) for each in draws])
    tokens = drawn(shares(scores, how), numbers.to(scores.device))
    return scores.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1), tokens


def stopped(voice: Voice, before: Sequence[int], ids: Sequence[int], how: Decoding) -> str | None:
    """What was added to a prompt up to the first word that stops it; None where there is no such word in it."""
    if not how.stop:
        return None
    text = voice.text(before, ids)
    places = [place for word in how.stop if (place := text.find(word)) >= 0]
    return text[: min(places)] if places else None
