"""What a tokenizer and a metric must offer; who offers it need not know of us. Letters: core/shapes.py."""

from collections.abc import Sequence
from typing import Any, Protocol


class Wrapping(Protocol):
    """What cuts texts into pieces and wraps sequences of them in the model's special tokens."""

    specials: dict[int, int]
    """How many special tokens stand around one text (key 1) and a pair of texts (key 2)."""

    def pieces(self, texts: Sequence[str]) -> list[list[int]]: ...

    def wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]: ...


class Tokens(Wrapping, Protocol):
    """A tokenizer: also what its special tokens are."""

    @property
    def vocabulary(self) -> int: ...

    @property
    def special_ids(self) -> frozenset[int]: ...

    @property
    def mask(self) -> int | None: ...

    @property
    def sentinels(self) -> tuple[int, ...]:
        """What marks the gaps of a text, in order; none where a tokenizer has no such tokens."""

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int, int]]]: ...

    def add_mask(self) -> None: ...

    def text(self, ids: Sequence[int]) -> str: ...

    @property
    def begin(self) -> int | None:
        """What a text that is written begins with: the beginning of sequence, else the classifier's token, else padding."""

    @property
    def end(self) -> int | None:
        """What ends a text: the end of sequence, else the separator."""


class Scored(Protocol):
    """What outputs are held against: a batch, or its targets alone."""

    @property
    def target(self) -> Any: ...


class Metric(Protocol):
    """Scores that are updated batch by batch in constant memory."""

    def add(self, output: Any, batch: Any) -> None:
        """Outputs, and the batch that they were given for; a metric of NumPy takes arrays, and needs the targets alone."""

    def value(self) -> dict[str, float]: ...

    def detail(self) -> dict[str, Any]:
        """What a report draws: confusion, reliability, scores by class; plain JSON values."""
        ...
