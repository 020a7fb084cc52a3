"""Packed attention against the formula, written out sequence by sequence."""

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trainformer.nn.layout import Layout
from trainformer.nn.packed_attention import packed_attention

MODULE = torch.nn.Module()


def formula(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], window: int | None = None) -> Tensor:
    """softmax(q k / sqrt(K)) v of each sequence alone: "1 H T K" -> "1 T H K"."""
    outputs, start = [], 0
    for n in lengths:
        q, k, v = (t[0, :, start : start + n] for t in (query, key, value))
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        if window is not None:
            for i in range(n):
                for j in range(n):
                    if abs(i - j) >= window:
                        scores[:, i, j] = float("-inf")
        outputs.append((scores.softmax(-1) @ v).transpose(0, 1))
        start += n
    return torch.cat(outputs)[None]


def draw(lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return tuple(torch.randn(1, 3, sum(lengths), 4, generator=generator) for _ in range(3))  # type: ignore[return-value]


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("lengths", [[1], [5], [3, 3, 3], [4, 2, 2, 4], [7, 1, 5, 5, 2], [300, 2]])
def test_formula(lengths: list[int], window: int | None) -> None:
    q, k, v = draw(lengths)
    layout = Layout.of(lengths)
    ours, weights = packed_attention(MODULE, q, k, v, None, layout=layout, sliding_window=window)
    assert weights is None and ours.shape == (1, sum(lengths), 3, 4)
    torch.testing.assert_close(ours, formula(q, k, v, lengths, window), atol=1e-5, rtol=0)


def test_scale() -> None:
    q, k, v = draw([4, 6])
    ours, _ = packed_attention(MODULE, q, k, v, None, layout=Layout.of([4, 6]), scaling=1.0)
    torch.testing.assert_close(ours, formula(2 * q, k, v, [4, 6]), atol=1e-5, rtol=0)  # K = 4: 1 / sqrt(K) is a half


def test_dropout_of_attention() -> None:
    """With equal scores and values of 1, a token's output is the share of its n weights that stay, divided by 1 - p."""
    n, p = 400, 0.25
    zeros, ones = torch.zeros(1, 1, n, 1), torch.ones(1, 1, n, 1)
    torch.manual_seed(0)
    dropped, _ = packed_attention(MODULE, zeros, zeros, ones, None, layout=Layout.of([n]), dropout=p)
    assert abs(float(dropped.mean()) - 1) < 0.01
    assert float(dropped.std()) == pytest.approx((p / (1 - p) / n) ** 0.5, rel=0.15)


def test_what_is_not_packed_is_refused() -> None:
    """A cache of keys or a mask would be silently wrong."""
    q, k, v = draw([4, 6])
    layout = Layout.of([4, 6])
    with pytest.raises(AssertionError, match="keys of 12"):
        packed_attention(MODULE, q, torch.cat([k, k[:, :, :2]], 2), torch.cat([v, v[:, :, :2]], 2), None, layout=layout)
    with pytest.raises(AssertionError, match="or a mask"):
        packed_attention(MODULE, q, k, v, torch.ones(1, 1, 10, 10), layout=layout)


def test_groups() -> None:
    """Short neighbours go together while padding costs less than a group; long ones only with their equals."""
    assert [g.lengths for g in Layout.of([5, 5, 1, 5]).groups] == [(5, 5, 1, 5)]
    assert [g.lengths for g in Layout.of([100, 60, 60]).groups] == [(100,), (60, 60)]  # 100**2 - 60**2 > WASTE
    assert [(g.start, g.lengths) for g in Layout.of([300, 300, 299]).groups] == [(0, (300, 300)), (600, (299,))]


@pytest.mark.parametrize("lengths", [[1], [3, 3], [7, 1, 5, 5, 2], [100, 60, 60, 2], [2, 9]])
def test_gradients(lengths: list[int]) -> None:
    """Those of the formula, by autograd, for any weight of the outputs."""
    draws = draw(lengths)
    weight = torch.randn(1, sum(lengths), 3, 4, generator=torch.Generator().manual_seed(1))
    found = []
    for attend in (lambda *t: packed_attention(MODULE, *t, None, layout=Layout.of(lengths))[0], lambda *t: formula(*t, lengths)):
        leaves = [t.clone().requires_grad_() for t in draws]
        found.append(torch.autograd.grad((attend(*leaves) * weight).sum(), leaves))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_several_groups_can_be_computed_again() -> None:
    """Where activations are not kept, gradients are those of activations that are."""
    lengths = [120, 110, 3, 2]
    layout, found = Layout.of(lengths), []
    assert len(layout.groups) > 1
    for again in (False, True):
        leaves = [t.requires_grad_(True) for t in draw(lengths)]

        def run(*qkv: Tensor) -> Tensor:
            return packed_attention(MODULE, *qkv, None, layout=layout)[0]

        output = checkpoint(run, *leaves, use_reentrant=False) if again else run(*leaves)
        found.append(torch.autograd.grad(output.pow(2).sum(), leaves))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
