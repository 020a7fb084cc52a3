"""Pooling against numbers worked out by hand."""

import torch

from trainformer.nn.pool import first_tokens, pool, pool_windows

HIDDEN = torch.tensor([[1.0, -2.0], [3.0, 4.0], [5.0, 0.0], [7.0, 7.0], [-1.0, -3.0], [-2.0, -1.0]])
LENGTHS = [3, 1, 2]


def test_each_sequence_alone() -> None:
    assert first_tokens(HIDDEN, LENGTHS).tolist() == [[1, -2], [7, 7], [-1, -3]]
    assert pool(HIDDEN, LENGTHS, "cls").tolist() == [[1, -2], [7, 7], [-1, -3]]
    assert pool(HIDDEN, LENGTHS, "max").tolist() == [[5, 4], [7, 7], [-1, -1]]
    torch.testing.assert_close(pool(HIDDEN, LENGTHS, "mean"), torch.tensor([[3.0, 2 / 3], [7.0, 7.0], [-1.5, -2.0]]))


def test_gradient_of_the_mean() -> None:
    hidden = HIDDEN.clone().requires_grad_()
    torch.autograd.backward(pool(hidden, LENGTHS, "mean").sum())
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad[:, 0], torch.tensor([1 / 3, 1 / 3, 1 / 3, 1.0, 0.5, 0.5]))


def test_windows() -> None:
    outputs = torch.tensor([[1.0, -5.0], [3.0, -7.0], [2.0, 2.0]])
    owner = torch.tensor([0, 0, 1])
    assert pool_windows(outputs, owner, 2, "mean").tolist() == [[2, -6], [2, 2]]
    assert pool_windows(outputs, owner, 2, "max").tolist() == [[3, -5], [2, 2]]
    assert pool_windows(outputs, torch.tensor([0, 1, 2]), 3, "mean") is outputs
