"""Scores of retrieval: where the own document stands among all documents of the rows that are scored."""

from typing import Any

import numpy as np

from trainformer.core.arrays import Array, array
from trainformer.core.protocols import Scored

CHUNK_ROWS = 1024
CUTS = (1, 10)


def halves(output: Any) -> tuple[Any, Any]:
    """The embeddings "B D" of queries and of documents, from both end to end "B 2D"."""
    width = output.shape[-1] // 2
    return output[..., :width], output[..., width:]


class Ranking:
    """Each query against every different document of the rows; the embeddings are kept, 8 D bytes a row.

    The rank of a query is 1, one for each other document that is nearer, and half for each that is as near. recall_at_k: share
    of the queries whose rank is at most k; mrr: mean of 1 / rank. No rows: `examples` alone.
    """

    def __init__(self) -> None:
        self._outputs: list[Array] = []
        self._documents: list[Array] = []

    def add(self, output: Any, batch: Scored) -> None:
        """Output "B 2D" of unit vectors and the batch whose target "B" tells documents apart."""
        self._outputs.append(array(output).astype(np.float32))
        self._documents.append(array(batch.target))

    def value(self) -> dict[str, float]:
        if not self._outputs:
            return {"examples": 0}
        ranks = self._ranks()
        recalls = {f"recall_at_{k}": float((ranks <= k).mean()) for k in CUTS}
        return {"examples": len(ranks), "mrr": float((1 / ranks).mean()), **recalls}

    def detail(self) -> dict[str, Any]:
        return {}

    def _ranks(self) -> Array:
        queries, documents = halves(np.concatenate(self._outputs))
        _, first, place = np.unique(np.concatenate(self._documents), return_index=True, return_inverse=True)
        index, found = documents[first].T, []
        for start in range(0, len(queries), CHUNK_ROWS):
            own = place[start : start + CHUNK_ROWS, None]
            likeness = queries[start : start + CHUNK_ROWS] @ index
            true = np.take_along_axis(likeness, own, 1)
            nearer, level = (likeness > true).sum(1), (likeness == true).sum(1) - 1
            found.append(1 + nearer + level / 2)
        return np.concatenate(found)
