"""Beam search: several texts are followed at once, and the best finished one is taken.

The score of a text y of a source x (Wu et al. 2016, arXiv:1609.08144):

    log P(y | x) / ((5 + |y|) / 6)^a  +  b * sum over source tokens i of log(min(attention that i got in all, 1))

An exact search ends when no text that is still open can be better than the worst that is wanted: likelihoods only fall, so its
own, over the divisor of the longest length, is the most it can have. Long after a sentence is over that is still more than the
finished ones have, though texts so long are never the best. So a search usually ends soon: when no open text would be better if
it ended with its next token, and that token cost nothing. Who wants the best text alone has it some steps before the others.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor

from trainformer.nn.cache import Cache
from trainformer.nn.decoding import NEVER, Decoding, ruled
from trainformer.nn.generate import Prompts, Voice, Written, stopped
from trainformer.nn.likeliest import likeliest

ROWS = 128
"""Texts whose scores are there at a time on a CPU: so few that its cache holds them until they are sorted out."""
LAST = 4
"""A group waits for others when no more than this share of its sources is open, one in so many."""


def divisor(tokens: int, power: float) -> float:
    """What the log-likelihood of a text of so many tokens, the end included, is divided by."""
    return float(((5 + tokens) / 6) ** power)


@dataclass
class _Source:
    """The search of one source: what its texts begin with, how many tokens they have, the best finished ones, best first."""

    ids: list[int]
    longest: int
    length: int = 0
    kept: list[tuple[float, Written]] = field(default_factory=list)

    def add(self, score: float, text: Written, most: int) -> None:
        self.kept = sorted([*self.kept, (score, text)], key=lambda pair: -pair[0])[:most]

    def settled(self, best_open: float, how: Decoding, wanted: int) -> bool:
        """Whether nothing that is open can still be among the best."""
        reached = self.longest if how.beam_end == "exact" else min(self.length + 1, self.longest)
        return len(self.kept) >= wanted and best_open / divisor(reached, how.length_penalty) <= self.kept[wanted - 1][0]


@torch.inference_mode()
def beam_search(
    voice: Voice, prompts: Prompts, how: Decoding, later: Iterable[Prompts] = (), wanted: int | None = None
) -> list[list[tuple[float, Written]]]:
    """For each prompt its best texts, at most `how.beam`, each with its score, the best first.

    `wanted`: how many of them must be the best that there are; none: all. `later`: more prompts, group by group. The last texts
    of a group, which may be long, wait for those of the others and are finished with them, instead of alone.
    """
    every: list[_Source] = []
    waiting: _Search | None = None
    for group in chain([prompts], later):
        search = _Search(voice, group, how, wanted or how.beam)
        every += search.open
        search.go_on(len(group.ids) // LAST)
        if waiting is not None:
            search.join(waiting)
        if len(search.open) > len(group.ids):
            search.go_on(len(group.ids) // LAST)
        waiting = search
    if waiting is not None:
        waiting.go_on(0)
    return [source.kept for source in every]


class _Search:
    """Some sources at once: `how.beam` open texts for each that is not settled, side by side."""

    def __init__(self, voice: Voice, prompts: Prompts, how: Decoding, wanted: int):
        self.voice, self.how, self.wanted = voice, how, wanted
        self.open = [_Source(ids, min(how.max_new_tokens, voice.limit - len(ids))) for ids in prompts.ids]
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

    def join(self, more: "_Search") -> None:
        """Goes on with the open sources of another search, too."""
        if not more.open:
            return
        self.cache = self.cache.joined(more.cache) if self.open else more.cache
        self.open, self.texts = self.open + more.open, self.texts + more.texts
        self.states, self.total = torch.cat([self.states, more.states]), torch.cat([self.total, more.total])

    def go_on(self, left: int) -> None:
        """Until no more than so many sources are open."""
        while len(self.open) > left:
            self._go()

    def _go(self) -> None:
        """One token more for each open text."""
        for source in self.open:
            source.length += 1
        taken = [self._sorted_out(source, each) for source, each in zip(self.open, self._best(), strict=True)]
        going = [i for i, source in enumerate(self.open) if taken[i] and not self._over(source, taken[i])]
        if going:
            self._follow([taken[i] for i in going], going)
        else:
            self.open, self.texts, self.states, self.total = [], [], self.states[:0], self.total[:0]

    def _best(self) -> list[list[tuple[float, int, int]]]:
        """Of each source what may come next, the best first: (log-likelihood in all, number of the text, token)."""
        beam, count = self.how.beam, len(self.texts)
        rows = ROWS if self.states.device.type == "cpu" else count
        found = [self._likeliest(range(i, min(i + rows, count))) for i in range(0, count, rows)]
        gained, tokens = map(torch.cat, zip(*found, strict=True))
        whole = (self.total[:, :, None] + gained.view(len(self.open), beam, -1)).flatten(1)
        best, place = whole.topk(min(2 * beam, whole.shape[1]), -1)
        texts = place // tokens.shape[1] + beam * torch.arange(len(place), device=place.device)[:, None]
        columns = [column.tolist() for column in (best, texts, tokens.view(len(place), -1).gather(1, place))]
        return [list(zip(score, text, token, strict=True)) for score, text, token in zip(*columns, strict=True)]

    def _likeliest(self, texts: range) -> tuple[Tensor, Tensor]:
        """The likeliest next tokens of some open texts: of two times the beam at most one in two can end."""
        sources = [self.open[i // self.how.beam] for i in texts]

        def past() -> list[list[int]]:
            return [source.ids + self.texts[i] for source, i in zip(sources, texts, strict=True)]

        scores = self.voice.scores(self.states[texts.start : texts.stop]).float()
        written = [source.length - 1 for source in sources]
        return likeliest(ruled(scores, past, written, self.voice.end, self.how), 2 * self.how.beam)

    def _sorted_out(self, source: _Source, pairs: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
        """Puts the texts that end aside; the best of the others, as many as the beam holds."""
        still: list[tuple[float, int, int]] = []
        full = source.length >= source.longest
        for score, text, token in pairs:
            if score == NEVER or len(still) == self.how.beam:
                break
            ids = self.texts[text] + [token] * (token != self.voice.end)
            cut = stopped(self.voice, source.ids, ids, self.how)
            ends = token == self.voice.end or cut is not None
            if ends or full:
                whole = score / divisor(source.length, self.how.length_penalty) + self._coverage(text)
                source.add(whole, Written(ids, score, ends, cut), self.how.beam)
            else:
                still.append((score, text, token))
        return still

    def _over(self, source: _Source, still: list[tuple[float, int, int]]) -> bool:
        return source.length >= source.longest or source.settled(still[0][0], self.how, self.wanted)

    def _coverage(self, text: int) -> float:
        covered, real = self.cache.covered, self.cache.real
        if covered is None or real is None:
            return 0.0
        own = covered[text][real[text // self.how.beam]]
        return self.how.coverage_penalty * float(own.clamp(1e-9, 1.0).log().sum())

    def _follow(self, taken: list[list[tuple[float, int, int]]], going: list[int]) -> None:
        """The open texts of the sources that go on take the place of those before."""
        device, beam = self.total.device, self.how.beam
        left = torch.tensor(going, device=device) if len(going) < len(self.open) else None
        self.open = [self.open[i] for i in going]
        filled = [still + [(NEVER, *still[0][1:])] * (beam - len(still)) for still in taken]
        flat = [each for still in filled for each in still]
        self.texts = [self.texts[text] + [token] for _, text, token in flat]
        self.total = torch.tensor([[score for score, _, _ in still] for still in filled], device=device)
        self.cache.follow(torch.tensor([text for _, text, _ in flat], device=device), left)
        tokens: Tensor = torch.tensor([[token] for _, _, token in flat], device=device)
        self.states = self.voice.body.step(tokens, self.cache)[:, 0]
