"""The likeliest tokens against PyTorch's own log-softmax and top-k, by the kernel and without one."""

import math

import pytest
import torch

from trainformer.nn import likeliest as module
from trainformer.nn.likeliest import likeliest


@pytest.fixture(params=[True, False])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:
        request.getfixturevalue("kernels")
    monkeypatch.setattr(module, "able", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize("width", [1, 5, 16, 67, 64 * 40, 64 * 41 + 7, 8000])
@pytest.mark.parametrize("count", [1, 10, 64])
def test_the_likeliest_are_those_of_the_whole_row(kernel: bool, width: int, count: int) -> None:
    torch.manual_seed(0)
    scores = 4 * torch.randn(5, width)
    scores[0, -3:] = 90.0 + torch.arange(3)[-width:]
    scores[1, : width // 2] = -math.inf
    scores[2, :-1] = -math.inf
    expected = scores.double().log_softmax(-1).topk(min(count, width), -1).values
    found, place = likeliest(scores.clone(), count)
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-6)
    finite = found.isfinite()
    told = scores.double().log_softmax(-1).gather(1, place)
    torch.testing.assert_close(found.double()[finite], told[finite], atol=2e-6, rtol=1e-6)
    assert all(len(set(row[real].tolist())) == int(real.sum()) for row, real in zip(place, finite, strict=True))


def test_of_equal_ones_the_kernel_takes_the_first(kernels: None) -> None:
    scores = torch.zeros(2, 300)
    scores[1, 100::7] = 1.0
    assert [row.tolist() for row in likeliest(scores, 4)[1]] == [[0, 1, 2, 3], [100, 107, 114, 121]]


def test_what_is_no_number_is_told(kernel: bool) -> None:
    """In its row alone, and all places are those of tokens."""
    scores = torch.zeros(2, 300)
    scores[0, 170] = math.nan
    found, place = likeliest(scores, 4)
    assert found[0].isnan().all() and found[1].tolist() == pytest.approx([-math.log(300)] * 4)
    assert ((place >= 0) & (place < 300)).all()


def test_any_number_of_threads_finds_the_same(kernels: None) -> None:
    torch.manual_seed(0)
    scores, threads = torch.randn(33, 999), torch.get_num_threads()
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(likeliest(scores, 7))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(other, found[0], strict=True))
