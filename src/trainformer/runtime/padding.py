"""Token sequences as padded rows, and the outputs of windows as those of their example."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trainformer.core.arrays import Array
from trainformer.data.encode import Pooled, Wrapped


@dataclass(frozen=True)
class Item:
    """An example as sequences of tokens. `row` is its place among those that are asked together; `target` "N" may be empty."""

    sequences: list[Wrapped]
    target: Array
    row: int
    cut_tokens: int

    @cached_property
    def lengths(self) -> list[int]:
        return [len(ids) for ids, _ in self.sequences]

    @cached_property
    def tokens(self) -> int:
        return sum(self.lengths)


def padded(items: Sequence[Item], pad: int) -> dict[str, Array]:
    """The sequences of examples as rows "S L" of int64, filled up with a token: ids, mask and token types."""
    lengths = np.array([n for item in items for n in item.lengths])
    real = np.arange(lengths.max()) < lengths[:, None]
    ids, kinds = np.full(real.shape, pad, np.int64), np.zeros(real.shape, np.int64)
    ids[real] = [i for item in items for sequence, _ in item.sequences for i in sequence]
    types = [k for item in items for _, sequence in item.sequences for k in sequence]
    if types:
        kinds[real] = types
    return {"input_ids": ids, "attention_mask": real.astype(np.int64), "token_type_ids": kinds}


def joined(outputs: Array, items: Sequence[Item], how: Pooled) -> Array:
    """One output for each example from those of its sequences: "S C" -> "B C", or "B nC" where they stay beside each other."""
    if len(outputs) == len(items):
        return outputs
    if how == "beside":
        return outputs.reshape(len(items), -1)
    counts = [len(item.sequences) for item in items]
    owner = np.repeat(np.arange(len(items)), counts)
    found: Array = np.full((len(items), outputs.shape[1]), -np.inf if how == "max" else 0.0, outputs.dtype)
    if how == "max":
        np.maximum.at(found, owner, outputs)
        return found
    np.add.at(found, owner, outputs)  # one after the other, as PyTorch adds: no bit differs
    found /= np.array(counts, outputs.dtype)[:, None]
    return found
