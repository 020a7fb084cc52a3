"""Local attention: a token sees its neighbours alone, so that time and memory grow with the length and not with its square.

Beltagy et al. 2020, arXiv:2004.05150.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention


def seen(distance: Tensor, causal: bool, window: int | None) -> Tensor:
    """Whether a key is seen, by its distance to the query (queries minus keys): not after it, and less than `window` away."""
    found = torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        found &= distance.abs() < window
    return found & (distance >= 0) if causal else found


def local_attention(query: Tensor, key: Tensor, value: Tensor, window: int, causal: bool, how: dict[str, Any]) -> Tensor:
    """Each token with those less than `window` away: "S H L K" each -> "S H L K", in memory of L * window.

    The length is cut into blocks of `window` queries; a block sees itself, the block before and, unless causal, the one after.
    `how`: what scaled_dot_product_attention takes besides.
    """
    length, blocks = query.shape[2], -(-query.shape[2] // window)
    fill = blocks * window - length
    reach = 2 if causal else 3
    q = pad(query, (0, 0, 0, fill)).unflatten(2, (blocks, window))
    k, v = (pad(t, (0, 0, window, fill + (0 if causal else window))).unfold(2, reach * window, window) for t in (key, value))
    places = torch.arange(blocks, device=query.device)[:, None] * window
    queries = places + torch.arange(window, device=query.device)
    keys = places - window + torch.arange(reach * window, device=query.device)
    mask = seen(queries[:, :, None] - keys[:, None], causal, window) & ((keys >= 0) & (keys < length))[:, None]
    mask |= (queries >= length)[:, :, None]  # padding sees anything, so that its softmax is a number
    out = scaled_dot_product_attention(q, k.transpose(-1, -2), v.transpose(-1, -2), attn_mask=mask, **how)
    return out.flatten(2, 3)[:, :, :length]
