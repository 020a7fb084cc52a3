"""Attention over sequences that lie end to end: each sees itself alone, and no token is padding."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

SHORT_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the sequences of a batch end. `runs` are (start, count, length) of neighbours of equal length."""

    lengths: tuple[int, ...]
    runs: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, lengths: list[int]) -> "Layout":
        """
        >>> Layout.of([3, 3, 2]).runs
        ((0, 2, 3), (6, 1, 2))
        """
        runs, start = [], 0
        for length, group in groupby(lengths):
            count = len(list(group))
            runs.append((start, count, length))
            start += count * length
        return cls(tuple(lengths), tuple(runs))


def packed_attention(
    module: torch.nn.Module,
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

    query, key, value: "1 H T K". Gives "1 T H K", as the attention functions of the transformers library do. Equal
    lengths that lie together are one call without a copy, so batches are sorted by length. `sliding_window`: a token
    sees those less than that far away (ModernBERT's local layers).
    """
    tokens = sum(layout.lengths)
    if attention_mask is not None or query.shape[2] != tokens or key.shape[2] != tokens:
        raise AssertionError(f"packed attention over {tokens} tokens got keys of {key.shape[2]} or a mask")
    sizes = [count * length for _, count, length in layout.runs]
    split = zip(*(t[0].split(sizes, dim=1) for t in (query, key, value)), strict=True)
    how = {"scale": scaling, "dropout_p": dropout}
    with _kernels(query.device, max(layout.lengths)):
        pieces = [_run(qkv, run[1:], sliding_window, how) for qkv, run in zip(split, layout.runs, strict=True)]
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).unsqueeze(0), None


def _kernels(device: torch.device, longest: int) -> AbstractContextManager[Any]:
    """On a CPU plain matrix products are some three times faster for short sequences than the fused kernel."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" and longest <= SHORT_TOKENS else nullcontext()


def _run(qkv: tuple[Tensor, ...], shape: tuple[int, int], window: int | None, how: dict[str, Any]) -> Tensor:
    """Attention of `count` neighbours of one length: "H (count * length) K" each -> "(count * length) H K"."""
    q, k, v = (t.unflatten(1, shape).transpose(0, 1) for t in qkv)
    mask = None
    if window is not None and shape[1] > window:
        place = torch.arange(shape[1], device=q.device)
        mask = (place[:, None] - place[None, :]).abs() < window
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, **how).transpose(1, 2).flatten(0, 1)
