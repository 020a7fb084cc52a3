"""Span corruption: what is taken out comes back, and the numbers are those of the paper."""

import math

import pytest
import torch
from torch import Tensor

from trainformer.data.gaps import sizes, with_gaps, without_gaps

SENTINELS = list(range(1000, 900, -1))


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(given: Tensor, wanted: Tensor) -> list[int]:
    """The text that a reader gets who puts each span where its sentinel stands."""
    spans: dict[int, list[int]] = {}
    for token in wanted.tolist():
        if token > 900:
            spans[token] = []
            last = token
        else:
            spans[last].append(token)
    return [t for token in given.tolist() for t in spans.get(token, [token])]


@pytest.mark.parametrize("length", [2, 3, 7, 50, 512])
def test_filling_the_gaps_gives_the_text_and_the_share_is_exact(length: int) -> None:
    tokens = torch.arange(length)
    for seed in range(200):
        given, wanted = with_gaps(tokens, SENTINELS, rng(seed))
        assert filled(given, wanted) == tokens.tolist() == without_gaps(given.tolist(), wanted.tolist(), SENTINELS)
        marks = [t for t in wanted.tolist() if t > 900]
        assert marks == SENTINELS[: len(marks)] == [t for t in given.tolist() if t > 900], "each sentinel once, in order"
        assert len(wanted) - len(marks) == min(max(round(0.15 * length), 1), length - 1)
        assert given[0] == 0 and given[-1] == marks[-1], "a token stays first, a gap is last"


def test_numbers_of_a_text_of_512_tokens_are_those_of_the_paper() -> None:
    assert sizes(512, 0.15, 3.0, 100) == (77, 26), "77 of 512 tokens in 26 spans: 512 become 461, and 103 are to be written"
    given, wanted = with_gaps(torch.arange(512), SENTINELS, rng(0))
    assert (len(given), len(wanted)) == (512 - 77 + 26, 77 + 26)
    assert sizes(512, 0.5, 1.0, 100)[1] == 100 and sizes(0, 0.15, 3, 100) == sizes(1, 0.15, 3, 100) == (0, 0)
    assert with_gaps(torch.tensor([5]), SENTINELS, rng(0))[0].tolist() == [5]


def test_every_way_to_cut_is_equally_likely() -> None:
    """6 tokens, half of them out, in 2 spans: 3 = 1+2 or 2+1 on either side, four texts in all."""
    found: dict[tuple[int, ...], int] = {}
    draws = 4000
    for seed in range(draws):
        given, _ = with_gaps(torch.arange(6), SENTINELS, rng(seed), share=0.5, mean_length=1.5)
        key = tuple(given.tolist())
        found[key] = found.get(key, 0) + 1
    assert len(found) == 4
    bound = 4 * math.sqrt(draws * 0.25 * 0.75)
    assert all(abs(count - draws / 4) < bound for count in found.values())


def test_the_same_draw_gives_the_same_gaps() -> None:
    one, other = (with_gaps(torch.arange(60), SENTINELS, rng(3)) for _ in range(2))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert not torch.equal(one[0], with_gaps(torch.arange(60), SENTINELS, rng(4))[0])


def test_anywhere_every_place_of_a_gap_is_equally_likely() -> None:
    """20 tokens, 3 of them in one span: 18 places, the first and the last among them; its length is what it is without."""
    found = torch.zeros(18)
    draws = 9000
    for seed in range(draws):
        given, wanted = with_gaps(torch.arange(20), SENTINELS, rng(seed), anywhere=True)
        place = int((given == SENTINELS[0]).nonzero())
        assert len(given) == 18 and wanted.tolist() == [SENTINELS[0], place, place + 1, place + 2]
        found[place] += 1
    bound = 4 * math.sqrt(draws / 18 * 17 / 18)
    assert bool(((found - draws / 18).abs() < bound).all())


@pytest.mark.parametrize("length", [2, 3, 7, 50, 512])
@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
def test_anywhere_nothing_is_lost_and_lengths_are_the_same(length: int, share: float) -> None:
    for seed in range(50):
        given, wanted = with_gaps(torch.arange(length), SENTINELS, rng(seed), share, 2.0, anywhere=True)
        usual = with_gaps(torch.arange(length), SENTINELS, rng(seed), share, 2.0)
        assert filled(given, wanted) == list(range(length)) == without_gaps(given.tolist(), wanted.tolist(), SENTINELS)
        assert (len(given), len(wanted)) == tuple(map(len, usual))
