"""Re-initialisation: the top layers begin anew (Zhang et al. 2021, arXiv:2006.05987)."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Method, Model

FROZEN = "a layer that begins anew must be learnt whole, and this method trains little or nothing of it."
FREEZING = ("lora", "adalora", "prefix", "prompt", "ia3", "adapter", "bitfit", "freeze", "head_only", "gradual_unfreeze")


class Reinit(Method):
    """Begin the top layers of the encoder anew: what they had learnt is of the pretraining task, not of yours.

    Inputs: the top `layers` blocks. Gives: their matrices normal with deviation `spread`, biases 0, norms the identity; what lies
    below stays as it was pretrained.

    When: few rows, and scores that differ much from seed to seed.
    Cost: none.
    With: every method that trains all of the model; it helps where rows are few and seeds differ much.
    See: Zhang et al. 2021, arXiv:2006.05987.
    Command: --method llrd --method reinit --method ema
    """

    clashes: ClassVar[dict[str, str]] = dict.fromkeys(FREEZING, FROZEN)

    layers: int = Field(1, ge=1)
    """Layers that begin anew, counted from the top."""
    spread: float = Field(0.02, gt=0, le=1)
    """Standard deviation of new matrices; 0.02 is that of BERT and its kind."""

    def extend(self, model: Model) -> None:
        """Raises UserError if the model has no more layers than begin anew."""
        blocks = model.body.blocks()[1:]
        if self.layers >= len(blocks):
            fix = f"Set it to {len(blocks) - 1} or less." if len(blocks) > 1 else "Leave the method out."
            what = f"{self.layers} of {len(blocks)} layers would begin anew: nothing pretrained would stay."
            raise UserError(what, where="method.reinit.layers", fix=fix)
        for block in blocks[-self.layers :]:
            for module in block.modules():
                self._begin(module)

    @torch.no_grad()
    def _begin(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2:
                parameter.normal_(0.0, self.spread)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)

    def prepare(self, model: Model, facts: Facts) -> None:
        """Raises UserError if another method froze what began anew."""
        new = [p for block in model.body.blocks()[1:][-self.layers :] for p in block.parameters()]
        if not all(p.requires_grad for p in new):
            raise UserError(f"{FROZEN}", where="method.reinit", fix="Use one of the two.")
