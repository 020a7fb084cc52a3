"""Against torch's own loss, the papers' formulas and numbers worked out by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from trainformer.losses.classification import cross_entropy, symmetric_kl

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.5, 0.0], [-3.0, 1.0, 4.0]])
TARGET = torch.tensor([0, 2, 1])


def test_one_unit_by_hand():
    # p = 1 / (1 + e^-2 + e^-3)
    expected = math.log(1 + math.exp(-2) + math.exp(-3))
    assert cross_entropy(LOGITS[:1], TARGET[:1]).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_smoothing_is_torchs(smoothing):
    expected = F.cross_entropy(LOGITS, TARGET, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(cross_entropy(LOGITS, TARGET, smoothing=smoothing), expected)


def test_weight_is_torchs_without_smoothing_and_scales_the_unit_with_it():
    weight = torch.tensor([0.5, 2.0, 3.0])
    expected = F.cross_entropy(LOGITS, TARGET, weight, reduction="none")
    torch.testing.assert_close(cross_entropy(LOGITS, TARGET, weight), expected)
    smooth = F.cross_entropy(LOGITS, TARGET, reduction="none", label_smoothing=0.2) * torch.tensor([0.5, 3.0, 2.0])
    torch.testing.assert_close(cross_entropy(LOGITS, TARGET, weight, 0.2), smooth)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_is_the_formula_of_the_paper(gamma):
    p = LOGITS.softmax(-1)[torch.arange(3), TARGET]
    torch.testing.assert_close(cross_entropy(LOGITS, TARGET, gamma=gamma), -((1 - p) ** gamma) * p.log())


def test_focal_has_a_finite_slope_where_the_model_is_certain():
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    cross_entropy(logits, torch.tensor([0]), gamma=0.5).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_half_precision_is_computed_in_full():
    loss = cross_entropy(LOGITS.bfloat16(), TARGET)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(LOGITS.bfloat16().float(), TARGET, reduction="none"))


def test_symmetric_kl_against_torch():
    other = LOGITS.flip(0)
    p, q = LOGITS.log_softmax(-1), other.log_softmax(-1)
    both = F.kl_div(q, p, reduction="none", log_target=True).sum(-1) + F.kl_div(p, q, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(symmetric_kl(LOGITS, other), both / 2)
    assert symmetric_kl(LOGITS, LOGITS).tolist() == [0.0, 0.0, 0.0]
