"""What a tokenizer and a metric must offer; who offers it need not know of us. Letters: core/shapes.py."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from trainformer.core.batch import Batch


class Tokens(Protocol):
    """A tokenizer: pieces of a text, and how sequences are wrapped in the model's special tokens."""

    specials: dict[int, int]
    """How many special tokens stand around one text (key 1) and a pair of texts (key 2)."""

    @property
    def vocabulary(self) -> int: ...

    @property
    def special_ids(self) -> frozenset[int]: ...

    @property
    def mask(self) -> int | None: ...

    @property
    def sentinels(self) -> tuple[int, ...]:
        """What marks the gaps of a text, in order; none where a tokenizer has no such tokens."""

    def pieces(self, texts: Sequence[str]) -> list[list[int]]: ...

    def wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]: ...

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int, int]]]: ...

    def add_mask(self) -> None: ...

    def text(self, ids: Sequence[int]) -> str: ...

    @property
    def begin(self) -> int | None:
        """What a text that is written begins with: the beginning of sequence, else the classifier's token, else padding."""

    @property
    def end(self) -> int | None:
        """What ends a text: the end of sequence, else the separator."""


class Metric(Protocol):
    """Scores that are updated batch by batch in constant memory."""

    def add(self, output: Tensor, batch: Batch) -> None: ...

    def value(self) -> dict[str, float]: ...

    def detail(self) -> dict[str, Any]:
        """What a report draws: confusion, reliability, scores by class; plain JSON values."""
        ...
