"""Against numbers worked out by hand and torch's own loss."""

import torch
from torch.nn import functional as F

from trainformer.losses.regression import huber, squared_error

OUTPUT = torch.tensor([[1.0], [0.0], [-3.0]])
TARGET = torch.tensor([0.5, 0.0, 2.0])


def test_squared_error():
    assert squared_error(OUTPUT, TARGET).tolist() == [0.25, 0.0, 25.0]


def test_huber_is_twice_torchs_so_that_it_meets_the_square():
    # beyond 1: 1 * (2 * 5 - 1) = 9
    assert huber(OUTPUT, TARGET, 1.0).tolist() == [0.25, 0.0, 9.0]
    expected = 2 * F.huber_loss(OUTPUT[:, 0], TARGET, reduction="none", delta=1.7)
    torch.testing.assert_close(huber(OUTPUT, TARGET, 1.7), expected)
