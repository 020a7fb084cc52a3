"""Batches that carry targets only."""

from collections.abc import Callable

import pytest
import torch

from trainformer.core.batch import Batch, Encoded, Part, pack


@pytest.fixture
def batch_of() -> Callable[[torch.Tensor], Batch]:
    """A batch with one example for each row of the targets."""

    def make(targets: torch.Tensor) -> Batch:
        part = Part(torch.tensor([1]), [1])
        return pack([Encoded((part,), t.view(-1), row=i) for i, t in enumerate(targets)])

    return make
