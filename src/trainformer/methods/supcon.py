"""SupCon: states of one label lie together (Khosla et al. 2020, arXiv:2004.11362; Gunel et al. 2021, arXiv:2011.01403)."""

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Loss, Method, Model
from trainformer.losses.contrastive import supervised
from trainformer.metrics.decide import OneOf
from trainformer.nn.states import first_run, last_layer, noted


class Supcon(Method):
    """Draw the states of rows of one label together, and away from those of all other rows of the step.

    Inputs: the states "B D" that the last layer reads, of the whole step, and one label for each row. Gives: `(1 - weight) * loss
    + weight * contrast`, "U", in nats.

    When: few labels with many rows each, and room for many rows a step.
    Cost: a second forward pass where a step is cut into micro-batches.
    With: every method; many rows a step (`train.step_rows`), so that each label is there more than once.
    See: Khosla et al. 2020, arXiv:2004.11362; Gunel et al. 2021, arXiv:2011.01403, for fine-tuning.
    """

    weight: float = Field(0.5, gt=0, lt=1)
    """Share of the contrast in the loss, 0..1; Gunel et al. choose between 0.1 and 0.9."""
    temperature: float = Field(0.3, gt=0, le=10)
    """What cosines are divided by: the lower, the more the nearest rows count."""

    _last: nn.Linear | None = PrivateAttr(None)

    def couples(self) -> bool:
        return True

    def prepare(self, model: Model, facts: Facts) -> None:
        """Raises UserError for a task that does not say one label of each example."""
        if not isinstance(getattr(facts.task, "rule", None), OneOf):
            what = "it needs one label for each row, and the task has none."
            raise UserError(what, where="method.supcon", fix="Use simcse, which needs no labels.")
        self._last = last_layer(model.head, "supcon")

    def wrap_loss(self, loss: Loss) -> Loss:
        def joined(model: nn.Module, batch: Batch) -> Tensor:
            assert self._last is not None, "prepare comes before the first step"
            with noted(self._last) as seen:
                value = loss(model, batch)
            contrast = supervised(first_run(seen, batch), batch.target, self.temperature)
            return torch.lerp(value, contrast, self.weight)

        return joined
