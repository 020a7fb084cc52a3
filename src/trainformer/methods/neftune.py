"""NEFTune: noise on the token embeddings in training (Jain et al. 2024, arXiv:2310.05914)."""

from pydantic import Field
from torch import Tensor

from trainformer.core.batch import Batch
from trainformer.core.roles import Grad, Model
from trainformer.nn import shifts
from trainformer.nn.stepped import Stepped


class Neftune(Stepped):
    """Add uniform noise to the token embeddings in training, so that their very values are not learnt by heart.

    Inputs: embeddings "T E". Gives: `embeddings + alpha / sqrt(T E) * noise`, T the tokens of a row, noise uniform in -1..1 and
    drawn from the seed, the step and the row.

    When: few rows that are read many times; it costs nothing to try.
    Cost: none to speak of.
    With: every method; what an adversary moves has noise too.
    See: Jain et al. 2024, arXiv:2310.05914.
    """

    alpha: float = Field(5.0, gt=0, le=1000)
    """Size of the noise; the paper tries 5, 10 and 15."""

    def wrap_grad(self, grad: Grad, model: Model) -> Grad:
        width = model.body.embed().embedding_dim

        def noisy(batches: list[Batch]) -> Tensor:
            return grad([shifts.move(b, self._noise(b, width)) for b in batches])

        return noisy

    def _noise(self, batch: Batch, width: int) -> shifts.Moves:
        drawn = shifts.noise(batch, width, False, self._seed, self._step, "neftune")
        return shifts.times(drawn, self.alpha / (shifts.tokens(batch) * width).sqrt(), batch)
