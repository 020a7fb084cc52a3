"""Tokens on disk: what goes in comes out, a key is written once, a broken run leaves no cache."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from trainformer.core.batch import Encoded, Part
from trainformer.data.cache import TokenCache, cached
from trainformer.data.plan import Plan, Rows, by_length

LENGTHS = [3, 7, 2, 9, 4, 4, 1, 8]


def made(lengths: list[int] = LENGTHS) -> Iterator[tuple[Encoded, int]]:
    for row, n in enumerate(lengths):
        part = Part(torch.arange(n, dtype=torch.int32) + 10 * row, [n], torch.ones(n, dtype=torch.uint8))
        yield Encoded((part,), torch.tensor([row % 2]), row, weight=1.0 + row, cut_tokens=row), row


@pytest.fixture
def cache(tmp_path: Path) -> TokenCache:
    return cached(tmp_path, {"a": 1}, made(), typed=True)


def test_what_goes_in_comes_out(cache: TokenCache) -> None:
    assert len(cache) == 8
    for (item, unknown), i in zip(made(), range(8), strict=True):
        found = cache[i]
        assert found.parts[0].ids.tolist() == item.parts[0].ids.tolist()
        assert found.parts[0].lengths == item.parts[0].lengths
        assert found.target.tolist() == item.target.tolist() and found.target.dtype == torch.long
        assert (found.weight, found.cut_tokens) == (item.weight, item.cut_tokens)
        assert int(cache.unknown[i]) == unknown
    assert cache.lengths.tolist() == LENGTHS


def test_a_key_is_written_once_and_another_key_is_another_cache(tmp_path: Path, cache: TokenCache) -> None:
    def forbidden() -> Iterator[tuple[Encoded, int]]:
        raise AssertionError("it is there already")
        yield

    assert len(cached(tmp_path, {"a": 1}, forbidden(), typed=True)) == 8
    assert len(cached(tmp_path, {"a": 2}, made([5]), typed=False)) == 1


def test_a_writer_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def breaking() -> Iterator[tuple[Encoded, int]]:
        yield from made([3])
        raise ValueError("row 2")

    with pytest.raises(ValueError, match="row 2"):
        cached(tmp_path, {"a": 3}, breaking(), typed=True)
    assert list(tmp_path.iterdir()) == []


def plan(cache: TokenCache, **changes: object) -> Plan:
    settings: dict[str, object] = {"step_rows": 3, "micro_tokens": 10, "epochs": 2, "seed": 5}
    return Plan(Rows(cache, torch.arange(8)), **(settings | changes))  # type: ignore[arg-type]


def test_a_plan_is_a_pure_function_of_seed_and_step(cache: TokenCache) -> None:
    one, other = plan(cache), plan(cache)
    backwards = [[b.rows for b in one[s]] for s in reversed(range(len(one)))]
    assert [[b.rows for b in other[s]] for s in range(len(other))] == backwards[::-1]
    assert [[b.rows for b in plan(cache, seed=6)[s]] for s in range(6)] != backwards[::-1]


def test_every_epoch_reads_every_row_once_within_the_budget(cache: TokenCache) -> None:
    p = plan(cache)
    assert (p.steps_an_epoch, len(p)) == (3, 6)
    for epoch in range(2):
        batches = [b for s in range(3) for b in p[3 * epoch + s]]
        assert sorted(r for b in batches for r in b.rows) == list(range(8))
        assert all(b.tokens <= 10 for b in batches)


def test_ranks_share_a_step(cache: TokenCache) -> None:
    whole = sorted(r for b in plan(cache)[1] for r in b.rows)
    shared = [r for rank in (0, 1) for b in plan(cache, rank=rank, world=2)[1] for r in b.rows]
    assert sorted(shared) == whole


def test_padding_counts_where_the_model_pads(cache: TokenCache) -> None:
    batches = [b for s in range(3) for b in plan(cache, padded=True)[s]]
    assert all(len(b) * b.parts[0].longest <= 10 for b in batches)


def test_longest_first(cache: TokenCache) -> None:
    lengths = [n for b in by_length(Rows(cache, torch.arange(8)), 12) for n in b.parts[0].lengths]
    assert lengths == sorted(LENGTHS, reverse=True)


def test_examples_of_two_parts(tmp_path: Path) -> None:
    """Source and target, of as many sequences as they have, with units and bytes."""
    rows = []
    for row, (own, others) in enumerate([([2], [3]), ([1, 4], [2, 1]), ([5], [1])]):
        parts = tuple(Part(torch.arange(sum(n), dtype=torch.int32) + 10 * row, n) for n in (own, others))
        target = torch.arange(sum(others))
        rows.append(Encoded(parts, target, row, units=len(target), bytes=7 * row))
    cache = cached(tmp_path, {"a": 9}, ((row, 0) for row in rows), typed=False)
    assert cache.lengths.tolist() == [5, 8, 6]
    for i, row in enumerate(rows):
        found = cache[i]
        assert [p.ids.tolist() for p in found.parts] == [p.ids.tolist() for p in row.parts]
        assert [p.lengths for p in found.parts] == [p.lengths for p in row.parts]
        assert (found.target.tolist(), found.units, found.bytes) == (row.target.tolist(), row.units, row.bytes)
