"""Which tokens are hidden from a model that is to tell them, and by what: pure functions of (tokens, generator).

BERT (Devlin et al. 2019, arXiv:1810.04805) hides 15 % of the tokens: 80 % of them behind [MASK], 10 % behind a random token, and
10 % are left as they are. Drawn anew in every epoch, as RoBERTa does (Liu et al. 2019, arXiv:1907.11692).
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from trainformer.core.batch import Encoded, Part
from trainformer.core.protocols import Tokens
from trainformer.data.encode import encode_texts

MASKED, RANDOM = 0.8, 0.1
Text = tuple[list[int], list[int]]
"""Ids and the number of the word of each."""
Marked = tuple[list[int], list[int], list[int]]
"""Ids, token types and word numbers of a sequence; -1 where a token is special and never hidden."""


def chosen(words: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Which tokens are to be told: bool "T". `words` "T" are numbers of words, -1 what is never chosen.

    Whole words in random order until the share is reached; the word at the border is taken with the chance that makes the
    mean share exact. At least one word, if there is any.
    """
    own, sizes = _words(words)
    picked = torch.zeros(len(words), dtype=torch.bool)
    if not len(sizes):
        return picked
    order = torch.randperm(len(sizes), generator=rng)
    border = torch.rand((), generator=rng)
    ordered = sizes[order].double()
    before = ordered.cumsum(0) - ordered
    budget = max(1.0, share * float(sizes.sum()))
    taken = before + border * ordered < budget
    taken[0] = True
    whole = torch.zeros(len(sizes), dtype=torch.bool).index_copy(0, order, taken)
    picked[words >= 0] = whole[own]
    return picked


def folds(words: Tensor, share: float, rng: torch.Generator) -> list[Tensor]:
    """Masks "T" that together choose every word once, each about the share of the tokens."""
    own, sizes = _words(words)
    count = max(1, round(1 / share))
    order = torch.randperm(len(sizes), generator=rng)
    ordered = sizes[order].double()
    middle = ordered.cumsum(0) - ordered / 2
    place = (middle * count / max(1.0, float(sizes.sum()))).long()
    fold = torch.zeros(len(sizes), dtype=torch.long).index_copy(0, order, place)
    found = torch.full((len(words),), -1)
    found[words >= 0] = fold[own]
    return [found == i for i in range(count) if bool((found == i).any())]


def _words(words: Tensor) -> tuple[Tensor, Tensor]:
    """For each token that may be chosen the place of its word, and the tokens of each word."""
    _, own, sizes = torch.unique(words[words >= 0], return_inverse=True, return_counts=True)
    return own, sizes


def hidden(ids: Tensor, picked: Tensor, mask: int, others: Tensor, rng: torch.Generator) -> Tensor:
    """The ids "T" as the model sees them: of the picked 80 % masked, 10 % a random one of the ids `others`, 10 % as they are."""
    draw = torch.rand(len(ids), generator=rng)
    other = others[torch.randint(len(others), (len(ids),), generator=rng)].to(ids.dtype)
    seen = torch.where(picked & (draw < MASKED), torch.full_like(ids, mask), ids)
    return torch.where(picked & (draw >= MASKED) & (draw < MASKED + RANDOM), other, seen)


def chunks(text: Text, room: int) -> list[Text]:
    """A text in as few runs of at most `room` tokens as it takes, of about equal length; nothing is cut off."""
    ids, words = text
    count = max(1, -(-len(ids) // max(1, room)))
    ends = [len(ids) * i // count for i in range(count + 1)]
    return [(ids[a:b], words[a:b]) for a, b in pairwise(ends)]


def in_a_row(first: Text, second: Text) -> list[Text]:
    """Two texts whose words have numbers of their own."""
    return [first, (second[0], [word + 1 + max(first[1], default=0) for word in second[1]])]


def marked(texts: Sequence[Text], tokens: Tokens, limit: int) -> tuple[Marked, int]:
    """One text or two in special tokens, every token with the number of its word, and how many tokens were cut."""
    sequences, cut = encode_texts([ids for ids, _ in texts], tokens, limit)
    signs, _ = encode_texts([[-2 - word for word in words] for _, words in texts], tokens, limit)  # no id is below 0
    (ids, kinds), (marks, _) = sequences[0], signs[0]
    return (ids, kinds, [-2 - mark if mark < 0 else -1 for mark in marks]), cut


def ordinary(tokens: Tokens) -> list[tuple[int, int]]:
    """Runs of ids, from and to (which is not in it), that are no special tokens: what a random token is drawn from."""
    edges = [-1, *sorted(tokens.special_ids), tokens.vocabulary]
    return [(a + 1, b) for a, b in pairwise(edges) if b > a + 1]


def read(encoded: Encoded, one_of_many: bool, rng: torch.Generator) -> tuple[Encoded, Tensor]:
    """An example and the words "T" of its tokens, which its target holds; with `one_of_many` only one of its sequences.

    The target becomes which one it is, or nothing.
    """
    part, words = encoded.parts[0], encoded.target[: len(encoded.parts[0].ids)].long()
    if not one_of_many:
        return replace(encoded, target=words[:0]), words
    taken = int(torch.randint(len(part.lengths), (), generator=rng))
    start = sum(part.lengths[:taken])
    here = slice(start, start + part.lengths[taken])
    own = Part(part.ids[here], [part.lengths[taken]], None if part.kinds is None else part.kinds[here])
    return replace(encoded, parts=(own,), target=torch.tensor([taken])), words[here]


def told(one: Encoded, picked: Tensor, seen: Tensor) -> Encoded:
    """The example as the model sees it, `seen` "T", with a unit for each picked token; what is in its target already is read
    at its first token. Where nothing is picked there is one unit that weighs nothing."""
    part, places = one.parts[0], picked.nonzero().squeeze(1)
    at = torch.cat([torch.zeros_like(one.target), places])
    if not len(at):
        return replace(one, target=part.ids[:1].long(), at=torch.tensor([0]), units=1, weight=0.0)
    target = torch.cat([one.target, part.ids[places].long()])
    return replace(one, parts=(replace(part, ids=seen),), target=target, at=at, units=len(at))
