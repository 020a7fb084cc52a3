"""Contrastive losses beside the sums of their formulas, written out."""

import math

import pytest
import torch

from trainformer.losses.contrastive import in_batch, supervised

STATES = torch.tensor([[2.0, 0.0], [0.0, 3.0], [3.0, 4.0], [-1.0, 0.0]])
"""Cosines: 0-1: 0, 0-2: 0.6, 0-3: -1, 1-2: 0.8, 1-3: 0, 2-3: -0.6."""


def test_supervised_by_its_sum() -> None:
    t = 0.5
    e = {k: math.exp(v / t) for k, v in {"01": 0, "02": 0.6, "03": -1, "12": 0.8, "13": 0, "23": -0.6}.items()}
    sums = [e["01"] + e["02"] + e["03"], e["01"] + e["12"] + e["13"], e["02"] + e["12"] + e["23"], e["03"] + e["13"] + e["23"]]
    expected = [
        -(math.log(e["01"] / sums[0]) + math.log(e["02"] / sums[0])) / 2,
        -(math.log(e["01"] / sums[1]) + math.log(e["12"] / sums[1])) / 2,
        -(math.log(e["02"] / sums[2]) + math.log(e["12"] / sums[2])) / 2,
        0.0,
    ]
    assert supervised(STATES, torch.tensor([5, 5, 5, 7]), t).tolist() == pytest.approx(expected, rel=1e-5)


def test_supervised_has_a_gradient_where_a_row_is_alone() -> None:
    states = STATES.clone().requires_grad_(True)
    supervised(states, torch.tensor([0, 1, 2, 3]), 0.1).sum().backward()
    assert states.grad.tolist() == [[0.0, 0.0]] * 4


def test_half_numbers_change_nothing() -> None:
    """Cosines that differ by less than bfloat16 sees are told apart by a temperature of 0.01."""
    states = torch.tensor([[1.0, 0.0], [0.999, 0.04], [1.0, 0.03], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 1, 1])
    with torch.autocast("cpu", torch.bfloat16):
        found = supervised(states, labels, 0.01)
    assert found.equal(supervised(states, labels, 0.01))


def test_in_batch_by_its_sum_and_without_false_negatives() -> None:
    one, other, t = STATES[:3], torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), 0.2
    rows = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.6, 0.8, 0.6]]
    whole = [-math.log(math.exp(r[i] / t) / sum(math.exp(x / t) for x in r)) for i, r in enumerate(rows)]
    assert in_batch(one, other, t).tolist() == pytest.approx(whole, rel=1e-5)
    # rows 0 and 2 share a document: neither has the other's as a negative
    kept = [[rows[0][:2], 0], [rows[1], 1], [rows[2][1:], 1]]
    expected = [-math.log(math.exp(r[i] / t) / sum(math.exp(x / t) for x in r)) for r, i in kept]
    assert in_batch(one, other, t, torch.tensor([4, 9, 4])).tolist() == pytest.approx(expected, rel=1e-5)
