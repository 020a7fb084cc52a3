"""How long a run will take and how much memory it needs: from steps that are really computed, and thrown away."""

import time
from typing import Any

from trainformer.core.batch import Batch
from trainformer.engine.engine import Engine
from trainformer.engine.room import Memory

FORWARD = 3
"""A backward pass costs about twice a forward pass, and scoring has none."""


def forecast(engine: Engine, memory: Memory) -> dict[str, Any]:
    """Seconds in all and until the first score, real tokens a second, and peak memory of training in MiB."""
    plan, settings = engine.plan, engine.settings
    batches = plan[0]
    seconds = min(_timed(engine, batches) for _ in range(2))
    speed = sum(b.tokens for b in batches) / seconds
    tokens = int(plan.rows.lengths.sum()) * plan.epochs
    scored = int(engine.job.validation.lengths.sum()) / FORWARD
    return {
        "training_tokens": int(tokens),
        "tokens_per_s": round(speed, 1),
        "training_seconds": round(tokens / speed, 1),
        "first_score_seconds": round((tokens / max(1.0, plan.epochs * settings.evals_per_epoch) + scored) / speed, 1),
        "peak_memory_mib": round(memory.predict(plan.micro_tokens) / 2**20, 1),
    }


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
