"""What is kept while texts are written: following texts moves nothing and is the same as laying them out anew."""

import copy

import pytest
import torch
from torch import Tensor

from trainformer.nn import cache as module
from trainformer.nn.cache import Cache, attend_cached, attend_memory

BEAM, SOURCES, HEADS, GROUPS, WIDTH = 3, [4, 1, 6, 2], 4, 2, 5


def begun(shift: int = 0) -> Cache:
    """Prompts of unequal lengths, BEAM texts a source."""
    lengths = torch.tensor([2, 1, 3, 2]) + shift
    cache = Cache(torch.zeros(4, dtype=torch.long))
    for number in (0, 1):
        cache.remember(number, SOURCES, (torch.randn(GROUPS, sum(SOURCES), WIDTH), torch.randn(GROUPS, sum(SOURCES), WIDTH)))
        cache.extend(number, *torch.randn(2, 4, 3 + shift, GROUPS, WIDTH))
    cache.lengths = lengths
    cache.select(torch.arange(4).repeat_interleave(BEAM))
    return cache


def heard(cache: Cache, told: Tensor) -> list[Tensor]:
    """One token more for each text, in two layers; what it hears of its text and of its source."""
    found = []
    for number in (0, 1):
        query, key, value = told[number, :, :, None].unbind(1)
        cache.extend(number, key[:, :, :GROUPS], value[:, :, :GROUPS])
        found.append(attend_cached(query, number, cache, None, None, None))
        found.append(attend_memory(query, number, cache, None))
    cache.lengths = cache.lengths + 1
    return found


@pytest.mark.parametrize("kernel", [True, False])
@torch.inference_mode()
def test_to_follow_is_to_select(kernel: bool, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Texts change places within their source at each step, sources end, and others join them."""
    if kernel:
        request.getfixturevalue("kernels")
    else:
        monkeypatch.setattr(module, "looks_back", lambda query: False)
    torch.manual_seed(0)
    still = begun()
    moved = copy.deepcopy(still)
    for step in range(24):
        if step == 12:
            more = begun(4)
            still, moved = still.joined(copy.deepcopy(more)), moved.joined(more)
        count = len(still.lengths) // BEAM
        sources = torch.tensor([i for i in range(count) if i != 1]) if step in (3, 5, 15, 18) else None
        kept = range(count) if sources is None else sources.tolist()
        texts = torch.cat([i * BEAM + torch.randint(0, BEAM, (BEAM,)) for i in kept])
        still.follow(texts, sources)
        moved.select(texts, sources)
        assert still.origin is None or len(still.lengths) * 2 > len(still.own[0][0])
        told = torch.randn(2, len(texts), 3, HEADS, WIDTH)
        for one, other in zip(heard(still, told), heard(moved, told), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    assert len(still.lengths) == BEAM * (4 - 2 + 4 - 2)
