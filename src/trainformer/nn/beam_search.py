"""Beam search: several texts are followed at once, and the best finished one is taken.

The score of a text y of a source x (Wu et al. 2016, arXiv:1609.08144):

    log P(y | x) / ((5 + |y|) / 6)^a  +  b * sum over source tokens i of log(min(attention that i got in all, 1))

An exact search ends when no text that is still open can be better than the worst that is kept: likelihoods only fall, so its
own, over the divisor of the longest length, is the most it can have. Long after a sentence is over that is still more than the
finished ones have, though texts so long are never the best. So a search usually ends soon: when no open text would be better if
it ended with its next token, and that token cost nothing.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainformer.nn.cache import Cache
from trainformer.nn.decoding import NEVER, Decoding, ruled
from trainformer.nn.generate import Prompts, Voice, Written, stopped


def divisor(tokens: int, power: float) -> float:
    """What the log-likelihood of a text of so many tokens, the end included, is divided by."""
    return float(((5 + tokens) / 6) ** power)


@dataclass
class _Source:
    """The search of one source: the best finished texts so far, the best first."""

    number: int
    kept: list[tuple[float, Written]] = field(default_factory=list)

    def add(self, score: float, text: Written, most: int) -> None:
        self.kept = sorted([*self.kept, (score, text)], key=lambda pair: -pair[0])[:most]

    def settled(self, best_open: float, length: int, longest: int, how: Decoding) -> bool:
        """Whether nothing that is open, at so many tokens, can still be among the best."""
        reached = longest if how.beam_end == "exact" else min(length + 1, longest)
        return len(self.kept) == how.beam and best_open / divisor(reached, how.length_penalty) <= self.kept[-1][0]


@torch.inference_mode()
def beam_search(voice: Voice, prompts: Prompts, how: Decoding) -> list[list[tuple[float, Written]]]:
    """For each prompt its best texts, at most `how.beam`, each with its score, the best first."""
    search = _Search(voice, prompts, how)
    for length in range(1, how.max_new_tokens + 1):
        if not search.go(length):
            break
    return [source.kept for source in search.every]


class _Search:
    """All sources at once: `how.beam` open texts for each source that is not settled, side by side."""

    def __init__(self, voice: Voice, prompts: Prompts, how: Decoding):
        self.voice, self.prompts, self.how = voice, prompts, how
        self.every = [_Source(n) for n in range(len(prompts.ids))]
        self.open = list(self.every)
        self.longest = [min(how.max_new_tokens, voice.limit - len(ids)) for ids in prompts.ids]
        ids, counts = prompts.block
        self.cache: Cache = voice.body.begin(len(ids), prompts.source)
        if how.coverage_penalty and self.cache.real is not None:
            self.cache.covered = self.cache.real.new_zeros(self.cache.real.shape, dtype=torch.float)
        device = self.cache.lengths.device
        rows = torch.arange(len(ids), device=device)
        self.states = voice.body.step(ids.to(device), self.cache, counts.to(device))[rows, counts.to(device) - 1]
        self.cache.select(rows.repeat_interleave(how.beam))
        self.states = self.states.repeat_interleave(how.beam, 0)
        self.texts: list[list[int]] = [[] for _ in range(len(ids) * how.beam)]
        self.total = torch.full((len(ids), how.beam), NEVER, device=device)
        self.total[:, 0] = 0.0  # all of a source's texts are the same at first

    def go(self, length: int) -> bool:
        """One token more for each open text; whether any is left."""
        taken = [self._sorted_out(source, each, length) for source, each in zip(self.open, self._best(length), strict=True)]
        going = [i for i, source in enumerate(self.open) if taken[i] and not self._over(source, taken[i], length)]
        if not going:
            return False
        self._go_on([taken[i] for i in going], going)
        return True

    def _best(self, length: int) -> list[list[tuple[float, int, int]]]:
        """Of each source what may come next, the best first: (log-likelihood in all, number of the text, token)."""
        beam, voice = self.how.beam, self.voice
        scores = ruled(voice.scores(self.states).float(), self._past, length - 1, voice.end, self.how)
        top, tokens = scores.topk(min(2 * beam, scores.shape[-1]), -1)  # of two times the beam at most one in two can end
        gained = top - scores.logsumexp(-1, keepdim=True)
        whole = (self.total[:, :, None] + gained.view(len(self.open), beam, -1)).flatten(1)
        best, place = whole.topk(min(2 * beam, whole.shape[1]), -1)
        texts = place // top.shape[1] + beam * torch.arange(len(place), device=place.device)[:, None]
        columns = [column.tolist() for column in (best, texts, tokens.view(len(place), -1).gather(1, place))]
        return [list(zip(score, text, token, strict=True)) for score, text, token in zip(*columns, strict=True)]

    def _past(self) -> list[list[int]]:
        """Each open text with what it began with."""
        return [self.prompts.ids[self.open[i // self.how.beam].number] + text for i, text in enumerate(self.texts)]

    def _sorted_out(self, source: _Source, pairs: list[tuple[float, int, int]], length: int) -> list[tuple[float, int, int]]:
        """Puts the texts that end aside; the best of the others, as many as the beam holds."""
        still: list[tuple[float, int, int]] = []
        full = length >= self.longest[source.number]
        for score, text, token in pairs:
            if score == NEVER or len(still) == self.how.beam:
                break
            ids = self.texts[text] + [token] * (token != self.voice.end)
            cut = stopped(self.voice, self.prompts.ids[source.number], ids, self.how)
            ends = token == self.voice.end or cut is not None
            if ends or full:
                whole = score / divisor(length, self.how.length_penalty) + self._coverage(text)
                source.add(whole, Written(ids, score, ends, cut), self.how.beam)
            else:
                still.append((score, text, token))
        return still

    def _over(self, source: _Source, still: list[tuple[float, int, int]], length: int) -> bool:
        longest = self.longest[source.number]
        return length >= longest or source.settled(still[0][0], length, longest, self.how)

    def _coverage(self, text: int) -> float:
        covered, real = self.cache.covered, self.cache.real
        if covered is None or real is None:
            return 0.0
        own = covered[text][real[text // self.how.beam]]
        return self.how.coverage_penalty * float(own.clamp(1e-9, 1.0).log().sum())

    def _go_on(self, taken: list[list[tuple[float, int, int]]], going: list[int]) -> None:
        """The open texts of the sources that go on take the place of those before."""
        device, beam = self.total.device, self.how.beam
        left = torch.tensor(going, device=device) if len(going) < len(self.open) else None
        self.open = [self.open[i] for i in going]
        filled = [still + [(NEVER, *still[0][1:])] * (beam - len(still)) for still in taken]
        flat = [each for still in filled for each in still]
        self.texts = [self.texts[text] + [token] for _, text, token in flat]
        self.total = torch.tensor([[score for score, _, _ in still] for still in filled], device=device)
        self.cache.select(torch.tensor([text for _, text, _ in flat], device=device), left)
        tokens: Tensor = torch.tensor([[token] for _, _, token in flat], device=device)
        self.states = self.voice.body.step(tokens, self.cache)[:, 0]
