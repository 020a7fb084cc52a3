"""The loss of tasks that write texts: each token of the target, told from those before it."""

from torch import Tensor

from trainformer.core.batch import Batch
from trainformer.losses.classification import symmetric_kl
from trainformer.losses.vocabulary import token_cross_entropy
from trainformer.nn.writing import Writing


class TokenLoss(Writing):
    """Cross-entropy with label smoothing, one value "U" for each token that is told."""

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return token_cross_entropy(output, batch.target, self.label_smoothing)

    def divergence(self, one: Tensor, other: Tensor) -> Tensor:
        return symmetric_kl(one, other)
