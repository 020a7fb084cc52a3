"""Attention over sequences that lie end to end: each sees itself alone, and no token of a linear layer is padding."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from trainformer.nn.layout import SHORT_TOKENS, Group, Layout, Places
from trainformer.nn.local_attention import local_attention, seen
from trainformer.nn.native.attention import DirectAttention, ShortAttention, direct
from trainformer.nn.native.linear import speeds


@dataclass(frozen=True)
class View:
    """What a token sees, and how.

    `scale` multiplies the scores (none: 1 / sqrt(K)). `causal`: nothing after itself. `window`: those less than that far
    away. `bias`: what is added to the scores of sequences of a length, "H L L" by L. `prefix`: keys and values "H P K" that
    stand before those of each sequence and are seen by all. `native`: kernels of our own do what they can.
    """

    scale: float | None = None
    dropout: float = 0.0
    causal: bool = False
    window: int | None = None
    bias: Mapping[int, Tensor] | None = None
    prefix: tuple[Tensor, Tensor] | None = None
    native: bool = False


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """`attend` as the attention functions of the transformers library are called. query, key, value: "1 H T K"; gives "1 T H K".

    `sliding_window`: a token sees those less than that far away (ModernBERT's local layers). What the module's `prefix()`
    gives, keys and values, stands before those of each sequence.
    """
    if attention_mask is not None or query.shape[2] != layout.tokens or key.shape[2] != layout.tokens:
        raise AssertionError(f"packed attention over {layout.tokens} tokens got keys of {key.shape[2]} or a mask")
    prefix = module.prefix() if hasattr(module, "prefix") else None
    view = View(scaling, dropout, window=sliding_window, prefix=prefix, native=speeds(module))
    return attend(query[0], key[0], value[0], layout, layout, view)[None], None


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, keys: Layout, view: View) -> Tensor:
    """softmax(q k^T / sqrt(K)) v (Vaswani et al. 2017, arXiv:1706.03762), sequence by sequence: "H T K" each -> "T H K".

    `keys` is the layout of keys and values: the queries' own or, of sequences that attend to others, one of a pair of layouts
    (`layout.paired`). Fewer heads of keys than of queries are shared by neighbours (Ainslie et al. 2023, arXiv:2305.13245).
    On a CPU short neighbours go together, padded here and nowhere else; long ones go through the fused kernel, equal lengths
    in one call without a copy, so batches are sorted by length.
    """
    if key.shape[0] != query.shape[0]:
        key, value = (t.repeat_interleave(query.shape[0] // t.shape[0], 0) for t in (key, value))
    longest = max(*layout.lengths, *keys.lengths)
    wide = view.window is None or longest <= view.window
    plain = wide and view.prefix is None and view.bias is None and view.dropout == 0
    if plain and query.device.type == "cpu" and longest <= SHORT_TOKENS:
        scale = query.shape[-1] ** -0.5 if view.scale is None else view.scale
        q, k, v = (_lowered(t).transpose(0, 1) for t in (query, key, value))
        if view.native and (view.causal or direct(layout, keys)):
            output: Tensor = DirectAttention.apply(*_plain(q, k, v), (layout, keys), (scale, view.causal))
        elif view.native and keys is layout:
            output = ShortAttention.apply(*_plain(q, k, v), layout, scale)
        else:
            output = _Short.apply(q, k, v, (layout, keys), (scale, view.causal))
        return output
    runs = list(_runs(layout, keys))
    own, others = ([count * lengths[side] for count, *lengths in runs] for side in (0, 1))
    split = zip(query.split(own, 1), key.split(others, 1), value.split(others, 1), strict=True)
    pieces = [_run(qkv, run, view) for qkv, run in zip(split, runs, strict=True)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _plain(*tensors: Tensor) -> Iterator[Tensor]:
    """As kernels read them."""
    return (t.contiguous() for t in tensors)


def _lowered(tensor: Tensor) -> Tensor:
    """In the numbers of autocast, which does not look into a function of our own."""
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


class _Short(torch.autograd.Function):
    """Attention of short sequences, padded by groups. A gather lays a group out, a gather takes it back, in both passes.

    Plain products are some three times as fast here as the fused kernel. q, k, v and the result: "T H K".
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layouts: tuple[Layout, Layout], how: tuple[float, bool]) -> Tensor:
        (layout, keys), (scale, causal) = layouts, how
        ctx.layouts, ctx.scale = layouts, scale
        places, back = layout.places(q.shape[1], q.device)
        others, _ = keys.places(q.shape[1], q.device)
        saved, pieces = [], []
        with torch.autocast(q.device.type, enabled=False):
            for group, place, other, seen in zip(layout.groups, places, keys.groups, others, strict=True):
                qg, kg, vg = _laid(q, group, place), _laid(k, other, seen), _laid(v, other, seen)
                bias = _later(qg) if causal else _bias(seen, qg, q.shape[1])
                scores = torch.baddbmm(bias, qg, kg.transpose(1, 2), alpha=scale)
                weights = scores.softmax(-1)
                saved += [qg, kg, vg, weights]
                pieces.append(torch.bmm(weights, vg).view(-1, vg.shape[-1]))
        ctx.save_for_backward(*saved)
        return _joined(pieces, back).view(q.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (layout, keys), grad = ctx.layouts, grads[0]
        saved, heads = ctx.saved_tensors, grad.shape[1]  # asked for once: what is computed again is given once
        places, back = layout.places(heads, grad.device)
        _, keys_back = keys.places(heads, grad.device)
        zero = grad.new_zeros(1, 1, 1)
        found: list[list[Tensor]] = [[], [], []]
        for i, (group, place) in enumerate(zip(layout.groups, places, strict=True)):
            q, k, v, weights = saved[4 * i : 4 * i + 4]
            out = _laid(grad, group, place)
            if place.real is not None:  # what padding asks for must not move keys and values
                out.view(len(group.lengths), heads, group.width, -1).masked_fill_(~place.real[:, None, :, None], 0.0)
            scores = torch._softmax_backward_data(torch.bmm(out, v.transpose(1, 2)), weights, -1, weights.dtype)
            found[0].append(torch.baddbmm(zero, scores, k, beta=0, alpha=ctx.scale))
            found[1].append(torch.baddbmm(zero, scores.transpose(1, 2), q, beta=0, alpha=ctx.scale))
            found[2].append(torch.bmm(weights.transpose(1, 2), out))
        backs = (back, keys_back, keys_back)
        flat = (_joined([x.view(-1, x.shape[-1]) for x in each], way) for each, way in zip(found, backs, strict=True))
        return *(each.view(-1, heads, each.shape[-1]) for each in flat), None, None


def _laid(tensor: Tensor, group: Group, place: Places) -> Tensor:
    """The rows of a group: "T H K" -> "S*H L K"."""
    rows = tensor.reshape(-1, tensor.shape[-1])
    return rows.index_select(0, place.index).view(-1, group.width, tensor.shape[-1])


def _joined(pieces: list[Tensor], back: Tensor) -> Tensor:
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).index_select(0, back)


def _bias(place: Places, like: Tensor, heads: int) -> Tensor:
    """What is added to the scores: minus infinity where the key is padding, "S*H 1 L"."""
    if place.real is None:
        return like.new_zeros(1, 1, 1)
    bias = like.new_zeros(place.real.shape).masked_fill_(~place.real, float("-inf"))
    return bias[:, None].expand(-1, heads, -1).reshape(-1, 1, bias.shape[1])


def _later(like: Tensor) -> Tensor:
    """Minus infinity where the key is later, "1 L L": then padding, which comes last, is not seen either."""
    return like.new_full((1, like.shape[1], like.shape[1]), float("-inf")).triu_(1)


def _runs(layout: Layout, keys: Layout) -> Iterator[tuple[int, int, int]]:
    """(count, queries, keys) of neighbours of one length each, in order."""
    count, last = 0, (0, 0)
    for group, other in zip(layout.groups, keys.groups, strict=True):
        for pair in zip(group.lengths, other.lengths, strict=True):
            if count and pair != last:
                yield count, *last
                count = 0
            count, last = count + 1, pair
    if count:
        yield count, *last


def _run(qkv: tuple[Tensor, ...], run: tuple[int, int, int], view: View) -> Tensor:
    """Attention of `count` neighbours of one length: "H (count * length) K" each -> "(count * length) H K"."""
    count, own, others = run
    q, k, v = (t.unflatten(1, (count, n)).transpose(0, 1) for t, n in zip(qkv, (own, others, others), strict=True))
    how: dict[str, Any] = {"scale": view.scale, "dropout_p": view.dropout}
    near = view.window is not None and others > view.window
    if near and view.prefix is None and view.bias is None:
        return local_attention(q, k, v, view.window or 0, view.causal, how).transpose(1, 2).flatten(0, 1)
    mask = _mask(view, own, others, q) if near or (view.causal and (view.prefix or view.bias)) else None
    if view.bias is not None:
        mask = view.bias[own] if mask is None else view.bias[own].masked_fill(~mask, float("-inf"))
    if view.prefix is not None:
        k, v = (torch.cat([p.to(t.dtype).expand(count, -1, -1, -1), t], 2) for p, t in zip(view.prefix, (k, v), strict=True))
        mask = None if mask is None else pad(mask, (view.prefix[0].shape[1], 0), value=mask.dtype is torch.bool)
    causal = view.causal and mask is None
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, **how).transpose(1, 2).flatten(0, 1)


def _mask(view: View, own: int, others: int, like: Tensor) -> Tensor:
    """Which keys a query sees: "L L"."""
    queries, keys = (torch.arange(n, device=like.device) for n in (own, others))
    return seen(queries[:, None] - keys, view.causal, view.window)
