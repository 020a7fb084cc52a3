"""The learning rate of each step, by the name of its schedule."""

import math
from collections.abc import Callable

from trainformer.core.config import TrainSettings

LOWEST, LAST = 25.0, 1e4
"""One cycle starts at 1/25 of the highest rate, and ends at 1/10,000 of where it started."""

Shape = Callable[[float, TrainSettings], float]

SHAPES: dict[str, Shape] = {
    "linear": lambda done, settings: 1 - done,
    "cosine": lambda done, settings: _half_cosine(1.0, 0.0, done),
    "constant": lambda done, settings: 1.0,
    "polynomial": lambda done, settings: (1 - done) ** settings.power,
}
"""Share of the highest rate by the share of the steps after warm-up that is done, 0..1."""


def rate(step: int, steps: int, settings: TrainSettings) -> float:
    """The learning rate of a step (from 0): linear warm-up, then as the schedule says; schedule-free it stays there."""
    name = "constant" if settings.optimizer == "schedule_free" else settings.schedule
    peak, warm = settings.lr or 0.0, math.ceil(settings.warmup * steps)
    if name == "one_cycle":
        return peak * _one_cycle(step, steps, settings.warmup)
    if step < warm:
        return peak * (step + 1) / warm
    if name == "noam":  # Vaswani et al. 2017, arXiv:1706.03762
        return peak * math.sqrt(max(warm, 1) / (step + 1))
    if name == "wsd":  # warm-up, stable, decay: Hu et al. 2024, arXiv:2404.06395
        return peak * min(1.0, (steps - step) / max(1.0, settings.cooldown * steps))
    return peak * SHAPES[name]((step - warm) / max(1, steps - warm), settings)


def _one_cycle(step: int, steps: int, warmup: float) -> float:
    """Half a cosine up and half a cosine down, as PyTorch's OneCycleLR (Smith and Topin 2018, arXiv:1708.07120)."""
    top = max(warmup * steps - 1, 0.0)
    if step <= top and top > 0:
        return _half_cosine(1 / LOWEST, 1.0, step / top)
    return _half_cosine(1.0, 1 / LOWEST / LAST, (step - top) / max(1.0, steps - 1 - top))


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * done))
