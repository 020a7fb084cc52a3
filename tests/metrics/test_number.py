"""Against scikit-learn and scipy."""

import json

import pytest
import torch
from scipy import stats
from sklearn import metrics as peer

from trainformer.metrics import number
from trainformer.metrics.number import Number


def draw(rows=400, offset=0.0):
    g = torch.Generator().manual_seed(2)
    target = torch.randn(rows, generator=g).mul(4).round().div(4) + offset
    return (target + torch.randn(rows, generator=g).mul(2).round().div(3))[:, None], target


def filled(output, target, batch_of, *scale):
    metric = Number(*(scale or (0.0, 1.0)))
    for i in range(0, len(target), 33):
        metric.add(output[i : i + 33], batch_of(target[i : i + 33]))
    return metric


@pytest.mark.parametrize("scale", [(0.0, 1.0), (7.0, 3.0), (1e6, 0.5)])
def test_every_score_is_the_peers_on_the_scale_of_the_targets(batch_of, scale):
    output, target = draw()
    scores = filled(output, target, batch_of, *scale).value()
    true, said = (t.double().view(-1) * scale[1] + scale[0] for t in (target, output))
    assert scores["rmse"] == pytest.approx(peer.root_mean_squared_error(true, said), rel=1e-6)
    assert scores["mae"] == pytest.approx(peer.mean_absolute_error(true, said), rel=1e-6)
    assert scores["r2"] == pytest.approx(peer.r2_score(true, said), rel=1e-6)
    assert scores["pearson"] == pytest.approx(stats.pearsonr(true, said).statistic, rel=1e-6)
    assert scores["spearman"] == pytest.approx(stats.spearmanr(target, output[:, 0]).statistic, rel=1e-9)
    assert scores["loss"] == pytest.approx(((target - output[:, 0]) ** 2).mean().item(), rel=1e-6)


def test_answers_are_kept_inside_the_range(batch_of):
    metric = filled(torch.tensor([[9.0], [-9.0]]), torch.tensor([1.0, 0.0]), batch_of, 0.0, 1.0, 0.0, 1.0)
    assert metric.value()["rmse"] == 0.0
    assert metric.value()["loss"] == (64 + 81) / 2


def test_constant_targets_constant_answers_and_no_rows(batch_of):
    assert Number(0.0, 1.0).value() == {"examples": 0}
    same = torch.full((50,), 0.1)
    scores = filled(same[:, None] + 0.3, same, batch_of, 3.3, 0.7).value()
    assert (scores["r2"], scores["pearson"], scores["spearman"]) == (0.0, 0.0, 0.0)
    assert filled(same[:, None], same, batch_of).value()["r2"] == 1.0
    output, target = draw()
    flat = filled(torch.full_like(output, 0.3), target, batch_of).value()
    assert (flat["pearson"], flat["spearman"]) == (0.0, 0.0)


def test_rank_correlation_of_more_rows_than_are_kept(batch_of, monkeypatch):
    monkeypatch.setattr(number, "KEPT_ROWS", 300)
    output, target = draw(3000)
    metric = filled(output, target, batch_of)
    assert metric.detail()["spearman_rows"] == 300
    assert metric.value()["spearman"] == pytest.approx(stats.spearmanr(target, output[:, 0]).statistic, abs=0.05)
    late = sum(pair in set(zip(target[1500:].tolist(), output[1500:, 0].tolist(), strict=True)) for pair in metric.kept)
    assert late > 100, "the sample is of all rows, not of the first"
    assert json.dumps(metric.detail(), allow_nan=False)
