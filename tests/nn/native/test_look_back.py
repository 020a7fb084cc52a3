"""A token's attention over the past of its text, against float64: rows that lie elsewhere, shared heads, odd widths, windows."""

import pytest
import torch
from torch import Tensor

from trainformer.nn.native.look_back import look_back, looks_back

LENGTHS = [1, 19, 7, 30, 2, 16]
ROOM, ROWS = 33, 9


def exact(query: Tensor, key: Tensor, value: Tensor, rows: list[list[int]], scale: float, window: int) -> Tensor:
    """Text by text; `rows`: in which row each token of a text lies."""
    heard = []
    for asked, where in zip(query[:, 0].double(), rows, strict=True):
        seen = list(enumerate(where))[-window:] if window else list(enumerate(where))
        told = [torch.stack([t[row, place] for place, row in seen]).double() for t in (key, value)]
        one, other = (t.repeat_interleave(query.shape[2] // t.shape[1], 1) for t in told)
        shares = (torch.einsum("hk,lhk->hl", asked, one) * scale).softmax(-1)
        heard.append(torch.einsum("hl,lhk->hk", shares, other))
    return torch.stack(heard)[:, None]


@pytest.mark.parametrize("window", [0, 1, 5])
@pytest.mark.parametrize(("heads", "groups", "width"), [(4, 4, 32), (4, 2, 64), (6, 2, 20), (3, 1, 7), (2, 1, 80)])
@pytest.mark.parametrize("lying", ["own", "rows", "origin"])
def test_what_is_heard(threads: int, lying: str, heads: int, groups: int, width: int, window: int) -> None:
    torch.manual_seed(0)
    query = 2 * torch.randn(len(LENGTHS), 1, heads, width)
    key, value = torch.randn(ROWS, ROOM, groups, width), torch.randn(ROWS, ROOM, groups, width)
    rows, origin = torch.randperm(ROWS)[: len(LENGTHS)], torch.randint(0, ROWS, (len(LENGTHS), 31))
    where = {"own": (None, None), "rows": (rows, None), "origin": (rows, origin)}[lying]
    lie = {"own": lambda i, n: [i] * n, "rows": lambda i, n: [int(rows[i])] * n, "origin": lambda i, n: origin[i, :n].tolist()}
    told = [lie[lying](i, n) for i, n in enumerate(LENGTHS)]
    found = look_back(query, (key, value), torch.tensor(LENGTHS), where, 0.3, window or None)
    torch.testing.assert_close(found.double(), exact(query, key, value, told, 0.3, window), atol=2e-6, rtol=1e-5)


def test_scores_of_any_size(threads: int) -> None:
    """The highest is taken off before any power is."""
    query, key = torch.full((1, 1, 1, 16), 30.0), torch.ones(1, 3, 1, 16)
    key[0, 1] = 2.0
    value = torch.arange(3.0)[None, :, None, None].expand(1, 3, 1, 16)
    assert torch.equal(look_back(query, (key, value), torch.tensor([3]), (None, None)), torch.ones(1, 1, 1, 16))


def test_what_is_no_number_is_heard(threads: int) -> None:
    query, key = torch.ones(2, 1, 1, 8), torch.ones(2, 3, 1, 8)
    key[0, 2, 0, 3] = float("nan")
    found = look_back(query, (key, key.nan_to_num(0.0)), torch.tensor([3, 3]), (None, None))
    assert found[0].isnan().all() and torch.equal(found[1], torch.ones(1, 1, 8))


def test_where_the_kernel_is_for() -> None:
    query = torch.ones(1, 1, 1, 8)
    with torch.inference_mode():
        assert looks_back(query) and not looks_back(query.bfloat16()) and not looks_back(query.to("meta"))
    assert not looks_back(query)
