"""What the tests of the kernels share: they need a C compiler, and run with one thread and with two."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _compiled(kernels: None) -> None:
    """Without them there is nothing to test here."""


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest, _one_thread: None) -> Iterator[int]:
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)
