"""What callbacks see: frozen facts after each step and after each evaluation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepReport:
    """What callbacks see after each step."""

    step: int
    steps: int
    epoch: float
    loss: float
    lr: float
    tokens: int
    padded_tokens: int
    seconds: float
    grad_norm: float


@dataclass(frozen=True)
class EvalReport:
    """What callbacks see after each evaluation."""

    step: int
    epoch: float
    scores: dict[str, float]
    best: bool
    key: str
    higher_is_better: bool
