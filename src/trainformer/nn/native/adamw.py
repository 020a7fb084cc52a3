"""AdamW in one pass over each parameter: clipping, both averages, the weight and its copy in bfloat16."""

import ctypes
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainformer.nn.native.library import call
from trainformer.nn.native.linear import fresh_half, rewritten


class AdamW(torch.optim.AdamW):
    """The formula and the state of `torch.optim.AdamW` (Loshchilov and Hutter 2019, arXiv:1711.05101), float32 on a CPU.

    `shrink` multiplies the gradients of the next step on their way, and is 1 again after it.
    """

    shrink = 1.0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # it gives no loss
        """One step on every parameter that has a gradient."""
        assert closure is None, "the gradients are there before the step"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._one(weight, group)
        self.shrink = 1.0

    def _one(self, weight: Tensor, group: dict[str, Any]) -> None:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(weight) for _ in range(2))
        state["step"] += 1
        steps, (one, two), lr = float(state["step"]), group["betas"], float(group["lr"])
        scalars = (self.shrink, one, two, group["eps"], 1 - lr * group["weight_decay"])
        rate, root = lr / (1 - one**steps), 1 / math.sqrt(1 - two**steps)
        values = (ctypes.c_float * 7)(*scalars, rate, root)
        copy = fresh_half(weight)
        arrays = (weight.detach(), weight.grad.contiguous(), state["exp_avg"], state["exp_avg_sq"])
        call("adamw", *arrays, copy, weight.numel(), values)
        rewritten(weight, copy)


def fits(weight: Tensor) -> bool:
    """Whether a parameter is what the kernel reads."""
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.is_contiguous()
