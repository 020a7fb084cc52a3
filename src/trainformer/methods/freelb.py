"""FreeLB: learn from every step of an adversary, not from its last alone (Zhu et al. 2020, arXiv:1909.11764)."""

from pydantic import Field
from torch import Tensor

from trainformer.core.batch import Batch
from trainformer.core.roles import Grad, Model
from trainformer.nn import shifts
from trainformer.nn.gradients import add, take
from trainformer.nn.stepped import Stepped


class Freelb(Stepped):
    """Learn from token embeddings that an adversary moves, at each of its steps: the mean of their gradients.

    Inputs: the gradient g of each row's embeddings "T E", a start drawn from the seed, the step and the row. Gives: gradient and
    loss as means over `steps` moves, each from the last one by `move = ball(move + rate * g / ||g||)`.

    When: few rows; as `pgd`, but each step of the adversary is learnt from, so its passes are not lost.
    Cost: `steps` passes a step.
    With: every method; another adversary would start where this one ends.
    See: Zhu et al. 2020, arXiv:1909.11764.
    """

    steps: int = Field(3, ge=1, le=20)
    """Steps of the adversary; each costs a pass."""
    rate: float = Field(0.1, gt=0, le=100)
    """Length of a step uphill, in the units of the embeddings."""
    epsilon: float = Field(0.6, gt=0, le=100)
    """Radius of the ball around the embeddings of a row."""
    start: float = Field(0.05, ge=0, le=100)
    """Size of the random start: uniform in -start..start, divided by the root of the row's numbers; 0: it starts at none."""

    def wrap_grad(self, grad: Grad, model: Model) -> Grad:
        width = model.body.embed().embedding_dim

        def free(batches: list[Batch]) -> Tensor:
            before = take(model)
            try:
                moves, losses = [self._start(b, width) for b in batches], []
                for _ in range(self.steps):
                    so_far, at = take(model), [shifts.leaves(m) for m in moves]
                    losses.append(grad([shifts.move(b, m) for b, m in zip(batches, at, strict=True)]))
                    add(so_far)
                    moves = [self._step_up(b, m) for b, m in zip(batches, at, strict=True)]
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.grad /= self.steps
                return sum(losses[1:], losses[0]) / self.steps
            finally:
                add(before)

        return free

    def _start(self, batch: Batch, width: int) -> shifts.Moves:
        drawn = shifts.noise(batch, width, False, self._seed, self._step, "freelb")
        return shifts.times(drawn, self.start / (shifts.tokens(batch) * width).sqrt(), batch)

    def _step_up(self, batch: Batch, moves: shifts.Moves) -> shifts.Moves:
        uphill = shifts.of_length(shifts.uphill(moves), batch, self.rate)
        return shifts.within([m.detach() + u for m, u in zip(moves, uphill, strict=True)], batch, self.epsilon)
