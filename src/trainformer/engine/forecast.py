"""How long a run will take and how much memory it needs: from steps that are really computed, and thrown away."""

import resource
import sys
import time
from typing import Any

import torch

from trainformer.core.batch import Batch, Encoded, pack
from trainformer.engine import optim
from trainformer.engine.engine import Engine

FORWARD = 3
"""A backward pass costs about twice a forward pass, and scoring has none."""


def forecast(engine: Engine) -> dict[str, Any]:
    """Seconds in all and until the first score, real tokens a second, and peak memory of training in MiB.

    Memory is the most that this process has held once its longest micro-batch went through, and what the optimiser adds.
    """
    plan, settings = engine.plan, engine.settings
    _timed(engine, [pack(_longest(engine))])
    batches = plan[0]
    seconds = min(_timed(engine, batches) for _ in range(2))
    speed = sum(b.tokens for b in batches) / seconds
    tokens = int(plan.rows.lengths.sum()) * plan.epochs
    slots = optim.KNOWN[settings.optimizer].slots
    scored = int(engine.job.validation.lengths.sum()) / FORWARD
    averages = 4 * slots * sum(p.numel() for p in engine.trained)
    return {
        "training_tokens": int(tokens),
        "tokens_per_s": round(speed, 1),
        "training_seconds": round(tokens / speed, 1),
        "first_score_seconds": round((tokens / max(1.0, plan.epochs * settings.evals_per_epoch) + scored) / speed, 1),
        "peak_memory_mib": round((_resident() + averages) / 2**20, 1),
    }


def _longest(engine: Engine) -> list[Encoded]:
    """The longest rows that make up one micro-batch."""
    rows, budget = engine.plan.rows, engine.settings.micro_tokens
    found: list[Encoded] = []
    for i in torch.argsort(rows.lengths, descending=True)[: engine.plan.step_rows].tolist():
        item = rows[i]
        if found and sum(e.tokens for e in found) + item.tokens > budget:
            break
        found.append(item)
    return found


def _timed(engine: Engine, batches: list[Batch]) -> float:
    """Seconds of a forward and a backward pass whose gradient is thrown away; targets are not read."""
    start = time.perf_counter()
    engine.model.train()
    for batch in batches:
        with engine.numbers():
            output = engine.model(batch.to(engine.device))
        output.float().pow(2).mean().backward()
    engine.optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def _resident() -> int:
    """The most memory that this process has held, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
