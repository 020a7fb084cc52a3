"""The roles: what a task, a backbone, a method, a callback and a metric are to the engine. Letters: core/shapes.py.

Every default of a method is the identity, so a new one overrides only what it changes.
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trainformer.core.component import Component
from trainformer.core.errors import UserError
from trainformer.core.reports import EvalReport as EvalReport
from trainformer.core.reports import StepReport as StepReport

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from trainformer.core.batch import Batch, Encoded
    from trainformer.core.model import Body as Body
    from trainformer.core.model import Grad as Grad
    from trainformer.core.model import Loss as Loss
    from trainformer.core.model import Model as Model
    from trainformer.core.protocols import Metric, Tokens
    from trainformer.core.rows import Example
else:
    OF_PYTORCH = ("Body", "Grad", "Loss", "Model")

    def __getattr__(name: str) -> Any:
        """What is trained is loaded when it is first asked for: who only answers has no PyTorch."""
        if name not in OF_PYTORCH:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module("trainformer.core.model"), name)


Answer = dict[str, Any]


@dataclass(frozen=True)
class Decision:
    """How scores become an answer; fitted on validation, shipped with the task.

    temperature divides the logits; thresholds are the least score to say a label, by label; below `abstain` the
    answer is None: ask a person. `costs[said][true]` chooses the label of least expected cost.
    """

    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)
    abstain: float | None = None
    costs: dict[str, dict[str, float]] = field(default_factory=dict)


class Task(Component):
    """What a row means, what is learnt from it, and how the answer is said."""

    best: ClassVar[str] = "loss"
    """The score that chooses the best epoch."""
    higher_is_better: ClassVar[bool] = False
    pair: ClassVar[bool] = False
    """Whether it reads two texts."""
    unlabelled: ClassVar[bool] = False
    """Whether rows have no label, the texts being all there is to learn from; nothing cheap is a baseline of that."""
    embeds: ClassVar[bool] = False
    """Whether its outputs are the pooled states of each sequence, of length 1, and the head has no layer of its own."""
    vocabulary: ClassVar[bool] = False
    """Whether its outputs are scores of the vocabulary, "U V": a unit is a token that is to be told."""
    writes: ClassVar[Literal["", "decoder", "encoder-decoder"]] = ""
    """What it needs to write texts; a pair's second text is then what is to be written, and a row is asked without it."""

    def meet(self, tokens: Tokens) -> None:
        """Is told the tokenizer, before anything is encoded. Raises UserError for one that it cannot use."""

    @abstractmethod
    def parse(self, texts: tuple[str, ...], label: Any, row: int, weight: float) -> Example:
        """An example from the texts and the label of a row. Raises UserError (without place) for a label it cannot be."""

    @abstractmethod
    def observe(self, example: Example) -> None:
        """Sees each training example once, before any is encoded; constant memory but for the labels."""

    @abstractmethod
    def settle(self) -> None:
        """After the last `observe`: fixes labels, class weights, scale. Raises UserError if nothing can be learnt."""

    @abstractmethod
    def encode(self, example: Example, pieces: list[list[int]], tokens: Tokens, limit: int) -> Encoded:
        """Token sequences of an example, none longer than `limit` tokens; what does not fit is counted."""

    @abstractmethod
    def outputs(self) -> int:
        """The number of values that the head gives for each unit."""

    @abstractmethod
    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """One loss "U" for each unit, in nats; never a mean. The output is in float32, scores of a vocabulary in bfloat16 too."""

    @abstractmethod
    def divergence(self, one: Tensor, other: Tensor) -> Tensor:
        """How far two outputs for the same batch are apart, "U", symmetric: what consistency training lowers."""

    @abstractmethod
    def answer(self, output: Any, decision: Decision) -> list[Answer]:
        """What a user gets for each example, in order; the output is a tensor, or an array where a task reads such."""

    @abstractmethod
    def metric(self, decision: Decision | None = None) -> Metric:
        """A fresh metric of this task."""

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """The raw output for a batch."""
        output: Tensor = model(batch)
        return output

    def vary(self, encoded: Encoded, rng: torch.Generator) -> Encoded:
        """Random changes to a training example (masks, negatives), drawn from (seed, epoch, row)."""
        return encoded

    def couples(self, kind: str) -> bool:
        """Whether the loss joins rows of the whole step (in-batch negatives)."""
        return False


class Backbone(Component):
    """Settings of a model, and how it is built, written and read."""

    @classmethod
    def knows(cls, name: str) -> bool:
        """Whether a model's name, without a kind, means one of this kind."""
        return False

    def reads(self) -> str:
        """The folder or hub name of its tokenizer."""
        return str(self.settings()["name"])

    def refuse(self, task: Task) -> None:
        """Raises UserError for a task that a model of its form cannot have, before a row is read."""

    @abstractmethod
    def resolve(self) -> tuple[Backbone, list[str]]:
        """The settings with what the user left open filled in, and what to say aloud about it."""

    @abstractmethod
    def limit(self) -> int:
        """Most tokens of a sequence that the model can read, special tokens included."""

    @abstractmethod
    def load(self, task: Task) -> tuple[Model, Backbone, list[str]]:
        """A model with a head for the task, the settings as they were settled, and what to say aloud."""

    @abstractmethod
    def save(self, model: Model, folder: Path, task: Task) -> None:
        """Writes configuration and weights, as the transformers library reads them."""

    @abstractmethod
    def opens_in_library(self, model: Model) -> bool:
        """Whether the transformers library gives equal logits with what `save` writes."""

    @abstractmethod
    def open(self, folder: Path, task: Task, stays: Sequence[Method] = (), weights: dict[str, Tensor] | None = None) -> Model:
        """The model of a bundle; methods that stay extend it before the weights are loaded.

        `weights`, by our names, stand in for those of the folder: a base with an adapter, which is not folded yet.
        """


def _no_lengths() -> Tensor:
    import torch

    return torch.empty(0)


def _no_column(name: str) -> list[Any]:
    raise UserError(f"there are no rows to read the column '{name}' from.")


@dataclass(frozen=True)
class Facts:
    """What a method may know of the run that it takes part in."""

    task: Task
    steps: int
    seed: int
    steps_an_epoch: int = 1
    folder: Path | None = None
    """The run's folder, where there is one."""
    batches: Callable[[], Iterable[Batch]] | None = None
    """All training rows once, longest first, numbered as in the steps; None where a task varies its rows."""
    rows: int = 0
    """Training rows; `batch.rows` counts from 0 among them."""
    column: Callable[[str], list[Any]] = _no_column
    """The values of a column of the training rows, in their order. Raises UserError if there is none of that name."""
    lengths: Callable[[], Tensor] = _no_lengths
    """Tokens of each training row, "N"."""
    tokenizer: str = ""
    """What tells one tokenizer from another."""


@dataclass
class Rule:
    """How the optimiser treats a parameter: its share of the rate, and whether it decays."""

    rate: float = 1.0
    decay: bool = True


class Method(Component):
    """A change to training. The order in the configuration is the nesting: the last is outermost."""

    stays: ClassVar[bool] = False
    """Structure that ships (adapter, prefix): the bundle calls `extend` before it loads the weights."""
    clashes: ClassVar[dict[str, str]] = {}
    """Methods that cannot stand beside this one, with the reason."""
    shards: ClassVar[bool] = False
    """Whether it does right by weights of which each process holds a part (train.shard)."""
    moves_start: ClassVar[bool] = False
    """Whether the untrained model gives other outputs with it than without (prefix, prompt)."""
    rate_factor: ClassVar[float] = 1.0
    """How many times the usual rate a run with it learns best at, where the user sets none; of several the largest counts."""

    def takes(self) -> int:
        """How many tokens of each sequence it takes for itself; a text has so many fewer."""
        return 0

    passes: ClassVar[int] = 1
    """Forward passes of a micro-batch that are in memory at once."""

    def extend(self, model: Model) -> None:
        """Adds to or changes the model before training."""

    def prepare(self, model: Model, facts: Facts) -> None:
        """Called when the model is whole and the run is known, and again if a probe has given its head a start."""

    def couples(self) -> bool:
        """Whether its loss joins the rows of the whole step: then the loss gets all of them as one batch."""
        return False

    def pick(self, rows: list[int], step: int) -> list[int]:
        """The training rows that a step reads instead of those planned; a pure function of its arguments."""
        return rows

    def groups(self, model: Model, rules: dict[str, Rule]) -> None:
        """Changes how parameters are treated, by name."""

    def wrap_loss(self, loss: Loss) -> Loss:
        """Takes and gives (model, batch) -> a loss for each unit."""
        return loss

    def wrap_grad(self, grad: Grad, model: Model) -> Grad:
        """Takes and gives (micro-batches of the step) -> mean loss, gradients added. Restore weights in `finally`."""
        return grad

    def after_step(self, model: Model, step: int) -> None:
        """Called when the optimiser has stepped; `step` steps are done now, this one counted."""

    def swap(self, model: Model) -> None:
        """Exchanges the weights in training with those to evaluate and ship; its own inverse."""

    def scored(self, model: Model, score: float) -> None:
        """Called at each evaluation, the weights those that would ship; of two scores the larger is the better."""

    def finish(self, model: Model, score: Callable[[], float]) -> None:
        """Called once at the end, the best weights in the model; it may change them, and have them scored on validation."""

    def fold(self, model: Model) -> None:
        """Bakes in what can be baked, before shipping."""

    def state(self) -> dict[str, Tensor]:
        """What an exact resume needs: a copy, which later steps leave alone."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` gave."""

    def told(self) -> dict[str, Any]:
        """What the log and the report tell of it, as plain JSON values; asked at each evaluation."""
        return {}


class Callback(Component):
    """Watches. It sees frozen reports and can only ask to stop; the engine owns and saves its state."""

    def on_start(self, facts: dict[str, Any]) -> None:
        """Before the first step: run folder, number of steps, settings."""

    def on_step(self, report: StepReport) -> None:
        """After each step."""

    def on_eval(self, report: EvalReport) -> bool:
        """After each evaluation; True asks to stop."""
        return False

    def on_end(self) -> None:
        """After the last step, or when the run breaks off."""

    def state(self) -> dict[str, Any]:
        """What an exact resume needs, as plain JSON values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what `state` gave."""
