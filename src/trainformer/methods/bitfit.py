"""BitFit: train the biases alone (Ben Zaken et al. 2022, arXiv:2106.10199)."""

from typing import ClassVar

from pydantic import Field

from trainformer.core.errors import UserError
from trainformer.core.roles import Method, Model, Rule
from trainformer.nn.surgery import faster, matching, own_parameters, train_only


class Bitfit(Method):
    """Train the biases of the body and the head; every matrix stays frozen.

    Inputs: the biases of the body. Gives: the same model with other biases, nothing added.

    When: the smallest of files, few rows; what it can learn is small.
    Cost: about one parameter in a thousand is trained; they learn at twice the rate of the head.
    With: `lora`, and every method that changes the loss.
    See: Ben Zaken et al. 2022, arXiv:2106.10199.
    """

    rate_factor: ClassVar[float] = 5.0

    targets: list[str] | None = None
    """Names, or ends of names, of the modules whose biases are trained, as `query`; none: all."""

    rate: float = Field(2.0, gt=0)
    """Times the run's rate at which the biases learn."""

    def extend(self, model: Model) -> None:
        """Raises UserError for a target that is not there, and for a model without biases."""
        biases = {n.removesuffix(".bias"): p for n, p in own_parameters(model.body).items() if n.endswith(".bias")}
        if not biases:
            raise UserError("this model has no biases.", where="bitfit", fix="Take lora.")
        plain = {name.removesuffix(".base_layer"): p for name, p in biases.items()}
        chosen = plain if self.targets is None else matching(plain, self.targets, "bitfit.targets")
        train_only(model.body, [plain[name] for name in chosen])

    def groups(self, model: Model, rules: dict[str, Rule]) -> None:
        faster(rules, ".bias", self.rate)
