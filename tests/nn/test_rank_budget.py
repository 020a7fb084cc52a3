"""Ranks that move: importance and budget worked out by hand."""

import pytest
import torch
from torch import nn

from trainformer.nn.rank_budget import RankBudget, Triplet, apart


def layer(name: str, e: list[float], a: float = 1.0) -> Triplet:
    rank = len(e)
    return Triplet(
        name,
        nn.Parameter(torch.full((rank, 3), a)),
        nn.Parameter(torch.tensor(e)[:, None]),
        nn.Parameter(torch.ones(2, rank)),
    )


def give(triplets: list[Triplet], gradient: float = 1.0) -> None:
    for t in triplets:
        for p in (t.a, t.e, t.b):
            p.grad = torch.full_like(p, gradient)


def test_the_budget_falls_as_a_cube_between_its_ends() -> None:
    budget = RankBudget([layer("x", [1.0] * 6), layer("y", [1.0] * 6)], rank=2, phases=(10, 20, 5), smooth=0.5)
    # 4 + 8 * (1 - (step - 10) / 10) ** 3
    assert [budget.budget(s) for s in (0, 10, 15, 20, 30)] == [12, 12, 5, 4, 4]


def test_importance_is_sensitivity_times_its_spread_smoothed() -> None:
    x = layer("x", [2.0, -4.0])
    budget = RankBudget([x], rank=1, phases=(100, 200, 1), smooth=0.75)
    give([x])
    budget.note()
    budget.step(1)
    # E: |2 * 1| -> mean 0.25 * 2 = 0.5, spread 0.25 * |2 - 0.5| = 0.375, their product 0.1875; for -4: 1 and 0.75.
    # A and B: |1 * 1| -> mean 0.25, spread 0.1875.
    small = 0.25 * 0.1875
    assert budget.importance().tolist() == pytest.approx([0.1875 + 2 * small, 0.75 + 2 * small])


def test_ranks_go_to_the_layer_that_needs_them_and_stay_there() -> None:
    x, y = layer("x", [1.0, 1.1, 1.2, 0.1]), layer("y", [5.0, 6.0, 7.0, 8.0])
    budget = RankBudget([x, y], rank=2, phases=(1, 3, 1), smooth=0.5)
    for step in (1, 2, 3):
        give([x, y])
        budget.note()
        budget.step(step)
    assert budget.ranks() == [0, 4] and x.e.flatten().tolist() == [0, 0, 0, 0]
    x.e.data.fill_(3.0)  # what the optimiser does in the last phase is undone
    budget.step(4)
    assert x.e.flatten().tolist() == [0, 0, 0, 0] and y.e.flatten().tolist() == [5, 6, 7, 8]
    assert budget.told() == {"steps": [1, 2, 3], "ranks": {"x": [4, 0, 0], "y": [4, 4, 4]}}


def test_orthogonal_is_zero_apart() -> None:
    square = Triplet("x", nn.Parameter(torch.eye(2, 5)), nn.Parameter(torch.ones(2, 1)), nn.Parameter(torch.eye(4, 2)))
    assert apart([square]).item() == 0
    # A A' - 1 = [[2]], B' B - 1 = [[1]]: the mean of 2 and 1
    assert apart([layer("x", [1.0])]).item() == pytest.approx(1.5)
