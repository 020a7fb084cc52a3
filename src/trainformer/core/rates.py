"""Names and settings of optimisers and schedules."""

from typing import Literal

from pydantic import Field

from trainformer.core.component import Component

Optimizer = Literal["adamw", "adam", "sgd", "adafactor", "lion", "muon", "schedule_free"]
Schedule = Literal["linear", "cosine", "constant", "polynomial", "noam", "one_cycle", "wsd"]


class RateSettings(Component):
    """The optimiser, and the shape of its rate."""

    optimizer: Optimizer = "adamw"
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), Adam, SGD with momentum, Adafactor (Shazeer and Stern 2018,
    arXiv:1804.04235), Lion (Chen et al. 2023, arXiv:2302.06675), Muon for matrices with AdamW for the rest (Liu et al. 2025,
    arXiv:2502.16982), or AdamW without a schedule (Defazio et al. 2024, arXiv:2405.15682)."""
    schedule: Schedule = "linear"
    """Shape of the rate after warm-up: linear, cosine and polynomial end at 0, noam falls as 1 / sqrt(step), wsd stays and falls
    at the end, one_cycle rises and falls as cosines; schedule_free stays constant whatever stands here."""
    power: float = Field(2.0, gt=0, le=10)
    """Power of the polynomial schedule."""
    cooldown: float = Field(0.2, gt=0, le=1)
    """Share of the steps at the end over which wsd falls to 0, 0..1."""
