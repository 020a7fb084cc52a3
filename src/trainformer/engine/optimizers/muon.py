"""Muon for matrices (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982), AdamW for the rest, as one optimiser."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from trainformer.core.errors import UserError


class Muon(Optimizer):
    """Groups marked `matrices` get the orthogonalised momentum of PyTorch's Muon, scaled to the size of AdamW's steps."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float):
        kind: Any = getattr(torch.optim, "Muon", None)
        if kind is None:
            fix = "pip install -U torch, or take another optimiser."
            raise UserError(f"muon needs PyTorch 2.9, this is {torch.__version__}.", where="train.optimizer", fix=fix)
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.parts: list[Optimizer] = []
        for matrices in (True, False):
            own = [group for group in self.param_groups if group["matrices"] is matrices]
            if own and matrices:
                self.parts.append(kind(own, lr=lr, adjust_lr_fn="match_rms_adamw"))
            elif own:
                self.parts.append(AdamW(own, lr=lr, betas=betas, eps=eps))
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        self._link()

    def _link(self) -> None:
        """One state and one set of groups: what is saved, restored or changed in the whole is so in its parts."""
        for part in self.parts:
            matrices = part.param_groups[0]["matrices"]
            part.state, part.param_groups = self.state, [g for g in self.param_groups if g["matrices"] is matrices]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._link()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "the gradient is there already"
        for part in self.parts:
            part.step()
