"""AdaLoRA: low-rank changes whose ranks move to the layers that need them (Zhang et al. 2023, arXiv:2303.10512)."""

from typing import Any, ClassVar

from pydantic import Field, PrivateAttr
from torch import Tensor

from trainformer.core.batch import Batch
from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Grad, Method, Model, Rule
from trainformer.nn import peft_layers
from trainformer.nn.rank_budget import RankBudget, apart, start_orthogonal
from trainformer.nn.surgery import faster, usual_head


class Adalora(Method):
    """Train low-rank changes in the form of an SVD, and move their ranks to the layers where they matter most.

    Inputs: the linear layers of the body. Gives: `W x + (alpha / initial) * B diag(E) A x`, A "R D" and B "D R"
    orthogonal and E "R" zero at first; from an initial rank each, the least important of all E are set to 0 until `rank` a
    layer are left on the average.

    When: as `lora`, where layers need change unequally; in fewer than some hundred steps there is little time to move ranks.
    Cost: as `lora` of the initial rank, and a running mean of each gradient.
    With: what `lora` goes well with; an average of weights (`ema`) keeps traces of what was cut, and a best epoch before `end`
    has more ranks than were asked for.
    See: Zhang et al. 2023, arXiv:2303.10512.
    Command: --method adalora --method ema
    """

    rate_factor: ClassVar[float] = 10.0
    clashes: ClassVar[dict[str, str]] = {"lora": "both change the same matrices, and peft folds one change a matrix"}

    rank: int = Field(8, ge=1)
    """Rank that a layer has in the end, on the average."""
    initial: int | None = Field(None, ge=1)
    """Rank of each layer at first; none: half as much again as `rank`."""
    alpha: float = Field(16.0, gt=0)
    """Strength of the change: it is scaled by alpha / initial."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on what goes into the change, 0..1."""
    targets: list[str] | None = None
    """Names, or ends of names, of the linear layers to change, as `query`; none: all of them in the layers."""
    begin: float = Field(0.1, ge=0, lt=1)
    """Share of the steps after which ranks begin to be cut."""
    end: float = Field(0.6, gt=0, le=1)
    """Share of the steps after which ranks stay as they are; more than `begin`."""
    every: int = Field(10, ge=1)
    """Ranks are allocated anew each so many steps."""
    smooth: float = Field(0.85, ge=0, lt=1)
    """How much of the running mean of importance, and of its spread, a step keeps."""
    orthogonal: float = Field(0.5, ge=0)
    """Weight of what keeps A and B orthogonal: the mean norm of `A A' - 1` and `B' B - 1`, not squared, as the authors' code."""

    rate: float = Field(30.0, gt=0)
    """Times the run's rate at which E learns: A and B have length 1, and can only turn."""

    _budget: RankBudget | None = PrivateAttr(None)

    def extend(self, model: Model) -> None:
        """Raises UserError for a target that is not there, a rank that a layer has no room for, or an empty time to cut."""
        initial = self.initial or -(-3 * self.rank // 2)
        if self.begin >= self.end:
            raise UserError("there is no time to cut ranks.", where="adalora.end", fix="Set it higher than adalora.begin.")
        if initial < self.rank:
            what = f"{initial} is less than the rank that shall be left, {self.rank}."
            raise UserError(what, where="adalora.initial", fix="Half as much again as adalora.rank is usual.")
        chosen = peft_layers.targets_of(model.body, self.targets, "adalora.targets")
        peft_layers.require_room(model.body, chosen, initial, "adalora.initial" if self.initial else "adalora.rank")
        scale = {"init_r": initial, "target_r": self.rank, "lora_alpha": self.alpha, "lora_dropout": self.dropout}
        peft_layers.inject(model.body, "AdaLoraConfig", chosen, total_step=1, **scale)
        start_orthogonal(peft_layers.triplets(model.body))

    def prepare(self, model: Model, facts: Facts) -> None:
        phases = (int(self.begin * facts.steps), max(1, int(self.end * facts.steps)), self.every)
        self._budget = RankBudget(peft_layers.triplets(model.body), self.rank, phases, self.smooth)

    def groups(self, model: Model, rules: dict[str, Rule]) -> None:
        faster(rules, ".lora_E.", self.rate)
        usual_head(rules, self.rate_factor)

    def wrap_grad(self, grad: Grad, model: Model) -> Grad:
        """The pull to orthogonality is added once a step, after the sum over micro-batches; the loss told is the task's."""

        def regular(batches: list[Batch]) -> Tensor:
            loss = grad(batches)
            budget = self._known
            if self.orthogonal:
                (self.orthogonal * apart(budget.triplets)).backward()
            budget.note()
            return loss

        return regular

    def after_step(self, model: Model, step: int) -> None:
        self._known.step(step)

    def fold(self, model: Model) -> None:
        """Adds each change to its matrix and takes the wrapping off."""
        peft_layers.fold(model.body)

    def told(self) -> dict[str, Any]:
        """The rank of each layer over time."""
        return self._known.told()

    def state(self) -> dict[str, Tensor]:
        """Running means of importance, what is cut, and the ranks so far."""
        return self._known.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        self._known.restore(state)

    @property
    def _known(self) -> RankBudget:
        assert self._budget is not None, "prepare comes before the first step"
        return self._budget
