"""Attention of short sequences: of the shortest by one kernel, of longer ones by PyTorch's products with kernels around them."""

import ctypes
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainformer.nn.layout import Layout
from trainformer.nn.native.library import call

DIRECT_TOKENS = 64
"""Up to this mean length one kernel is faster than products of PyTorch; what is causal, half of the work, at any length."""


def direct(layout: Layout, keys: Layout) -> bool:
    """Whether sequences are so short that one kernel attends."""
    return layout.tokens + keys.tokens <= 2 * DIRECT_TOKENS * len(layout.lengths)


class Heads(ctypes.Structure):
    """`struct heads` of the kernels."""

    _fields_ = (("sequences", ctypes.c_int64), ("count", ctypes.c_int64), ("width", ctypes.c_int64))


@lru_cache(maxsize=64)
def _table(layout: Layout, heads: int) -> tuple[Tensor, int]:
    """`struct places` of the kernels "4 S", and the number of rows once laid out."""
    columns, row = [], 0
    for group in layout.groups:
        start = group.start
        for length in group.lengths:
            columns.append((start, length, group.width, row))
            start, row = start + length, row + heads * group.width
    return torch.tensor(columns).t().contiguous(), row


class ShortAttention(torch.autograd.Function):
    """q, k, v and the result: "T H K" in bfloat16, contiguous. Scores are scaled and weighed in float32."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Tensor:
        laid = [_laid(t, layout) for t in (q, k, v)]
        output, kept = torch.empty_like(laid[2]), []
        for (one, two, three, to), lengths, heads in _groups([*laid, output], layout, q.shape[1]):
            weights = torch.bmm(one, two.transpose(1, 2))
            call("softmax", weights, lengths, weights.shape[1], ctypes.byref(heads), scale)
            torch.bmm(weights, three, out=to)
            kept.append(weights)
        ctx.save_for_backward(*laid, *kept)
        ctx.layout, ctx.scale, ctx.shape = layout, scale, q.shape
        return _back(output, layout, q.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        layout, shape = ctx.layout, ctx.shape
        grad = _laid(grads[0].contiguous(), layout)
        found = [torch.empty_like(grad) for _ in range(3)]
        for parts, weights in zip(_groups([q, k, v, grad, *found], layout, shape[1]), kept, strict=True):
            (one, two, three, out, to_q, to_k, to_v), _, _ = parts
            scores = torch.bmm(out, three.transpose(1, 2))
            longest = scores.shape[1]
            call("softmax_backward", scores, weights, scores.numel() // longest, longest, ctx.scale)
            torch.bmm(scores, two, out=to_q)
            torch.bmm(scores.transpose(1, 2), one, out=to_k)
            torch.bmm(weights.transpose(1, 2), out, out=to_v)
        return *(_back(each, layout, shape) for each in found), None, None


def _groups(rows: list[Tensor], layout: Layout, heads: int) -> Iterator[tuple[list[Tensor], Tensor, Heads]]:
    """For each group its part of each tensor, "S*H L K", its lengths "S", and its heads."""
    table, _ = _table(layout, heads)
    first, seen = 0, 0
    for group in layout.groups:
        count = len(group.lengths)
        size = count * heads * group.width
        parts = [t[first : first + size].view(count * heads, group.width, -1) for t in rows]
        yield parts, table[1, seen : seen + count], Heads(count, heads, rows[0].shape[-1])
        first, seen = first + size, seen + count


def _laid(tensor: Tensor, layout: Layout) -> Tensor:
    """ "T H K" -> the groups laid end to end, each "S H L K" """
    _, heads, width = tensor.shape
    table, rows = _table(layout, heads)
    laid = tensor.new_empty(rows, width)
    call("lay_out", tensor, laid, table, ctypes.byref(Heads(len(layout.lengths), heads, width)))
    return laid


def _back(laid: Tensor, layout: Layout, shape: torch.Size) -> Tensor:
    table, _ = _table(layout, shape[1])
    tensor = laid.new_empty(shape)
    call("take_back", laid, tensor, table, ctypes.byref(Heads(len(layout.lengths), *shape[1:])))
    return tensor


class Sizes(ctypes.Structure):
    """`struct attention` of the kernels."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("sequences", "heads", "width", "longest")),
        *(("causal", ctypes.c_int), ("scale", ctypes.c_float)),
    )


@lru_cache(maxsize=64)
def _pairs(layout: Layout, keys: Layout) -> Tensor:
    """First query, queries, first key and keys of each sequence: "4 S"."""
    return torch.tensor([each for side in (layout, keys) for each in (side.starts, side.lengths)])


class DirectAttention(torch.autograd.Function):
    """q "T H K", k and v "M H K", all contiguous and in bfloat16 -> "T H K". Products, too, are in float32.

    A library makes a product anew for each shape, and short sequences have many: that takes longer than the products do.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layouts: tuple[Layout, Layout], how: tuple[float, bool]) -> Tensor:
        (layout, keys), (scale, causal) = layouts, how
        sizes = Sizes(len(layout.lengths), *q.shape[1:], max(keys.lengths), causal, scale)
        output, logs = torch.empty_like(q), torch.empty(q.shape[:2])
        call("attend", q, k, v, output, logs, _pairs(layout, keys), ctypes.byref(sizes))
        ctx.save_for_backward(q, k, v, logs)
        ctx.layouts, ctx.sizes = layouts, sizes
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, logs = ctx.saved_tensors
        found = [torch.empty_like(t) for t in (q, k, v)]
        call("attend_backward", q, k, v, grads[0].contiguous(), logs, *found, _pairs(*ctx.layouts), ctypes.byref(ctx.sizes))
        return *found, None, None
