"""What is trained: a body that gives hidden states, a task's head on it, and the functions of a step. Letters: core/shapes.py."""

from collections.abc import Callable

from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.shift import shifting

Loss = Callable[[nn.Module, Batch], Tensor]
"""(model, batch) -> one loss "U" for each unit, in nats."""
Grad = Callable[[list[Batch]], Tensor]
"""All micro-batches of a step -> their mean loss (a scalar); gradients have been added to the parameters."""


class Body(nn.Module):
    """An encoder: hidden states of packed sequences.

    Not abstract: a graph that only answers has neither a table of embeddings nor layers, and says so when it is asked for them.
    """

    width: int
    rate: float | None = None
    """The highest learning rate that suits it while its weights are new; None where they have learnt something."""

    def rates(self) -> dict[str, float]:
        """By name, the share of the rate at which weights learn where it is not 1."""
        return {}

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """One "T D" tensor for each part of the batch."""
        raise NotImplementedError("a backbone's body says how it runs")

    def embed(self) -> nn.Embedding:
        """The table of token embeddings: what adversarial training moves."""
        raise NotImplementedError("a backbone's body knows its embedding")

    def blocks(self) -> list[nn.Module]:
        """Embeddings first, then the layers from the bottom up: what layer-wise rates and freezing speak of."""
        raise NotImplementedError("a backbone's body knows its layers")

    def attentions(self) -> list[nn.Module]:
        """Self-attention of each layer that also reads the keys and values that its `prefix()` gives; none where it cannot."""
        return []


class Model(nn.Module):
    """A body and a task's head: what is trained and shipped."""

    def __init__(self, body: Body, head: nn.Module):
        super().__init__()
        self.body, self.head = body, head

    def forward(self, batch: Batch) -> Tensor:
        with shifting(self.body, batch):
            output: Tensor = self.head(self.body(batch), batch)
        return output
