"""Layer-wise rate decay: lower layers learn more slowly (Howard and Ruder 2018, arXiv:1801.06146)."""

from typing import ClassVar

from pydantic import Field

from trainformer.core.roles import Method, Model, Rule


class Llrd(Method):
    """Lower layers learn more slowly: each block has the rate of the one above it times `decay`.

    Inputs: the blocks of the body, embeddings first. Gives: the top block and the head the full rate, the embeddings `decay **
    layers` of it.

    When: always, it is in the default recipe: what lower layers know is general, and few rows should not undo it.
    Cost: none.
    With: every method; what `lora` adds to a layer learns at its rate.
    See: Howard and Ruder 2018, arXiv:1801.06146, and BEiT (Bao et al. 2022, arXiv:2106.08254).
    """

    shards: ClassVar[bool] = True

    decay: float = Field(0.9, gt=0, le=1)
    """Rate of a block as a share of the rate of the block above it, 0..1; 1: all learn at one rate."""

    def groups(self, model: Model, rules: dict[str, Rule]) -> None:
        """A weight that several blocks share has the rate of the highest of them."""
        blocks = model.body.blocks()
        above = {id(p): len(blocks) - 1 - i for i, block in enumerate(blocks) for p in block.parameters()}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and id(parameter) in above:
                rules.setdefault(name, Rule()).rate *= self.decay ** above[id(parameter)]
