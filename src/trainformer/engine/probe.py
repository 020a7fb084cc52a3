"""A linear probe: the last layer fitted on features of the frozen encoder, to start from and to beat.

Kumar et al. 2022, arXiv:2202.10054: a head that fits first does not tear good features apart when all is trained.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from trainformer.bundle.outputs import batches_of_rows
from trainformer.core.batch import Batch
from trainformer.core.roles import Task
from trainformer.data.plan import Rows
from trainformer.engine.engine import Engine
from trainformer.models.heads import SequenceHead
from trainformer.nn.pool import pool_windows

MOST_ROWS = 20_000
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""L2 of the probe's weights on standardised features; the one that scores best on validation is taken."""


def fit_probe(engine: Engine, train: Rows, validation: Rows) -> dict[str, float]:
    """Puts the best linear probe into the model's last layer; its scores on validation. Reads at most MOST_ROWS rows."""
    head = engine.model.head
    assert isinstance(head, SequenceHead)
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:MOST_ROWS]
    shown = Rows(train.cache, train.index[chosen], train.weight_scale)
    features, seen = _features(engine, shown)
    other, held = _features(engine, validation)
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-6)
    best: tuple[tuple[float, float], dict[str, float], Tensor, Tensor] | None = None
    for strength in STRENGTHS:
        weight, bias = _fit((features - mean) / deviation, seen, engine.task, strength)
        weight = weight / deviation
        bias = bias - weight @ mean
        metric = engine.task.metric()
        metric.add(other @ weight.T + bias, held)
        scores = metric.value()
        rank = (scores[engine.task.best] * (1 if engine.task.higher_is_better else -1), -scores.get("loss", 0.0))
        if best is None or rank > best[0]:
            best = (rank, scores, weight, bias)
    assert best is not None, "at least one strength is tried"
    with torch.no_grad():
        head.last.weight.copy_(best[2])
        head.last.bias.copy_(best[3])
    return best[1]


@torch.no_grad()
def _features(engine: Engine, rows: Rows) -> tuple[Tensor, Batch]:
    """What the last layer reads for each row "N D", and a batch of their targets, both in the same order."""
    model, found, targets, weights = engine.model, [], [], []
    head = model.head
    assert isinstance(head, SequenceHead)
    model.eval()
    for batch in _moved(engine, rows):
        with engine.numbers():
            states = head.features(model.body(batch)[0], batch.parts[0].lengths)
        found.append(pool_windows(states.float(), batch.parts[0].owner, len(batch), "mean").cpu())
        targets.append(batch.target.cpu())
        weights.append(batch.weight.cpu())
    target, weight = torch.cat(targets), torch.cat(weights)
    return torch.cat(found), Batch((), target, weight, list(range(len(rows))), list(range(len(rows) + 1)))


def _moved(engine: Engine, rows: Rows) -> Iterator[Batch]:
    return (b.to(engine.device) for b in batches_of_rows(engine.model, rows, engine.settings.micro_tokens))


def _fit(features: Tensor, seen: Batch, task: Task, strength: float) -> tuple[Tensor, Tensor]:
    """Weights "C D" and biases "C" of the least mean task loss plus strength/2 |w|^2: a convex problem, so LBFGS."""
    weight = torch.zeros(task.outputs(), features.shape[1], requires_grad=True)
    bias = torch.zeros(task.outputs(), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        unit = task.loss(features @ weight.T + bias, seen)
        loss = (unit * seen.weight).mean() + strength / 2 * weight.pow(2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()
