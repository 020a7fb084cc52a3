"""Contrastive losses: what belongs together lies closer than the other rows of the step. One value for each row."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a task names its loss, and answers without PyTorch
    from torch import Tensor

LEAST = 1e-12
"""Floor of a length, as PyTorch has it."""


def supervised(states: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Loss "B" in nats of states "B D": rows of one label "B" attract each other (Khosla et al. 2020, arXiv:2004.11362, L_out).

    For row i the mean over the others p of its label of -log(exp(s_ip) / sum over all a != i of exp(s_ia)), s the cosine divided
    by the temperature; 0 for a row that is alone with its label.
    """
    from torch import autocast

    z, itself = _unit(states), _itself(states)
    with autocast(z.device.type, enabled=False):  # a temperature makes what bfloat16 rounds off large
        likeness = (z @ z.T / temperature).masked_fill(itself, -inf)
    log_p = likeness.log_softmax(-1).masked_fill(itself, 0.0)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    total = -(log_p * positive).sum(-1)
    return total / positive.sum(-1).clamp_min(1)


def in_batch(one: Tensor, other: Tensor, temperature: float, groups: Tensor | None = None) -> Tensor:
    """Loss "B" in nats: each state of `one` "B D" finds its own in `other` "B D" among all of them (van den Oord et al. 2018,
    arXiv:1807.03748). Rows of an equal group "B" are no negatives of each other: they mean the same.
    """
    likeness = _unit(one) @ _unit(other).T / temperature
    if groups is not None:
        likeness = likeness.masked_fill((groups[:, None] == groups[None, :]) & ~_itself(one), -inf)
    return -likeness.log_softmax(-1).diagonal()


def _unit(states: Tensor) -> Tensor:
    """Each row "D" at length 1, in float32."""
    states = states.float()
    return states / states.norm(dim=-1, keepdim=True).clamp_min(LEAST)


def _itself(states: Tensor) -> Tensor:
    """Where a row meets itself, "B B"."""
    return states.new_ones(len(states)).diag().bool()
