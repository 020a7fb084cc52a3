"""Scores of retrieval: where the own document stands among all documents of the rows that are scored."""

from typing import Any

import torch
from torch import Tensor

from trainformer.core.batch import Batch

CHUNK_ROWS = 1024
CUTS = (1, 10)


def halves(output: Tensor) -> tuple[Tensor, Tensor]:
    """The embeddings "B D" of queries and of documents, from both end to end "B 2D"."""
    width = output.shape[-1] // 2
    return output[..., :width], output[..., width:]


class Ranking:
    """Each query against every different document of the rows; the embeddings are kept, 8 D bytes a row.

    The rank of a query is 1, one for each other document that is nearer, and half for each that is as near. recall_at_k: share
    of the queries whose rank is at most k; mrr: mean of 1 / rank. No rows: `examples` alone.
    """

    def __init__(self) -> None:
        self._outputs: list[Tensor] = []
        self._documents: list[Tensor] = []

    def add(self, output: Tensor, batch: Batch) -> None:
        """Output "B 2D" of unit vectors and the batch whose target "B" tells documents apart."""
        self._outputs.append(output.detach().float().cpu())
        self._documents.append(batch.target.cpu())

    def value(self) -> dict[str, float]:
        if not self._outputs:
            return {"examples": 0}
        ranks = self._ranks()
        recalls = {f"recall_at_{k}": float((ranks <= k).double().mean()) for k in CUTS}
        return {"examples": len(ranks), "mrr": float((1 / ranks).mean()), **recalls}

    def detail(self) -> dict[str, Any]:
        return {}

    def _ranks(self) -> Tensor:
        queries, documents = halves(torch.cat(self._outputs))
        different, place = torch.unique(torch.cat(self._documents), return_inverse=True)
        first = torch.full((len(different),), len(place)).scatter_reduce_(0, place, torch.arange(len(place)), "amin")
        index, found = documents[first], []
        for own, chunk in zip(place.split(CHUNK_ROWS), queries.split(CHUNK_ROWS), strict=True):
            likeness = chunk @ index.T
            true = likeness.gather(1, own[:, None])
            nearer, level = (likeness > true).sum(1), (likeness == true).sum(1) - 1
            found.append(1 + nearer.double() + level.double() / 2)
        return torch.cat(found)
