"""Ranks of documents, counted by hand."""

import pytest
import torch

from trainformer.core.batch import Batch
from trainformer.metrics.ranking import Ranking


def batch(ids: list[int]) -> Batch:
    n = len(ids)
    return Batch((), torch.tensor(ids), torch.ones(n), list(range(n)), list(range(n + 1)))


def unit(*degrees: float) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angle.cos(), angle.sin()], 1).float()


def test_rank_is_one_and_one_for_each_nearer_document() -> None:
    queries, documents = unit(0, 90, 100), unit(10, 95, 20)
    metric = Ranking()
    for i in range(3):  # a row at a time, as batches come
        metric.add(torch.cat([queries[i : i + 1], documents[i : i + 1]], 1), batch([i]))
    # query 0 (0 deg): own at 10, others 95, 20: rank 1. query 1 (90): own 95: rank 1. query 2 (100): own 20, 95 nearer, 10 not: 2
    scores = metric.value()
    assert scores == {
        "examples": 3,
        "mrr": pytest.approx((1 + 1 + 0.5) / 3),
        "recall_at_1": pytest.approx(2 / 3),
        "recall_at_10": 1.0,
    }


def test_a_model_that_says_the_same_of_all_gains_nothing() -> None:
    metric = Ranking()
    metric.add(torch.ones(30, 4) / 2**0.5, batch(list(range(30))))
    assert metric.value() == {"examples": 30, "mrr": pytest.approx(1 / 15.5), "recall_at_1": 0.0, "recall_at_10": 0.0}


def test_a_document_that_stands_twice_is_one() -> None:
    metric = Ranking()
    metric.add(torch.cat([unit(0, 0, 90), unit(10, 10, 90)], 1), batch([7, 7, 8]))
    assert metric.value()["mrr"] == 1.0


def test_no_rows() -> None:
    assert Ranking().value() == {"examples": 0} and Ranking().detail() == {}
