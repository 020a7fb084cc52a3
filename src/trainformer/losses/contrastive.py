"""Contrastive losses: what belongs together lies closer than the other rows of the step. One value for each row."""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def supervised(states: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Loss "B" in nats of states "B D": rows of one label "B" attract each other (Khosla et al. 2020, arXiv:2004.11362, L_out).

    For row i the mean over the others p of its label of -log(exp(s_ip) / sum over all a != i of exp(s_ia)), s the cosine divided
    by the temperature; 0 for a row that is alone with its label.
    """
    z = normalize(states.float(), dim=-1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    with torch.autocast(z.device.type, enabled=False):  # a temperature makes what bfloat16 rounds off large
        likeness = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
    log_p = likeness.log_softmax(-1).masked_fill(itself, 0.0)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    total = -(log_p * positive).sum(-1)
    return total / positive.sum(-1).clamp_min(1)


def in_batch(one: Tensor, other: Tensor, temperature: float, groups: Tensor | None = None) -> Tensor:
    """Loss "B" in nats: each state of `one` "B D" finds its own in `other` "B D" among all of them (van den Oord et al. 2018,
    arXiv:1807.03748). Rows of an equal group "B" are no negatives of each other: they mean the same.
    """
    likeness = normalize(one.float(), dim=-1) @ normalize(other.float(), dim=-1).T / temperature
    if groups is not None:
        itself = torch.eye(len(one), dtype=torch.bool, device=one.device)
        likeness = likeness.masked_fill((groups[:, None] == groups[None, :]) & ~itself, -torch.inf)
    return -likeness.log_softmax(-1).diagonal()
