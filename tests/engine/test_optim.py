"""The optimiser: the rate of each step by formula, and what decays."""

import math
from typing import Any

import pytest

from trainformer.core.config import TrainSettings
from trainformer.engine import optim


def rates(steps: int, **words: Any) -> list[float]:
    settings = TrainSettings(lr=2.0, **words)
    return [optim.rate(step, steps, settings) for step in range(steps)]


def test_warm_up_rises_in_a_line_to_the_whole_rate() -> None:
    assert rates(20, warmup=0.2, schedule="constant") == pytest.approx([0.5, 1.0, 1.5, 2.0] + [2.0] * 16)
    assert rates(7, warmup=0.1, schedule="constant") == [2.0] * 7, "one step of warm-up has the whole rate"


def test_linear() -> None:
    assert rates(5, warmup=0.0) == pytest.approx([2.0, 1.6, 1.2, 0.8, 0.4])


def test_cosine() -> None:
    expected = [1 + math.cos(math.pi * k / 8) for k in range(8)]
    assert rates(10, warmup=0.2, schedule="cosine") == pytest.approx([1.0, 2.0, *expected])
    assert rates(4, warmup=0.0, schedule="cosine")[2] == pytest.approx(1.0), "half-way, half the rate"


def test_a_run_of_one_step_learns() -> None:
    for schedule in ("linear", "cosine", "constant"):
        assert rates(1, schedule=schedule) == [2.0]


def test_only_matrices_decay(engine: Any) -> None:
    loop = engine("run", method=["llrd"], weight_decay=0.1)
    decays = {id(p): g["weight_decay"] for g in loop.optimizer.param_groups for p in g["params"]}
    names = {name: decays[id(p)] for name, p in loop.model.named_parameters()}
    assert len(names) == sum(len(g["params"]) for g in loop.optimizer.param_groups)
    for name, decay in names.items():
        matrix = name.endswith("weight") and "LayerNorm" not in name and "embeddings" not in name
        assert decay == (0.1 if matrix else 0.0), name


def test_a_layer_learns_at_its_share_of_the_rate(engine: Any) -> None:
    """Two layers: embeddings 0.9^2, the lower layer 0.9, the upper one and the head 1."""
    loop = engine("run", method={"llrd": {"decay": 0.9}})
    optim.set_rate(loop.optimizer, 0.5)
    lrs = {id(p): g["lr"] for g in loop.optimizer.param_groups for p in g["params"]}
    for name, parameter in loop.model.named_parameters():
        share = 0.81 if ".embeddings." in name else 0.9 if ".layer.0." in name else 1.0
        assert lrs[id(parameter)] == pytest.approx(0.5 * share), name
