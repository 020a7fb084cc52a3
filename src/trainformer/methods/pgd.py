"""PGD: also learn from embeddings moved by several steps uphill (Madry et al. 2018, arXiv:1706.06083)."""

from pydantic import Field
from torch import Tensor

from trainformer.core.batch import Batch
from trainformer.core.roles import Grad, Method, Model
from trainformer.nn import shifts
from trainformer.nn.gradients import add, take


class Pgd(Method):
    """Also learn from token embeddings that are moved uphill in several steps, within a ball around each row.

    Inputs: the gradient g of each row's embeddings "T E". Gives: `move = ball(move + rate * g / ||g||)`, `steps` times from 0,
    and the gradients at the embeddings and at the moved ones, added; the loss at the embeddings.

    When: few rows; stronger than `fgm`, and dearer.
    Cost: `steps + 1` passes a step.
    With: every method; another adversary would start where this one ends.
    See: Madry et al. 2018, arXiv:1706.06083; the ball is that of all embeddings of a row (Miyato et al. 2017, arXiv:1605.07725).
    """

    epsilon: float = Field(1.0, gt=0, le=100)
    """Radius of the ball around the embeddings of a row, in the units of the embeddings."""
    rate: float = Field(0.5, gt=0, le=100)
    """Length of a step uphill."""
    steps: int = Field(3, ge=1, le=20)
    """Steps uphill."""

    def wrap_grad(self, grad: Grad, model: Model) -> Grad:
        width = model.body.embed().embedding_dim

        def both(batches: list[Batch]) -> Tensor:
            kept = take(model)
            try:
                moves = [[b.weight.new_zeros(len(p.ids), width) for p in b.parts] for b in batches]
                loss, moves = self._climb(grad, batches, moves)
                kept += take(model)
                for _ in range(self.steps - 1):
                    moves = self._climb(grad, batches, moves)[1]
                    take(model)
                grad([shifts.move(b, m) for b, m in zip(batches, moves, strict=True)])
                return loss
            finally:
                add(kept)

        return both

    def _climb(self, grad: Grad, batches: list[Batch], moves: list[shifts.Moves]) -> tuple[Tensor, list[shifts.Moves]]:
        """The loss at some moves, and the moves after a step uphill from there."""
        at = [shifts.leaves(m) for m in moves]
        loss = grad([shifts.move(b, m) for b, m in zip(batches, at, strict=True)])
        return loss, [self._step(batch, own) for batch, own in zip(batches, at, strict=True)]

    def _step(self, batch: Batch, moves: shifts.Moves) -> shifts.Moves:
        uphill = shifts.of_length(shifts.uphill(moves), batch, self.rate)
        return shifts.within([m.detach() + u for m, u in zip(moves, uphill, strict=True)], batch, self.epsilon)
