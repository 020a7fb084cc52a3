"""Texts as token sequences of at most `limit` tokens: what happens to long ones is chosen, counted and never silent."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from trainformer.core.component import Component
from trainformer.core.errors import UserError
from trainformer.core.protocols import Tokens, Wrapping
from trainformer.core.rows import Example

if TYPE_CHECKING:  # who only answers texts has no PyTorch: what makes tensors loads it when it is called
    from torch import Tensor

    from trainformer.core.arrays import Array
    from trainformer.core.batch import Encoded, Part

Policy = Literal["truncate", "head_tail", "window"]
Wrapped = tuple[list[int], list[int]]
"""Ids and token types of one sequence."""
Pooled = Literal["mean", "max", "beside"]
"""The mean of the outputs of several sequences, the largest of each, or all of them end to end."""
HEAD, HEAD_AND_TAIL = 128, 510
"""Sun et al. 2019 (arXiv:1905.05583) keep the first 128 and the last 382 tokens of a long text."""


class Reading(Component):
    """What a task reads, as sequences of tokens, and what it learns, as numbers: it is asked for graphs without PyTorch."""

    @abstractmethod
    def sequences(self, pieces: Sequence[list[int]], tokens: Wrapping, limit: int) -> tuple[list[Wrapped], int]:
        """The sequences of an example, none longer than `limit` tokens, and how many tokens were cut."""

    @property
    @abstractmethod
    def pooled(self) -> Pooled:
        """How the outputs of an example's sequences become one."""

    def targets(self, example: Example) -> Array:
        """What is learnt from an example, as numbers "N"; none without a label.

        A task that says this is asked for graphs with arrays (`reads_alone`). It is not abstract: one that gives and takes
        tensors has its own `encode` instead, as docs/extend.md shows.
        """
        raise NotImplementedError("a task says what its targets are, or encodes its examples itself")

    def encode(self, example: Example, pieces: list[list[int]], tokens: Tokens, limit: int) -> Encoded:
        from torch import from_numpy

        return self._encoded(example, pieces, tokens, limit, from_numpy(self.targets(example)))

    def _encoded(self, example: Example, pieces: Sequence[list[int]], tokens: Tokens, limit: int, target: Tensor) -> Encoded:
        from trainformer.core.batch import Encoded

        sequences, cut = self.sequences(pieces, tokens, limit)
        parts = (as_part(sequences),)
        return Encoded(parts, target, example.row, example.weight, kind=example.kind, cut_tokens=cut)


class LongText(Reading):
    """What is done with a text that is longer than the model or `data.max_tokens` takes."""

    long_text: Policy = "truncate"
    """truncate keeps the head, head_tail a quarter from the head and the rest from the tail, window reads all of the text."""
    window_overlap: float = Field(0.25, ge=0, le=0.9)
    """Least share of a window that the next one reads again, 0..0.9."""
    window_pool: Literal["mean", "max"] = "mean"
    """How the outputs of a text's windows are made one: the mean, or the largest of each."""

    @property
    def pooled(self) -> Pooled:
        return self.window_pool

    def sequences(self, pieces: Sequence[list[int]], tokens: Wrapping, limit: int) -> tuple[list[Wrapped], int]:
        return encode_texts(pieces, tokens, limit, self.long_text, self.window_overlap)


def reads_alone(task: type) -> bool:
    """Whether a kind of task reads, answers and scores without PyTorch: it says its targets as numbers."""
    return issubclass(task, Reading) and task.targets is not Reading.targets


def encode_texts(
    pieces: Sequence[list[int]], tokens: Wrapping, limit: int, long_text: Policy = "truncate", overlap: float = 0.25
) -> tuple[list[Wrapped], int]:
    """The sequences (ids, token types) of one text or a pair, each of at most `limit` tokens, and how many tokens were cut.

    A pair is cut from its longer text first. Windows slide over the longer text and each is read beside the shorter one,
    which keeps its first half-limit of tokens at most: only what it loses there is cut. Windows are spread evenly, so that
    the last is as long as the others. Raises UserError if the special tokens leave no room.
    """
    room = limit - tokens.specials[len(pieces)]
    if room < len(pieces):
        least = limit - room + len(pieces)
        raise UserError(f"no room for text in {limit} tokens.", where="data.max_tokens", fix=f"At least {least}.")
    lengths = [len(p) for p in pieces]
    if sum(lengths) <= room:
        return [tokens.wrap(*pieces)], 0
    shares = _shares(lengths, room)
    if long_text == "window":
        return _windows(pieces, tokens, shares, overlap)
    take = _head if long_text == "truncate" else _head_tail
    kept = [take(p, n) for p, n in zip(pieces, shares, strict=True)]
    return [tokens.wrap(*kept)], sum(lengths) - sum(shares)


def as_part(sequences: Sequence[Wrapped]) -> Part:
    """The sequences of one example end to end; token types only where the tokenizer gives them."""
    import torch

    from trainformer.core.batch import Part

    ids = torch.tensor([i for s, _ in sequences for i in s], dtype=torch.int32)
    kinds = torch.tensor([k for _, s in sequences for k in s], dtype=torch.uint8)
    return Part(ids, [len(s) for s, _ in sequences], kinds if len(kinds) else None)


def require_texts(texts: tuple[Any, ...], count: int) -> tuple[str, ...]:
    """The texts, if there are `count` of them and each is text. Raises UserError."""
    if len(texts) != count:
        raise UserError(f"{count} text{'s' * (count > 1)} expected, {len(texts)} given.", fix="A pair has --text and --text-b.")
    for text in texts:
        if not isinstance(text, str):
            shown = "null" if text is None else f"{text!r:.60}"
            raise UserError(f"the text is {shown}, which is not text.", fix="Mend or remove the row, or name another column.")
    return texts


def _shares(lengths: list[int], room: int) -> list[int]:
    """How many tokens of each text stay, taken from the longer first; of an odd room the longer gets the odd one."""
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    longer = _longer(lengths)
    least = min(lengths[1 - longer], room // 2)
    kept = [0, 0]
    kept[1 - longer], kept[longer] = least, min(lengths[longer], room - least)
    return kept


def _longer(lengths: list[int]) -> int:
    return 0 if len(lengths) == 1 or lengths[0] > lengths[1] else 1


def _head(ids: list[int], count: int) -> list[int]:
    return ids[:count]


def _head_tail(ids: list[int], count: int) -> list[int]:
    if len(ids) <= count:
        return ids
    head = count * HEAD // HEAD_AND_TAIL
    return ids[:head] + ids[len(ids) - (count - head) :]


def _windows(pieces: Sequence[list[int]], tokens: Wrapping, shares: list[int], overlap: float) -> tuple[list[Wrapped], int]:
    longer = _longer([len(p) for p in pieces])
    kept = [_head(p, n) for p, n in zip(pieces, shares, strict=True)]
    cut = sum(len(p) - n for i, (p, n) in enumerate(zip(pieces, shares, strict=True)) if i != longer)
    sequences = []
    for start in _starts(len(pieces[longer]), shares[longer], overlap):
        kept[longer] = pieces[longer][start : start + shares[longer]]
        sequences.append(tokens.wrap(*kept))
    return sequences, cut


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows start: as few as the overlap allows, evenly spread, the last one flush with the end."""
    beyond = length - window
    steps = -(-beyond // max(1, window - ceil(window * overlap)))
    return [beyond * i // steps for i in range(steps + 1)] if steps else [0]
