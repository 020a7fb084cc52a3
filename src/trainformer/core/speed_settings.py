"""Settings of the loop that only change how fast it is."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from trainformer.core.component import Component

Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(lambda v: ("off", "on")[v] if isinstance(v, bool) else v)]
"""YAML reads a bare on or off as true or false."""


class SpeedSettings(Component):
    """What the machine may do for speed."""

    native: Switch = "auto"
    """Kernels in C for bfloat16 on a CPU, compiled once on this machine; auto: where they can be, and said."""
