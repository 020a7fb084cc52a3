"""Span corruption: a text with gaps, and what fills them; what T5 is trained on (Raffel et al. 2020, arXiv:1910.10683, 3.1.4)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def with_gaps(
    tokens: Tensor,
    sentinels: Sequence[int],
    rng: torch.Generator,
    share: float = 0.15,
    mean_length: float = 3.0,
    anywhere: bool = False,
) -> tuple[Tensor, Tensor]:
    """(input, target) of a text of ids "T", without special tokens around: a pure function of (tokens, rng).

    `share` of the tokens, at least one and not all, are taken out in spans of `mean_length` on average. The input has the
    first sentinel where the first span was, the second where the second was; the target is each sentinel with its span. As in
    the paper's code a text begins with a token that stays and ends with a gap, and lengths are drawn evenly among all ways to
    cut the tokens into so many parts. There are no more spans than sentinels. A text of one token or none stays whole.
    `anywhere`: a text may begin with a gap and end with a token; else the one gap of a short text is always its end.

    >>> rng = torch.Generator().manual_seed(0)
    >>> given, wanted = with_gaps(torch.arange(10), [99, 98, 97], rng, share=0.4, mean_length=2.0)
    >>> sorted(given.tolist() + wanted.tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 98, 98, 99, 99]
    """
    gone, spans = sizes(len(tokens), share, mean_length, len(sentinels))
    if not spans:
        return tokens, tokens[:0]
    left = len(tokens) - gone
    stay = _cut(left + 2, spans + 1, rng)[:-1] if anywhere else _cut(left, spans, rng)
    stay[0] -= anywhere  # with one more token at each end every part has one or more, the outer ones none of their own perhaps
    leave = _cut(gone, spans, rng)
    given: list[Tensor] = []
    wanted: list[Tensor] = []
    start = 0
    for kept, taken, sentinel in zip(stay, leave, sentinels, strict=False):
        mark = tokens.new_tensor([sentinel])
        given += [tokens[start : start + kept], mark]
        wanted += [mark, tokens[start + kept : start + kept + taken]]
        start += kept + taken
    return torch.cat([*given, tokens[start:]]), torch.cat(wanted)


def without_gaps(given: Sequence[int], wanted: Sequence[int], sentinels: Sequence[int]) -> list[int]:
    """The text that an input and a target of `with_gaps` were made from: each span where its sentinel stands.

    >>> without_gaps([0, 1, 99, 5, 98], [99, 2, 3, 4, 98, 6], [99, 98, 97])
    [0, 1, 2, 3, 4, 5, 6]
    """
    places = [i for i, token in enumerate(wanted) if token in sentinels]
    spans = {wanted[a]: wanted[a + 1 : b] for a, b in pairwise([*places, len(wanted)])}
    return [inner for token in given for inner in spans.get(token, [token])]


def sizes(length: int, share: float, mean_length: float, most: int) -> tuple[int, int]:
    """How many tokens of a text are taken out, and in how many spans."""
    if length < 2 or not most:
        return 0, 0
    gone = min(max(round(share * length), 1), length - 1)
    return gone, min(max(round(gone / mean_length), 1), gone, length - gone, most)


def _cut(items: int, parts: int, rng: torch.Generator) -> list[int]:
    """Lengths of 1 or more that sum to `items`, each way equally likely."""
    places = torch.randperm(items - 1, generator=rng)[: parts - 1].sort().values + 1
    return torch.cat([places, torch.tensor([items])]).diff(prepend=torch.tensor([0])).tolist()
