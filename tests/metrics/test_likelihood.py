"""Perplexity of a token and of a byte, by hand."""

import math
from typing import Any

import pytest
import torch

from trainformer.metrics.likelihood import Likelihood

NOTHING: Any = None


def test_sums_over_batches_by_hand() -> None:
    metric = Likelihood()
    assert metric.value() == {"examples": 0}
    metric.add(torch.tensor([[6.0, 3, 1, 20, 0, 0], [2.0, 1, 1, 12, 0, 0]]), NOTHING)
    metric.add(torch.tensor([[4.0, 2, 0, 8, 0, 0]]), NOTHING)
    found = metric.value()
    assert found == pytest.approx({
        "examples": 3, "loss": 2.0, "perplexity": math.exp(2), "tokens": 6, "token_accuracy": 1 / 3,
        "bits_per_byte": 12 / 40 / math.log(2), "perplexity_per_byte": math.exp(0.3)})  # fmt: skip


def test_what_was_not_counted_is_not_told() -> None:
    metric = Likelihood()
    metric.add(torch.tensor([[6.0, 3, 1, 0, 2, 1]]), NOTHING)
    assert set(metric.value()) == {"examples", "loss", "perplexity", "tokens", "token_accuracy", "sentence_accuracy"}
    assert metric.value()["sentence_accuracy"] == 0.5 and metric.detail() == {}
    silent = Likelihood()
    silent.add(torch.zeros(2, 6), NOTHING)
    assert silent.value() == {"examples": 2}
