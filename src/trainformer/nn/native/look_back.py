"""Attention of each text's next token over what is kept of it, by one kernel that reads it where it lies."""

import ctypes

import torch
from torch import Tensor

from trainformer.nn.native.library import able, call

WIDEST = 256
"""Numbers of a head at most."""


class Past(ctypes.Structure):
    """`struct past` of the kernels."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("texts", "room", "heads", "shared", "width", "columns", "window")),
        ("scale", ctypes.c_float),
    )


def looks_back(query: Tensor) -> bool:
    """Whether there is a kernel for such queries: in float32 on a CPU, without a gradient."""
    if query.shape[-1] > WIDEST or torch.is_grad_enabled():
        return False
    return query.device.type == "cpu" and query.dtype == torch.float32 and able()


def look_back(
    query: Tensor,
    told: tuple[Tensor, Tensor],
    lengths: Tensor,
    where: tuple[Tensor | None, Tensor | None],
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Queries "N 1 H K" over the first `lengths` "N" of keys and values "R L G K" -> "N 1 H K"; heads share them by turns of H/G.

    `where`: the row of each text's tokens "N", and that of each of its tokens "N P"; none: that of the text's number.
    `window`: the last so many tokens alone are seen.
    """
    texts, _, heads, width = query.shape
    (key, value), (rows, origin) = told, where
    scale = width**-0.5 if scale is None else scale
    columns = 0 if origin is None else origin.shape[1]
    past = Past(texts, key.shape[1], heads, heads // key.shape[2], width, columns, window or 0, scale)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    given = (t.to(query.dtype).contiguous() for t in (query, key, value))
    call("look_back", *given, out, lengths, int(lengths.max()), rows, origin, ctypes.byref(past))
    return out
