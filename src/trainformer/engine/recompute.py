"""Activation checkpointing: a layer keeps what goes into it, and computes the rest again in the backward pass.

Chen et al. 2016, arXiv:1604.06174. Random numbers are those of the first pass, so dropout and gradients are the same.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from trainformer.core.roles import Body


def recompute(body: Body) -> None:
    """Every layer above the embeddings. Names of weights stay; the layout of a batch is an argument, kept with the rest."""
    for block in body.blocks()[1:]:
        block.forward = partial(_run, block.forward)  # of a bound method, so that a copy of the layer runs its own


def _run(forward: Callable[..., Any], *args: Any, **words: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **words)
    return checkpoint(forward, *args, use_reentrant=False, **words)
