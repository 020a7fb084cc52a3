"""Schedule-free AdamW: an average of the weights in place of a falling rate (Defazio et al. 2024, arXiv:2405.15682)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class ScheduleFree(Optimizer):
    """Three points: z steps as AdamW without momentum does, x is the mean of z weighed by lr^2, y = (1 - b1) z + b1 x.

    The parameters are y, where gradients are taken and which decays; `swap` exchanges them with x, which is evaluated and ships.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self._training: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "the gradient is there already"
        assert not self._training, "the weights of training must be swapped back before the next step"
        for group in self.param_groups:
            for y in (p for p in group["params"] if p.grad is not None):
                self._step(y, group)

    def _step(self, y: Tensor, group: dict[str, Any]) -> None:
        lr, (b1, b2), state = group["lr"], group["betas"], self.state[y]
        if not state:
            state |= {"z": y.detach().clone(), "exp_avg_sq": torch.zeros_like(y)}
            state |= {name: torch.zeros((), device="cpu") for name in ("step", "lr_max", "weight_sum")}
        state["step"] += 1
        state["lr_max"] = state["lr_max"].clamp_min(lr)
        weight = float(state["lr_max"]) ** 2
        state["weight_sum"] += weight
        share = weight / float(state["weight_sum"]) if weight else 0.0
        assert y.grad is not None, "only weights with a gradient step"
        square = state["exp_avg_sq"].mul_(b2).addcmul_(y.grad, y.grad, value=1 - b2)
        root = (square / (1 - b2 ** float(state["step"]))).sqrt_().add_(group["eps"])
        move = (y.grad / root).add_(y, alpha=group["weight_decay"])
        # x is not kept: with y = (1 - b1) z + b1 x its part of the new y follows from the old y and z.
        y.lerp_(state["z"], share).add_(move, alpha=lr * (b1 * (1 - share) - 1))
        state["z"].sub_(move, alpha=lr)

    @torch.no_grad()
    def swap(self) -> None:
        """y for x = (y - (1 - b1) z) / b1, and back: y is kept, so that it comes back with the same bits."""
        if self._training:
            for p, value in self._training:
                p.copy_(value)
            self._training = []
            return
        stepped = [(p, group["betas"][0]) for group in self.param_groups for p in group["params"] if self.state.get(p)]
        self._training = [(p, p.detach().clone()) for p, _ in stepped]
        for p, b1 in stepped:
            p.lerp_(self.state[p]["z"], 1 - 1 / b1)
