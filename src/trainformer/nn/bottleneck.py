"""Bottlenecks that stand after a layer: one, or several trained ones under attention."""

from typing import Any

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """One bottleneck, the identity at first."""

    def __init__(self, outer: int, inner: int):
        super().__init__()
        self.down, self.up = nn.Linear(outer, inner), nn.Linear(inner, outer)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states: Tensor) -> Tensor:
        """ "T D" -> "T D"."""
        changed: Tensor = states + self.up(nn.functional.gelu(self.down(states)))
        return changed

    def after(self, layer: nn.Module, inputs: Any, states: Tensor) -> Tensor:
        """As a hook: what comes out of a layer goes through."""
        return self(states)


class Fusion(nn.Module):
    """Attention over what several bottlenecks say of a state (Pfeiffer et al. 2021, arXiv:2005.00247); their mean at first."""

    def __init__(self, outer: int, inner: int, count: int):
        super().__init__()
        self.each = nn.ModuleList(Bottleneck(outer, inner) for _ in range(count))
        self.query, self.key = (nn.Parameter(torch.zeros(outer, outer)) for _ in range(2))
        self.value = nn.Parameter(torch.eye(outer))
        nn.init.normal_(self.key, std=0.02)

    def forward(self, states: Tensor) -> Tensor:
        """ "T D" -> "T D"."""
        said = torch.stack([bottleneck(states) for bottleneck in self.each], -2)
        asked = states @ self.query.T
        weights = ((said @ self.key.T) @ asked[..., None]).softmax(-2)
        mixed: Tensor = (weights * (said @ self.value.T)).sum(-2)
        return mixed

    def after(self, layer: nn.Module, inputs: Any, states: Tensor) -> Tensor:
        """As a hook: what comes out of a layer goes through."""
        return self(states)
