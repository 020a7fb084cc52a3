"""Names and settings of optimisers and schedules."""

from typing import Literal

from pydantic import Field

from trainformer.core.component import Component

Optimizer = Literal["adamw", "adam", "sgd", "adafactor", "lion", "muon", "schedule_free"]
Schedule = Literal["linear", "cosine", "constant", "polynomial", "noam", "one_cycle", "wsd"]


class RateSettings(Component):
    """The optimiser, and the shape of its rate."""

    optimizer: Optimizer = "adamw"
    """What makes a step of a gradient: by name, with momentum for sgd; muon is for matrices, beside adamw for the rest."""
    schedule: Schedule = "linear"
    """How the rate goes on after warm-up: most fall to 0, noam by 1 / sqrt(step); schedule_free has none, and stays constant."""
    power: float = Field(2.0, gt=0, le=10)
    """Power of the polynomial schedule."""
    cooldown: float = Field(0.2, gt=0, le=1)
    """Share of the steps at the end over which wsd falls to 0, 0..1."""
