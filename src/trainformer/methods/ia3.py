"""IA3: learn to scale keys, values and the inside of the feed-forward (Liu et al. 2022, arXiv:2205.05638)."""

from typing import ClassVar

from pydantic import Field

from trainformer.core.errors import UserError
from trainformer.core.roles import Method, Model, Rule
from trainformer.nn import peft_layers
from trainformer.nn.surgery import endings, faster, layer_linears, linears, matching

SCALED = ("key", "value", "k_lin", "v_lin", "key_proj", "value_proj", "k_proj", "v_proj", "k", "v", "Wqkv")
"""Ends of the names of the layers that give keys and values, in the families of the transformers library."""


class Ia3(Method):
    """Scale keys, values and the inside of the feed-forward by learned vectors; every matrix stays frozen.

    Inputs: the linear layers that give keys and values, and those that end the feed-forward. Gives: their outputs, or what goes
    into the latter, times a vector that is 1 at first; folded into the matrices to ship.

    When: the fewest trained weights that still reach each layer, and a plain model to ship.
    Cost: less than one parameter in a thousand is trained; they learn at ten times the rate of the head.
    With: `bitfit`, and every method that changes the loss.
    See: Liu et al. 2022, arXiv:2205.05638.
    """

    rate_factor: ClassVar[float] = 5.0
    clashes: ClassVar[dict[str, str]] = {"adalora": "both change the same matrices, and peft folds one change a matrix"}

    targets: list[str] | None = None
    """Names, or ends of names, of the linear layers whose outputs are scaled; none: those that give keys and values."""
    inputs: list[str] | None = None
    """Names, or ends of names, of those whose inputs are scaled instead; none: those that end the feed-forward."""

    rate: float = Field(10.0, gt=0)
    """Times the run's rate at which the vectors learn."""

    def extend(self, model: Model) -> None:
        """Raises UserError for a target that is not there, or where the model has no attention and feed-forward."""
        peft_layers.peft_library()
        body, every = model.body, linears(model.body)
        ends = [last for _, last in endings(body, "ia3")] if self.inputs is None else matching(every, self.inputs, "ia3.inputs")
        given = [n for n in layer_linears(body) if n.rpartition(".")[2] in SCALED]
        if self.targets is None and not given:
            fix = f"Name them; the model has: {', '.join(sorted({n.rpartition('.')[2] for n in layer_linears(body)}))}."
            raise UserError("no layer of this model has a name that tells keys and values.", where="ia3.targets", fix=fix)
        scaled = given if self.targets is None else matching(every, self.targets, "ia3.targets")
        peft_layers.inject(body, "IA3Config", [*scaled, *ends], feedforward_modules=peft_layers.pattern(ends))

    def fold(self, model: Model) -> None:
        """Multiplies the vectors into the matrices and takes the wrapping off."""
        peft_layers.fold(model.body)

    def groups(self, model: Model, rules: dict[str, Rule]) -> None:
        faster(rules, ".ia3_", self.rate)
