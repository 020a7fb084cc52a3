"""The settings of the loop: the section `train` of a configuration."""

from typing import Literal

from pydantic import Field

from trainformer.core.memory_settings import MemorySettings
from trainformer.core.rates import RateSettings
from trainformer.core.speed_settings import SpeedSettings


class TrainSettings(MemorySettings, SpeedSettings, RateSettings):
    """The loop: how long, how fast, in which numbers."""

    epochs: float | None = Field(None, gt=0, le=1000)
    """Passes over the training rows; none: more for small data and fewer for large, and said."""
    lr: float | None = Field(None, gt=0, le=10)
    """Highest learning rate; none: by the width of the model, and said."""
    seed: int = Field(0, ge=0, lt=2**31)
    """All randomness of the run follows from it."""
    step_rows: int = Field(16, ge=1)
    """Rows of an optimiser step, whatever the memory: they are cut into micro-batches."""
    micro_tokens: int = Field(8192, ge=1)
    """Most tokens that go through the model at once; a single longer example goes alone."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the two averages of Adam and AdamW."""
    eps: float = Field(1e-8, gt=0)
    """Added to the root of the second average of Adam and AdamW."""
    weight_decay: float = Field(0.01, ge=0, le=10)
    """Decay of matrices (not of biases, norms and embeddings): decoupled for AdamW, L2 for Adam and SGD."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps over which the rate rises from 0, 0..1."""
    clip_norm: float = Field(1.0, ge=0)
    """Largest norm of the gradient of a step; 0: not clipped."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Numbers in the matrix products; auto: bfloat16 where it was measured to be faster on this machine."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; auto: a GPU if there is one."""
    evals_per_epoch: int = Field(1, ge=1, le=100)
    """How often an epoch is scored on validation."""
    probe: bool = True
    """Start the head from a linear probe on the frozen encoder (Kumar et al. 2022, arXiv:2202.10054)."""
    baselines: bool = True
    """Fit TF-IDF with logistic regression before training, to be told when fine-tuning is not worth it."""
    checkpoint_minutes: float = Field(5.0, gt=0)
    """Minutes after which the whole state is saved, besides at each evaluation; saving goes on beside training."""
    checkpoint_steps: int = Field(0, ge=0)
    """Steps after which the whole state is saved too; 0: by minutes and evaluations alone."""
    skip_nonfinite: int = Field(0, ge=0)
    """Steps with a loss or gradient that is no number which are passed over, counted and logged; one more ends the run."""
