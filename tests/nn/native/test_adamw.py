"""AdamW against the formula in float64 and against PyTorch's own; its state, and the copies it keeps."""

import pytest
import torch
from torch import nn

from trainformer.nn.native.adamw import AdamW
from trainformer.nn.native.linear import half_of

WORDS = {"lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.1}


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in ((1,), (33, 7), (129, 131))]


def give(weights: list[nn.Parameter], seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=draw)


def test_the_formula(threads: int) -> None:
    """m and v, corrected; the weight decays, then moves: Loshchilov and Hutter 2019, algorithm 2."""
    weights = parameters()
    exact, m, v = [[f(w) for w in weights] for f in (lambda w: w.detach().double(), *2 * [lambda w: 0.0])]
    optimizer = AdamW(weights, **WORDS)
    for step in range(1, 6):
        give(weights, step)
        optimizer.shrink = 0.5
        optimizer.step()
        for i, weight in enumerate(weights):
            assert weight.grad is not None
            grad = 0.5 * weight.grad.double()
            m[i], v[i] = 0.9 * m[i] + 0.1 * grad, 0.98 * v[i] + 0.02 * grad**2
            moved = (m[i] / (1 - 0.9**step)) / ((v[i] / (1 - 0.98**step)).sqrt() + 1e-6)
            exact[i] = exact[i] * (1 - 1e-2 * 0.1) - 1e-2 * moved
            assert torch.allclose(weight.double(), exact[i], rtol=1e-6, atol=1e-6)
    assert optimizer.shrink == 1.0


def test_state_is_that_of_the_library() -> None:
    """Either goes on from what the other has saved."""
    one, other = parameters(), parameters()
    ours, theirs = AdamW(one, **WORDS), torch.optim.AdamW(other, fused=True, **WORDS)
    for step in range(4):
        if step == 2:
            saved = ours.state_dict(), theirs.state_dict()
            assert [sorted(s) for s in saved[0]["state"].values()] == [sorted(s) for s in saved[1]["state"].values()]
            ours.load_state_dict(saved[1])
            theirs.load_state_dict(saved[0])
        for weights, optimizer in ((one, ours), (other, theirs)):
            give(weights, step)
            optimizer.step()
    for a, b in zip(one, other, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)


def test_threads_change_no_bit() -> None:
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        weights = parameters()
        give(weights, 0)
        AdamW(weights, **WORDS).step()
        found.append(weights)
    assert all(a.equal(b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_copies_follow_and_versions_count() -> None:
    weights = parameters()
    copies = [half_of(w) for w in weights[1:]]
    before = [w._version for w in weights]
    give(weights, 0)
    AdamW(weights, **WORDS).step()
    assert all(half_of(w) is c and c.equal(w.detach().to(torch.bfloat16)) for w, c in zip(weights[1:], copies, strict=True))
    assert all(w._version > b for w, b in zip(weights, before, strict=True)), "a graph over old weights must not be used"


def test_a_graph_over_old_copies_is_refused() -> None:
    layer = nn.Linear(8, 8)
    from trainformer.nn.native.linear import quicken

    quicken(nn.Sequential(layer))
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.randn(3, 8, requires_grad=True)).float().sum()
    give(list(layer.parameters()), 0)
    AdamW(layer.parameters(), **WORDS).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_a_copy_that_was_old_before_the_step_stays_old() -> None:
    """As SAM does: the weight is moved, read there, and put back; the copy is of where it was moved to."""
    (weight, *_) = parameters()[1:]
    with torch.no_grad():
        before = weight.detach().clone()
        weight.add_(1.0)
        moved = half_of(weight)
        weight.copy_(before)
    give([weight], 0)
    AdamW([weight], **WORDS).step()
    assert half_of(weight) is not moved and half_of(weight).equal(weight.detach().to(torch.bfloat16))


def test_copies_are_rounded_as_the_library_does() -> None:
    """Also weights of special size: the kernel has rounding of its own."""
    odd = [torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e-40, 3.39e38, 1.00390625, 1.01171875]
    weight = nn.Parameter(torch.tensor(odd * 5 + [1.0]))
    weight.grad = torch.zeros_like(weight)
    copy = half_of(weight)
    copy.zero_()
    AdamW([weight], lr=0.0, weight_decay=0.0).step()
    expected = weight.detach().to(torch.bfloat16)
    assert half_of(weight) is copy and copy.isnan().equal(expected.isnan()) and copy.nan_to_num(7).equal(expected.nan_to_num(7))
    assert weight.detach().nan_to_num(7).equal(torch.tensor(odd * 5 + [1.0]).nan_to_num(7))
