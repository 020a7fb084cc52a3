"""A step's rows on several ranks: each row once, tokens and not rows in balance, and always the same."""

import pytest
import torch

from trainformer.core.batch import Encoded, Part
from trainformer.data.plan import share


def examples(lengths: list[int]) -> list[Encoded]:
    """Longest first, as a step has them."""
    ordered = sorted(lengths, reverse=True)
    return [Encoded((Part(torch.zeros(n, dtype=torch.int32), [n]),), torch.tensor([0.0]), i) for i, n in enumerate(ordered)]


def dealt(items: list[Encoded], world: int) -> list[list[int]]:
    return [[e.tokens for e in share(items, rank, world)] for rank in range(world)]


def test_one_process_has_all() -> None:
    items = examples([3, 9, 5])
    assert share(items, 0, 1) == items


def test_the_longest_goes_where_least_is() -> None:
    """By hand: 9 | 7 | 7+6 | 9+5 | 13+4."""
    assert dealt(examples([9, 7, 6, 5, 4]), 2) == [[9, 5], [7, 6, 4]]


def test_one_long_row_weighs_as_much_as_many_short_ones() -> None:
    """By rows 8 and 8 would be 512 + 7 * 16 tokens beside 8 * 16: 624 and 128. By tokens it is the best there is."""
    items = examples([512] + [16] * 15)
    assert dealt(items, 2) == [[512], [16] * 15]


@pytest.mark.parametrize("world", [2, 3, 8])
def test_tokens_are_in_balance(world: int) -> None:
    """Lengths as of real texts, many short and few long: no rank has more than 4/3 of the mean or of the longest row."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        lengths = (8 + 40 * torch.empty(64).exponential_(generator=draw)).int().clamp(max=512).tolist()
        items = examples(lengths)
        used = [sum(n) for n in dealt(items, world)]
        assert sum(used) == sum(lengths)
        assert max(used) <= 4 / 3 * max(sum(lengths) / world, max(lengths))
        naive = [sum(e.tokens for e in items[rank::world]) for rank in range(world)]
        assert max(used) <= max(naive)
        assert sorted(e.row for rank in range(world) for e in share(items, rank, world)) == list(range(64))


def test_a_rank_may_have_none() -> None:
    assert dealt(examples([5]), 3) == [[5], [], []]
