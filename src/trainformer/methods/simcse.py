"""SimCSE: a row is nearer to itself under other dropout than to other rows (Gao et al. 2021, arXiv:2104.08821)."""

from typing import ClassVar

from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.roles import Facts, Loss, Method, Model
from trainformer.losses.contrastive import in_batch
from trainformer.nn.states import first_run, last_layer, noted


class Simcse(Method):
    """Bring each row nearer to itself under other dropout than to any other row of the step; labels are not asked for.

    Inputs: the states "B D" that the last layer reads, of the whole step, in two passes with different dropout. Gives: `loss +
    weight * contrast`, "U", in nats.

    When: texts shall also be compared by their states, or few of them have labels that tell much.
    Cost: two passes, and a second forward pass of both where a step is cut into micro-batches.
    With: every method; it needs dropout, without which a row cannot but find itself.
    See: Gao et al. 2021, arXiv:2104.08821.
    """

    passes: ClassVar[int] = 2

    weight: float = Field(0.1, gt=0, le=100)
    """Weight of the contrast."""
    temperature: float = Field(0.05, gt=0, le=10)
    """What cosines are divided by: the lower, the more the nearest rows count."""

    _last: nn.Linear | None = PrivateAttr(None)

    def couples(self) -> bool:
        return True

    def prepare(self, model: Model, facts: Facts) -> None:
        """Raises UserError if the head has no layer whose states can be compared."""
        self._last = last_layer(model.head, "simcse")

    def wrap_loss(self, loss: Loss) -> Loss:
        def joined(model: nn.Module, batch: Batch) -> Tensor:
            assert self._last is not None, "prepare comes before the first step"
            with noted(self._last) as seen:
                value = loss(model, batch)
            with noted(self._last) as seen_again:
                model(batch)
            one, other = first_run(seen, batch), first_run(seen_again, batch)
            return value + self.weight * in_batch(one, other, self.temperature)

        return joined
