"""From a hidden state for each token to one for each sequence, and from windows to their example."""

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["cls", "mean", "max"]


def first_tokens(hidden: Tensor, lengths: list[int]) -> Tensor:
    """The first token's state of each sequence: "T D" -> "S D"."""
    starts = torch.tensor([0, *lengths[:-1]], device=hidden.device).cumsum(0)
    return hidden[starts]


def pool(hidden: Tensor, lengths: list[int], how: Pooling) -> Tensor:
    """One state for each sequence: its first token's, the mean or the maximum of all. "T D" -> "S D"."""
    if how == "cls":
        return first_tokens(hidden, lengths)
    sizes = torch.tensor(lengths, device=hidden.device)
    return torch.segment_reduce(hidden, how, lengths=sizes, axis=0)


def pool_windows(outputs: Tensor, owner: Tensor, examples: int, how: Literal["mean", "max"]) -> Tensor:
    """One output for each example from those of its windows: "S C" -> "B C"."""
    if len(outputs) == examples:
        return outputs
    index = owner[:, None].expand_as(outputs)
    empty = outputs.new_zeros(examples, outputs.shape[1])
    return empty.scatter_reduce(0, index, outputs, "mean" if how == "mean" else "amax", include_self=False)
