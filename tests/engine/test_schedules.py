"""Schedules beside their formulas and beside PyTorch's own."""

import math
from typing import Any

import pytest
import torch

from trainformer.core.config import TrainSettings
from trainformer.engine.schedules import rate


def rates(steps: int, **words: Any) -> list[float]:
    settings = TrainSettings(lr=2.0, **words)
    return [rate(step, steps, settings) for step in range(steps)]


def test_polynomial() -> None:
    assert rates(4, warmup=0.0, schedule="polynomial", power=3.0) == pytest.approx([2 * (1 - k / 4) ** 3 for k in range(4)])
    assert rates(9, warmup=0.2, schedule="polynomial", power=1.0) == pytest.approx(rates(9, warmup=0.2, schedule="linear"))


def test_noam() -> None:
    """Vaswani et al. 2017: min(n^-0.5, n warm^-1.5) of the n-th step, here with the highest rate at n = warm."""
    expected = [2 * math.sqrt(4) * min(n**-0.5, n * 4**-1.5) for n in range(1, 21)]
    assert rates(20, warmup=0.2, schedule="noam") == pytest.approx(expected)
    assert rates(4, warmup=0.0, schedule="noam") == pytest.approx([2.0, 2 / 2**0.5, 2 / 3**0.5, 1.0])


def test_warm_up_stable_decay() -> None:
    expected = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0]
    assert rates(10, warmup=0.2, schedule="wsd", cooldown=0.2) == pytest.approx(expected)
    assert rates(5, warmup=0.0, schedule="wsd", cooldown=1.0) == pytest.approx(rates(5, warmup=0.0, schedule="linear"))


@pytest.mark.parametrize(("steps", "warmup"), [(20, 0.3), (100, 0.1), (7, 0.5)])
def test_one_cycle_is_that_of_pytorch(steps: int, warmup: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2.0, total_steps=steps, pct_start=warmup)
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < steps:
            theirs.step()
    assert rates(steps, warmup=warmup, schedule="one_cycle") == pytest.approx(expected, rel=1e-6)


def test_every_schedule_bears_a_run_of_one_step() -> None:
    for schedule in ("linear", "cosine", "constant", "polynomial", "noam", "one_cycle", "wsd"):
        (only,) = rates(1, schedule=schedule)
        assert 0 < only <= 2.0, schedule


def test_schedule_free_stays_at_the_top() -> None:
    assert rates(4, warmup=0.25, schedule="linear", optimizer="schedule_free") == [2.0] * 4
