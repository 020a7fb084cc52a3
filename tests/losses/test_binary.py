"""Against torch's own loss and the papers' formulas."""

import pytest
import torch
from torch.nn import functional as F

from trainformer.losses.binary import binary_cross_entropy, symmetric_kl

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.3, -0.5, 4.0]])
TARGET = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])


def test_mean_over_classes_is_torchs():
    expected = F.binary_cross_entropy_with_logits(LOGITS, TARGET, reduction="none").mean(-1)
    torch.testing.assert_close(binary_cross_entropy(LOGITS, TARGET), expected)


def test_weight_is_torchs_weight_of_positives():
    weight = torch.tensor([0.5, 2.0, 3.0])
    expected = F.binary_cross_entropy_with_logits(LOGITS, TARGET, reduction="none", pos_weight=weight).mean(-1)
    torch.testing.assert_close(binary_cross_entropy(LOGITS, TARGET, weight), expected)


def test_smoothing_moves_targets_towards_a_half():
    soft = torch.where(TARGET > 0, 0.9, 0.1)
    expected = F.binary_cross_entropy_with_logits(LOGITS, soft, reduction="none").mean(-1)
    torch.testing.assert_close(binary_cross_entropy(LOGITS, TARGET, smoothing=0.2), expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_is_the_formula_of_the_paper(gamma):
    p = torch.where(TARGET > 0, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
    expected = (-((1 - p) ** gamma) * p.log()).mean(-1)
    torch.testing.assert_close(binary_cross_entropy(LOGITS, TARGET, gamma=gamma), expected)


def test_large_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = binary_cross_entropy(logits, torch.tensor([[0.0, 0.0]]), gamma=0.5)
    loss.sum().backward()
    assert loss.tolist() == [5000.0]
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_symmetric_kl_is_that_of_two_classes():
    other = LOGITS.flip(0)
    p, q = LOGITS.sigmoid(), other.sigmoid()
    one_way = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    back = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
    torch.testing.assert_close(symmetric_kl(LOGITS, other), (one_way + back).mean(-1) / 2)
