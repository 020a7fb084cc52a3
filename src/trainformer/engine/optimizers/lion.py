"""Lion: the sign of an average of gradients (Chen et al. 2023, arXiv:2302.06675)."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class Lion(Optimizer):
    """`w -= lr * (sign(b1 m + (1 - b1) g) + decay w)`, then `m = b2 m + (1 - b2) g`: one average, every step of one size."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.9, 0.99)):
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "the gradient is there already"
        for group in self.param_groups:
            (b1, b2), lr = group["betas"], group["lr"]
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                average = state.setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(average.lerp(p.grad, 1 - b1).sign_(), alpha=-lr)
                average.lerp_(p.grad, 1 - b2)
