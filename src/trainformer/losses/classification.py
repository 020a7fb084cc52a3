"""One label out of C: cross-entropy with label smoothing, class weights and the focal factor; how far two outputs are apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a task names its loss, and answers without PyTorch
    from torch import Tensor

LEAST = 1e-12
"""Floor of the focal factor's base: a power below 1 has no finite slope at 0."""


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, smoothing: float = 0.0, gamma: float = 0.0
) -> Tensor:
    """Loss "U" in nats of logits "U C" for the true classes `target` "U".

    smoothing: share of the target spread evenly over all C classes (Szegedy et al. 2016, arXiv:1512.00567).
    gamma: the loss is multiplied by (1 - p)^gamma, p the share given to the true class (focal loss, Lin et al. 2017,
    arXiv:1708.02002); 0 is plain cross-entropy. weight "C": the loss of a unit is multiplied by its true class's weight.
    """
    log_p = logits.float().log_softmax(-1)
    log_true = log_p.gather(-1, target[:, None]).squeeze(-1)
    loss = -log_true
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * log_p.mean(-1)
    if gamma:
        loss = loss * (-log_true.expm1()).clamp(min=LEAST) ** gamma
    return loss if weight is None else loss * weight[target]


def symmetric_kl(one: Tensor, other: Tensor) -> Tensor:
    """Half of KL(one|other) + KL(other|one), "U" in nats, of two logits "U C" (R-Drop, Liang et al. 2021, arXiv:2106.14448)."""
    log_p, log_q = one.float().log_softmax(-1), other.float().log_softmax(-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1) / 2
