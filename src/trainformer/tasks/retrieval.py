"""Find the document that answers a query: both are embedded, and what belongs together lies close."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from trainformer.core.arrays import Array, array
from trainformer.core.errors import UserError
from trainformer.core.protocols import Wrapping
from trainformer.core.roles import Answer, Decision, Task
from trainformer.core.rows import Example
from trainformer.data.encode import Pooled, Reading, Wrapped, encode_texts, require_texts
from trainformer.losses.contrastive import in_batch
from trainformer.metrics.ranking import Ranking, halves

if TYPE_CHECKING:  # who only answers has no PyTorch
    from torch import Tensor

    from trainformer.core.batch import Batch

ID_BITS = 24
"""A document is told from others by so many bits of its text's hash: exact in the float32 of the token cache."""


class Retrieval(Reading, Task):
    """Queries and their documents, embedded apart; each query is learnt against all documents of its step."""

    best: ClassVar[str] = "mrr"
    higher_is_better: ClassVar[bool] = True
    pair: ClassVar[bool] = True
    unlabelled: ClassVar[bool] = True
    embeds: ClassVar[bool] = True

    temperature: float = Field(0.05, gt=0, le=10)
    """What cosines are divided by in the loss: the lower, the more the nearest documents count."""
    long_text: Literal["truncate", "head_tail"] = "truncate"
    """What is done with a long text: truncate keeps the head, head_tail a quarter from the head and the rest from the tail."""
    query_prefix: str = ""
    """What is put before each query; E5 models want "query: "."""
    document_prefix: str = ""
    """What is put before each document; E5 models want "passage: "."""
    training_rows: int | None = None
    """Training rows in all; filled by training."""

    _documents: set[int] = PrivateAttr(default_factory=set)
    _rows: int = PrivateAttr(0)

    def parse(self, texts: tuple[str, ...], label: Any, row: int, weight: float) -> Example:
        """The texts are a query and its document; there is no label. The target tells documents apart."""
        query, document = require_texts(texts, 2)
        digest = hashlib.blake2b(document.encode(), digest_size=ID_BITS // 8).digest()
        return Example((self.query_prefix + query, self.document_prefix + document), int.from_bytes(digest), row, weight)

    def observe(self, example: Example) -> None:
        self._documents.add(example.target)
        self._rows += 1

    def settle(self) -> None:
        """Raises UserError if all rows have one document."""
        if len(self._documents) < 2:
            what = f"all {self._rows} training rows have one document: there is nothing to tell apart."
            raise UserError(what, fix="Name another column with --text-b, or add rows.")
        self.training_rows = self._rows

    def sequences(self, pieces: Sequence[list[int]], tokens: Wrapping, limit: int) -> tuple[list[Wrapped], int]:
        """Two sequences: the query's and the document's."""
        found = [encode_texts([piece], tokens, limit, self.long_text) for piece in pieces]
        return [sequence for sequences, _ in found for sequence in sequences], sum(count for _, count in found)

    @property
    def pooled(self) -> Pooled:
        return "beside"

    def targets(self, example: Example) -> Array:
        """What tells the document from others."""
        return np.array([example.target], dtype=np.int64)

    def outputs(self) -> int:
        """The head has no layer of its own: it gives both embeddings of an example end to end, "B 2D"."""
        return 1

    def couples(self, kind: str) -> bool:
        return True

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the own document among all of the step; rows with the same document are no negatives."""
        return in_batch(*halves(output), self.temperature, batch.target)

    def divergence(self, one: Tensor, other: Tensor) -> Tensor:
        """1 minus the cosine, summed over query and document."""
        return (one.float() - other.float()).pow(2).sum(-1) / 2

    def answer(self, output: Any, decision: Decision) -> list[Answer]:
        """The cosine of query and document as `score`, -1..1."""
        query, document = halves(array(output).astype(np.float64))
        return [{"label": None, "score": score, "scores": {}} for score in (query * document).sum(-1).tolist()]

    def metric(self, decision: Decision | None = None) -> Ranking:
        return Ranking()
