"""Attention over sequences that lie end to end: each sees itself alone, and no token of a linear layer is padding."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from trainformer.nn.layout import SHORT_TOKENS, Group, Layout, Places
from trainformer.nn.native.attention import ShortAttention
from trainformer.nn.native.linear import speeds


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
    """Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762), sequence by sequence.

    query, key, value: "1 H T K". Gives "1 T H K", as the attention functions of the transformers library do. On a CPU
    short neighbours go together, padded here and nowhere else; long ones go through the fused kernel, equal lengths in one
    call without a copy, so batches are sorted by length. `sliding_window`: a token sees those less than that far away
    (ModernBERT's local layers). What the module's `prefix()` gives, keys and values
    "H P K", stands before those of each sequence and is seen by all.
    """
    if attention_mask is not None or query.shape[2] != layout.tokens or key.shape[2] != layout.tokens:
        raise AssertionError(f"packed attention over {layout.tokens} tokens got keys of {key.shape[2]} or a mask")
    longest = max(layout.lengths)
    prefix = module.prefix() if hasattr(module, "prefix") else None
    plain = prefix is None and dropout == 0 and (sliding_window is None or longest <= sliding_window)
    plain = plain and key.shape[1] == query.shape[1]
    if plain and query.device.type == "cpu" and longest <= SHORT_TOKENS:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        q, k, v = (_lowered(t)[0].transpose(0, 1) for t in (query, key, value))
        if speeds(module):
            output: Tensor = ShortAttention.apply(q.contiguous(), k.contiguous(), v.contiguous(), layout, scale)
            return output[None], None
        output = _Short.apply(q, k, v, layout, scale)
        return output[None], None
    how = {"scale": scaling, "dropout_p": dropout}
    runs = [run for group in layout.groups for run in _even(group)]
    split = zip(*(t[0].split([c * n for c, n in runs], dim=1) for t in (query, key, value)), strict=True)
    pieces = [_run(qkv, run, sliding_window, prefix, how) for qkv, run in zip(split, runs, strict=True)]
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).unsqueeze(0), None


def _lowered(tensor: Tensor) -> Tensor:
    """In the numbers of autocast, which does not look into a function of our own."""
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


class _Short(torch.autograd.Function):
    """Attention of short sequences, padded by groups. A gather lays a group out, a gather takes it back, in both passes.

    Plain products are some three times as fast here as the fused kernel. q, k, v and the result: "T H K".
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Tensor:
        ctx.layout, ctx.scale = layout, scale
        places, back = layout.places(q.shape[1], q.device)
        saved, pieces = [], []
        with torch.autocast(q.device.type, enabled=False):
            for group, place in zip(layout.groups, places, strict=True):
                qg, kg, vg = (_laid(t, group, place) for t in (q, k, v))
                scores = torch.baddbmm(_bias(place, qg, q.shape[1]), qg, kg.transpose(1, 2), alpha=scale)
                weights = scores.softmax(-1)
                saved += [qg, kg, vg, weights]
                pieces.append(torch.bmm(weights, vg).view(-1, vg.shape[-1]))
        ctx.save_for_backward(*saved)
        return _joined(pieces, back).view(v.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layout, grad, saved = ctx.layout, grads[0], ctx.saved_tensors  # asked for once: what is computed again is given once
        heads = grad.shape[1]
        places, back = layout.places(heads, grad.device)
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
        shape = grad.shape[:2]
        return *(_joined([x.view(-1, x.shape[-1]) for x in each], back).view(*shape, -1) for each in found), None, None


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


def _even(group: Group) -> list[tuple[int, int]]:
    """The group as (count, length) of neighbours of one length."""
    runs: list[tuple[int, int]] = []
    for length in group.lengths:
        if runs and runs[-1][1] == length:
            runs[-1] = (runs[-1][0] + 1, length)
        else:
            runs.append((1, length))
    return runs


def _run(
    qkv: tuple[Tensor, ...], shape: tuple[int, int], window: int | None, prefix: tuple[Tensor, Tensor] | None, how: dict[str, Any]
) -> Tensor:
    """Attention of `count` neighbours of one length: "H (count * length) K" each -> "(count * length) H K"."""
    q, k, v = (t.unflatten(1, shape).transpose(0, 1) for t in qkv)
    mask = None
    if window is not None and shape[1] > window:
        place = torch.arange(shape[1], device=q.device)
        mask = (place[:, None] - place[None, :]).abs() < window
    if prefix is not None:
        k, v = (torch.cat([p.to(t.dtype).expand(shape[0], -1, -1, -1), t], 2) for p, t in zip(prefix, (k, v), strict=True))
        mask = None if mask is None else torch.nn.functional.pad(mask, (prefix[0].shape[1], 0), value=True)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, **how).transpose(1, 2).flatten(0, 1)
