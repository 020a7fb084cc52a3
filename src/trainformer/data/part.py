"""Rows of one source that are used as one: to train, to validate or to test."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainformer.data.survey import Survey


class Tokenised(Protocol):
    """The token counts of each row: kept, cut and unknown, int32 "N" each, for all rows of the source or those of the part."""

    @property
    def lengths(self) -> Tensor: ...

    @property
    def cut(self) -> Tensor: ...

    @property
    def unknown(self) -> Tensor: ...


@dataclass(frozen=True)
class Part:
    """Rows that are used as one: `name` is "train", "validation" or "test", `rows` their numbers in the source (None: all)."""

    name: str
    source_name: str
    survey: Survey
    rows: Tensor | None = None
    cache: Tokenised | None = None

    @property
    def numbers(self) -> Tensor:
        """Row numbers int64 "N" in the source."""
        return torch.arange(self.survey.rows) if self.rows is None else self.rows

    def pick(self, values: Tensor) -> Tensor:
        """The values "N" of this part's rows, from a tensor over its rows or over all of the source."""
        assert len(values) in (self.survey.rows, len(self)), "one value a row"
        return values[self.numbers] if len(values) == self.survey.rows else values

    def where(self, mask: Tensor) -> list[str]:
        """The first places of the rows that a mask "N" chooses."""
        return self.survey.where(self.numbers[mask])

    def __len__(self) -> int:
        return self.survey.rows if self.rows is None else len(self.rows)
