"""A model that gives the outputs of whole padded sequences: an ONNX graph, or the transformers library's own classifier."""

from collections.abc import Callable

from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.roles import Body, Model, Task
from trainformer.models.encoder import padded
from trainformer.nn.pool import pool_windows
from trainformer.runtime.session import MICRO_TOKENS

Ask = Callable[[dict[str, Tensor]], Tensor]
"""input_ids, attention_mask and token_type_ids, each "S L" -> outputs "S C"."""


class Whole(Body):
    """Gives the head's outputs "S C" of each sequence, in the place of hidden states."""

    packed = False
    width = 0
    micro_tokens = MICRO_TOKENS

    def __init__(self, ask: Ask, pad: int):
        super().__init__()
        self.ask, self.pad = ask, pad

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        return tuple(self.ask(padded(part, self.pad)) for part in batch.parts)


class Joined(nn.Module):
    """Outputs of sequences -> outputs of examples "B C": windows are pooled, embeddings laid end to end."""

    def __init__(self, windows: str, embeds: bool):
        super().__init__()
        self.windows, self.embeds = windows, embeds

    def forward(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        if self.embeds:
            return outputs[0].view(len(batch), -1)
        return pool_windows(outputs[0], batch.parts[0].owner, len(batch), "max" if self.windows == "max" else "mean")


def whole_model(ask: Ask, pad: int, task: Task) -> Model:
    """A model for a task around what answers sequences."""
    return Model(Whole(ask, pad), Joined(getattr(task, "window_pool", "mean"), task.embeds)).eval()
