"""Attention of short sequences against float64: odd lengths, widths and groups, and what padding must not do."""

import ctypes

import pytest
import torch
from torch import Tensor, nn

from trainformer.nn.layout import Layout, paired
from trainformer.nn.native.attention import DirectAttention, Heads, ShortAttention
from trainformer.nn.native.library import call
from trainformer.nn.native.linear import Linear, quicken
from trainformer.nn.packed_attention import packed_attention

LENGTHS = [[1], [7, 5, 1], [16, 16, 16], [33, 32, 31, 17, 2], [130, 129, 120, 3]]


def exact(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], scale: float) -> Tensor:
    """One sequence after the other, "T H K"."""
    outputs = []
    for one, two, three in zip(*(t.split(lengths) for t in (q, k, v)), strict=True):
        scores = torch.einsum("ihk,jhk->hij", one, two) * scale
        outputs.append(torch.einsum("hij,jhk->ihk", scores.softmax(-1), three))
    return torch.cat(outputs)


def drawn(lengths: list[int], heads: int, width: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(sum(lengths), heads, width).to(torch.bfloat16).requires_grad_() for _ in range(4)]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("heads", "width"), [(2, 16), (3, 20)])
def test_output_and_gradients(threads: int, lengths: list[int], heads: int, width: int) -> None:
    *qkv, grad = drawn(lengths, heads, width)
    layout = Layout.of(lengths)
    assert lengths != LENGTHS[-1] or len(layout.groups) > 1
    found = ShortAttention.apply(*qkv, layout, 0.3)
    found.backward(grad)
    doubles = [t.detach().double().requires_grad_() for t in qkv]
    expected = exact(*doubles, lengths, 0.3)
    expected.backward(grad.detach().double())
    pairs = [(found, expected), *((a.grad, b.grad) for a, b in zip(qkv, doubles, strict=True))]
    for one, other in pairs:
        assert one is not None and other is not None
        rounded = 4 * 2.0**-8 * float(other.detach().abs().max())  # scores, weights and their gradients are rounded
        assert float((one.detach().double() - other.detach()).abs().max()) <= rounded + 1e-6


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("heads", "width"), [(2, 16), (3, 20), (1, 64), (2, 1)])
def test_direct(threads: int, lengths: list[int], heads: int, width: int, causal: bool) -> None:
    """Each sequence sees itself."""
    layout = Layout.of(lengths)
    _compared(drawn(lengths, heads, width), lengths, lengths, (layout, layout), causal)


@pytest.mark.parametrize("others", [[1, 9], [40, 3], [16, 250]])
def test_direct_across(threads: int, others: list[int]) -> None:
    """Sequences that see others, one to one."""
    lengths = [17, 2]
    q, _, _, grad = drawn(lengths, 3, 24)
    _, k, v, _ = drawn(others, 3, 24)
    _compared([q, k, v, grad], lengths, others, paired(lengths, others), False)


def _compared(tensors: list[Tensor], own: list[int], others: list[int], layouts: tuple[Layout, Layout], causal: bool) -> None:
    """Output and gradients beside float64: only what is read and written is rounded."""
    *qkv, grad = tensors
    found = DirectAttention.apply(*qkv, layouts, (0.3, causal))
    found.backward(grad)
    doubles = [t.detach().double().requires_grad_() for t in qkv]
    heard = []
    for piece in zip(*(t.split(n) for t, n in zip(doubles, (own, others, others), strict=True)), strict=True):
        by_head = (t.transpose(0, 1) for t in piece)
        heard.append(nn.functional.scaled_dot_product_attention(*by_head, is_causal=causal, scale=0.3).transpose(0, 1))
    expected = torch.cat(heard)
    expected.backward(grad.detach().double())
    for one, other in [(found, expected), *((a.grad, b.grad) for a, b in zip(qkv, doubles, strict=True))]:
        assert one is not None and other is not None
        size = float(other.detach().abs().max())
        assert float((one.detach().double() - other.detach()).abs().max()) <= 2.0**-8 * size + 1e-5


def test_direct_bits_are_the_same_for_any_threads() -> None:
    lengths = [33, 32, 31, 17, 2]
    layout, found = Layout.of(lengths), []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        *qkv, grad = drawn(lengths, 3, 20)
        output = DirectAttention.apply(*qkv, (layout, layout), (0.3, True))
        output.backward(grad)
        found.append([output, *(t.grad for t in qkv)])
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_direct_keeps_what_is_no_number() -> None:
    *qkv, _ = drawn([3, 2], 2, 16)
    with torch.no_grad():
        qkv[0][1, 0, 0] = torch.nan
    output = DirectAttention.apply(*qkv, (Layout.of([3, 2]),) * 2, (0.3, False))
    assert output[1, 0].isnan().all() and output.isnan().sum() == 16


@pytest.mark.parametrize("size", [1.0, 30.0, 3000.0])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 100])
def test_softmax(threads: int, size: float, length: int) -> None:
    longest = length + 3
    scores = (torch.randn(2 * 3, longest, longest) * size).to(torch.bfloat16)
    expected = (0.25 * scores.double()[:, :length, :length]).softmax(-1)
    call("softmax", scores, torch.tensor([length, length]), longest, ctypes.byref(Heads(2, 3, 8)), 0.25)
    assert float((scores[:, :length, :length].double() - expected).abs().max()) <= 2.0**-8
    assert scores[:, length:].eq(0).all() and scores[:, :, length:].eq(0).all()


@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf])
def test_numbers_that_are_none_are_not_hidden(value: float) -> None:
    *qkv, _ = drawn([5, 4], 2, 16)
    with torch.no_grad():
        qkv[0].abs_()
        qkv[1][6, 1, 3] = value
    found = ShortAttention.apply(*qkv, Layout.of([5, 4]), 0.3)
    assert found[5:, 1].isnan().all() and found[:5].isfinite().all() and found[5:, 0].isfinite().all()


@pytest.mark.parametrize(("lengths", "kernel"), [([6, 5], "DirectAttention"), ([100, 90], "ShortAttention")])
def test_it_runs_where_the_layers_are_of_the_kernels(lengths: list[int], kernel: str) -> None:
    """Training in bfloat16, by a kernel that suits the lengths; evaluation and float32 keep the plain way."""
    module = nn.Sequential(nn.Linear(32, 32))
    q, k, v = (t.detach().float().transpose(0, 1)[None] for t in drawn(lengths, 2, 16)[:3])
    q.requires_grad_()
    layout = Layout.of(lengths)

    def name() -> str:
        output, _ = packed_attention(module, q, k, v, None, layout=layout)
        node = output.grad_fn
        while node is not None and "Attention" not in node.name() and "_Short" not in node.name():
            node = node.next_functions[0][0]
        assert node is not None
        return node.name()

    with torch.autocast("cpu", torch.bfloat16):
        assert name() == "_ShortBackward"
    quicken(module)
    assert type(module[0]) is Linear and name() == "_ShortBackward", "float32"
    with torch.autocast("cpu", torch.bfloat16):
        assert name() == f"{kernel}Backward"
        module.eval()
        assert name() == "_ShortBackward"
