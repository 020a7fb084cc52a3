"""Optional kernels in C for a CPU: for training in bfloat16 and for writing texts, compiled on the user's machine at first use.

They pass over memory once where PyTorch passes several times; matrix products but the smallest stay with PyTorch, and so does
what else is in float32 and on other devices. Without a compiler nothing is lost but time.
"""

import functools
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from trainformer.nn.native import linear, residual
from trainformer.nn.native.adamw import AdamW


def speed_up(model: nn.Module) -> None:
    """Puts the kernels where they fit: modules become subclasses of what they were, weights stay.

    Inside, hidden states are in bfloat16; what the model gives is in float32, as it is without kernels.
    """
    watch_optimisers()
    linear.forget(model.parameters())
    residual.quicken(model)
    linear.quicken(model)
    model.register_forward_hook(_widened)


def _widened(module: nn.Module, args: Any, output: Any) -> Any:
    return tuple(t.float() for t in output) if isinstance(output, tuple) else output


@functools.cache
def watch_optimisers() -> None:
    """PyTorch keeps no count of what its fused optimisers write: after a step of any but ours no copy is trusted."""
    register_optimizer_step_post_hook(_forget_stepped)


def _forget_stepped(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    if not isinstance(optimizer, AdamW):
        linear.forget(weight for group in optimizer.param_groups for weight in group["params"])
