"""Any number of C labels: binary cross-entropy, the mean over the classes of each unit; how far two outputs are apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a task names its loss, and answers without PyTorch
    from torch import Tensor

LEAST = 1e-12
"""Floor of the focal factor's base: a power below 1 has no finite slope at 0."""


def binary_cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, smoothing: float = 0.0, gamma: float = 0.0
) -> Tensor:
    """Loss "U" in nats, the mean over classes, of logits "U C" for 0-or-1 targets "U C".

    weight "C" multiplies the loss of each label that is true. smoothing moves a target from 1 to 1 - s/2 and from 0 to s/2
    (Szegedy et al. 2016, arXiv:1512.00567, for two classes). gamma is the focal power (Lin et al. 2017, arXiv:1708.02002).
    """
    from torch.nn.functional import logsigmoid

    logits, target = logits.float(), target.float()
    soft = target * (1 - smoothing) + smoothing / 2
    positive = soft if weight is None else soft * weight
    loss = -(positive * logsigmoid(logits) + (1 - soft) * logsigmoid(-logits))
    if gamma:
        loss = loss * (logits * (1 - 2 * target)).sigmoid().clamp(min=LEAST) ** gamma
    return loss.mean(-1)


def symmetric_kl(one: Tensor, other: Tensor) -> Tensor:
    """Half of KL both ways, "U" in nats, the mean over C independent yes-or-no answers with logits "U C"."""
    one, other = one.float(), other.float()
    return ((one.sigmoid() - other.sigmoid()) * (one - other)).mean(-1) / 2
