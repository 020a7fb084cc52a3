"""Causal, cross and local attention over packed sequences against the formula in float64, written out pair by pair."""

import pytest
import torch
from torch import Tensor

from trainformer.nn.layout import Layout, paired
from trainformer.nn.packed_attention import View, attend

UNEQUAL = [[1], [5], [3, 3], [7, 1, 5, 5, 2], [100, 60, 60, 2], [300, 2, 40]]


def draw(heads: int, tokens: int, seed: int) -> Tensor:
    return torch.randn(heads, tokens, 4, generator=torch.Generator().manual_seed(seed))


def formula(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[list[int], list[int]], view: View) -> Tensor:
    """Text by text, what is seen pair by pair: "H T K" -> "T H K"."""
    q, k, v = q.double(), *(t.double().repeat_interleave(len(q) // len(t), 0) for t in (k, v))
    outputs, own, others = [], 0, 0
    for n, m in zip(*lengths, strict=True):
        scores = q[:, own : own + n] @ k[:, others : others + m].transpose(1, 2) * (view.scale or q.shape[-1] ** -0.5)
        if view.bias is not None:
            scores = scores + view.bias[n].double()
        far = [
            [(view.causal and j > i) or (view.window is not None and abs(i - j) >= view.window) for j in range(m)]
            for i in range(n)
        ]
        scores = scores.masked_fill(torch.tensor(far), float("-inf"))
        outputs.append((scores.softmax(-1) @ v[:, others : others + m]).transpose(0, 1))
        own, others = own + n, others + m
    return torch.cat(outputs)


def compare(views: View, lengths: list[int], others: list[int] | None = None, groups: int = 2) -> None:
    """Forward to 1e-5 and every gradient to 1e-4."""
    layouts = (Layout.of(lengths),) * 2 if others is None else paired(lengths, others)
    sides = (lengths, others or lengths)
    leaves = [draw(h, sum(n), s) for s, (h, n) in enumerate([(2, sides[0]), (groups, sides[1]), (groups, sides[1])])]
    leaves = [t.requires_grad_() for t in leaves]
    ours, expected = attend(*leaves, *layouts, views), formula(*leaves, sides, views)
    torch.testing.assert_close(ours.double(), expected, atol=1e-5, rtol=0)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9)).double()
    one, other = (torch.autograd.grad((t.double() * weight).sum(), leaves) for t in (ours, expected))
    for found, wanted in zip(one, other, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lengths", UNEQUAL)
def test_causal(lengths: list[int]) -> None:
    compare(View(causal=True), lengths)


@pytest.mark.parametrize(
    ("lengths", "others"),
    [([3], [5]), ([2, 4, 1], [5, 1, 1]), ([7, 1, 5], [2, 9, 5]), ([100, 20], [3, 90]), ([2, 300], [290, 5])],
)
def test_cross(lengths: list[int], others: list[int]) -> None:
    compare(View(), lengths, others)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [1, 3, 8, 64])
@pytest.mark.parametrize("lengths", [[1], [9, 9], [17, 4], [130, 7]])
def test_local(lengths: list[int], window: int, causal: bool) -> None:
    compare(View(causal=causal, window=window), lengths)


@pytest.mark.parametrize("causal", [False, True])
def test_shared_keys(causal: bool) -> None:
    """Two heads of queries over one of keys and values."""
    compare(View(causal=causal), [7, 1, 5, 300], groups=1)


@pytest.mark.parametrize("causal", [False, True])
def test_bias_by_distance(causal: bool) -> None:
    bias = {n: draw(2, n * n, n)[..., 0].view(2, n, n) for n in (7, 1, 5)}
    compare(View(scale=1.0, causal=causal, bias=bias), [7, 1, 5, 5])


def test_memory_of_local_attention_grows_with_the_length() -> None:
    """What the window leaves out is never computed: twice the length, twice the numbers that are kept for the gradient."""

    def kept(length: int) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            leaves = [draw(2, length, s).requires_grad_() for s in range(3)]
            attend(*leaves, Layout.of([length]), Layout.of([length]), View(causal=True, window=16))
        return sum(sizes)

    assert kept(4096) < 2.1 * kept(2048) < 4.5 * kept(1024)


def test_pairs_lie_in_the_same_groups() -> None:
    own, others = paired([5, 5, 90, 3], [2, 70, 80, 3])
    assert [len(g.lengths) for g in own.groups] == [len(g.lengths) for g in others.groups]
    assert [n for g in own.groups for n in g.lengths] == [5, 5, 90, 3]
    assert [g.start for g in others.groups] == [sum(others.lengths[: sum(len(h.lengths) for h in others.groups[:i])])
                                                for i in range(len(others.groups))]  # fmt: skip
