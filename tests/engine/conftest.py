"""A real loop on the tiny model: as `run.py` puts it together, without the command line and the report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainformer.core import config as settings
from trainformer.data import prepare
from trainformer.data.plan import Plan
from trainformer.data.tokens import HubTokens
from trainformer.engine.engine import Engine, Job

Make = Callable[..., Engine]


@pytest.fixture
def engine(tiny_model: Path, tmp_path: Path, write: Any, rows: Any) -> Make:
    """`engine("run", method=["ema"], lr=1e-3)`: a loop of 3 epochs of 4 steps on 60 rows of unequal weight.

    `callbacks` are objects by name, `model` settings of the model; all else are settings of the loop.
    """

    def make(name: str, method: Any = "llrd", callbacks: Any = None, model: Any = None, task: Any = None, **words: Any) -> Engine:
        weighed = [row | {"weight": 1 + i % 3} for i, row in enumerate(rows(60))]
        held = [row | {"weight": 1} for row in rows(20, seed=1)]
        data = write("train.jsonl", weighed), write("validation.jsonl", held)
        config = settings.parse({
            "task": task or "text_classification",
            "data": {"train": data[0], "validation": data[1], "weight": "weight", "test_share": 0,
                     "cache": str(tmp_path / "cache")},
            "model": {"name": str(tiny_model), **(model or {})},
            "method": [method] if isinstance(method, str) else method,
            "train": {"epochs": 3, "lr": 1e-3, "precision": "float32", "device": "cpu"} | words,
        })  # fmt: skip
        prepared = prepare.read(config, {})
        prepare.learn(prepared, config.task)
        prepare.encode(prepared, config, HubTokens.load(str(tiny_model)), 64)
        torch.manual_seed(config.train.seed)
        built, _, _ = config.model.load(config.task)
        for each in config.method.values():
            each.extend(built)
        train, validation = (prepared.slices[s].rows for s in ("train", "validation"))
        plan = Plan(train, config.train.step_rows, config.train.micro_tokens, config.train.epochs or 1, config.train.seed)
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return Engine(Job(built, config.task, plan, validation, config.train, folder, config.method, callbacks or {}, {}, True))

    return make


@pytest.fixture
def bits() -> Callable[[Engine], dict[str, torch.Tensor]]:
    """A copy of all weights."""
    return lambda engine: {name: value.clone() for name, value in engine.model.state_dict().items()}


@pytest.fixture
def log() -> Callable[[Engine], list[dict[str, Any]]]:
    """The lines of the log without their times."""

    def read(engine: Engine) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (engine.job.folder / "log.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]

    return read
