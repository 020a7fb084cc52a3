"""Freeze the bottom layers, which change least (Lee et al. 2019, arXiv:1911.03090)."""

from typing import Any, ClassVar

from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Grad, Method, Model
from trainformer.nn.frozen_states import FrozenStates
from trainformer.nn.surgery import matching, never_train, own_parameters

INSIDE = "what it adds works inside the layers that 'freeze' keeps as they are"


class Freeze(Method):
    """Keep the bottom layers, or parameters by name, as they were; the rest is trained.

    Inputs: the blocks of the body. Gives: the same model; no backward pass goes below the lowest trained layer, and the frozen
    layers run without dropout, and in packed models once: what they say of the rows "T D" is kept on disk.

    When: time or memory is short; with many epochs the frozen part costs next to nothing.
    Cost: with k of L layers frozen, over E epochs about k + 3E(L-k) parts of 3EL.
    With: every method; what it freezes no other method trains, and what moves embeddings (`fgm`) has the layers run each time.
    See: Lee et al. 2019, arXiv:1911.03090.
    """

    clashes: ClassVar[dict[str, str]] = dict.fromkeys(["prefix", "prompt", "adapter"], INSIDE)

    layers: int | None = Field(None, ge=0)
    """How many layers from the bottom are frozen, the embeddings with them; none: half of them, or 0 if `names` is given."""
    names: list[str] = Field(default_factory=list)
    """Parameters to freeze besides: names, ends of names, or patterns with `*`, as `*.attention.*`."""
    cache: bool = True
    """Run the frozen layers once over the training rows, and read from disk what they say; in packed models."""

    _states: FrozenStates | None = PrivateAttr(None)

    def extend(self, model: Model) -> None:
        """Raises UserError for more layers than there are and for a name that fits nothing."""
        body = model.body
        stack = body.blocks()[1:]
        count = self._count(len(stack))
        frozen = body.blocks()[: count + 1] if count else []
        own = own_parameters(body)
        chosen = [own[n] for n in matching(own, self.names, "freeze.names")]
        never_train(body, [*chosen, *(p for block in frozen for p in block.parameters())])
        if frozen:
            for block in frozen:
                block.register_forward_pre_hook(_still)

    def prepare(self, model: Model, facts: Facts) -> None:
        """Nothing is computed yet: the run may still be refused."""
        body, layers = model.body, self._count(len(model.body.blocks()) - 1)
        if self.cache and layers and getattr(body, "packed", False) and facts.batches is not None and facts.folder is not None:
            self._states = FrozenStates(body, body.blocks()[1 : layers + 1], facts.batches, facts.folder)

    def wrap_grad(self, grad: Grad, model: Model) -> Grad:
        def replayed(batches: list[Batch]) -> Tensor:
            if self._states is None:
                return grad(batches)
            with self._states.replaying():
                return grad(batches)

        return replayed

    def told(self) -> dict[str, Any]:
        """Whether the frozen layers were run once."""
        return {"frozen_layers_run_once": self._states is not None and self._states.filled}

    def _count(self, layers: int) -> int:
        if self.layers is not None and self.layers > layers:
            raise UserError(f"{self.layers} layers are more than the model has.", where="freeze.layers", fix=f"At most {layers}.")
        return self.layers if self.layers is not None else 0 if self.names else layers // 2


def _still(block: nn.Module, inputs: Any) -> None:
    """A frozen block has no dropout: what it says of a text never changes."""
    if block.training:
        block.eval()
