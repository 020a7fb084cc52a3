"""Head only: train the head on the frozen body, a linear probe by gradient descent (Howard and Ruder 2018, arXiv:1801.06146)."""

from typing import ClassVar

from trainformer.core.roles import Method, Model
from trainformer.nn.surgery import never_train

ALONE = "'head_only' trains nothing in the body"


class HeadOnly(Method):
    """Train the head alone; the body stays as it was.

    Inputs: what the frozen body says. Gives: a new head.

    When: something to compare with, or no time for more; the probe that every run fits comes near to it.
    Cost: no backward pass through the body, the fewest trained parameters; seldom the best score.
    With: every method that changes the loss; `freeze` with all layers does the same and keeps what the body says on disk.
    See: Howard and Ruder 2018, arXiv:1801.06146.
    """

    rate_factor: ClassVar[float] = 5.0
    clashes: ClassVar[dict[str, str]] = dict.fromkeys(
        ["lora", "adalora", "ia3", "prefix", "prompt", "adapter", "bitfit", "gradual_unfreeze", "freeze"], ALONE
    )

    def extend(self, model: Model) -> None:
        never_train(model.body, model.body.parameters())
