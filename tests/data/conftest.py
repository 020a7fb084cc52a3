"""A minimal task and files of rows, for the tests of what reads and checks them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from trainformer.core.batch import Encoded, Example
from trainformer.core.config import DataSettings
from trainformer.core.errors import UserError
from trainformer.core.protocols import Metric, Tokens
from trainformer.core.roles import Answer, Decision, Task
from trainformer.data.columns import choose
from trainformer.data.read import open_source
from trainformer.data.survey import Survey, survey


class _Labels(Task):
    """Classification, as far as reading goes: a label is a word or a whole number."""

    def parse(self, texts: tuple[str, ...], label: Any, row: int, weight: float) -> Example:
        label = None if label is ... else label
        if label is not None and not isinstance(label, str | int | list):
            raise UserError(f"the label is {label!r}.", fix="Write a word.")
        target = label if isinstance(label, list) or label is None else str(label)
        return Example(texts, target, row, weight)

    def observe(self, example: Example) -> None: ...

    def settle(self) -> None: ...

    def encode(self, example: Example, pieces: list[list[int]], tokens: Tokens, limit: int) -> Encoded:
        raise AssertionError("nothing is encoded here")

    def outputs(self) -> int:
        return 2

    def loss(self, output: Tensor, batch: Any) -> Tensor:
        raise AssertionError("nothing is learnt here")

    def divergence(self, one: Tensor, other: Tensor) -> Tensor:
        raise AssertionError("nothing is learnt here")

    def answer(self, output: Tensor, decision: Decision) -> list[Answer]:
        raise AssertionError("nothing is answered here")

    def metric(self, decision: Decision | None = None) -> Metric:
        raise AssertionError("nothing is measured here")


class _Numbers(_Labels):
    """Regression, as far as reading goes."""

    def parse(self, texts: tuple[str, ...], label: Any, row: int, weight: float) -> Example:
        if float(label) != float(label):
            raise UserError("the target is NaN.", fix="Give it a number.")
        return Example(texts, float(label), row, weight)


@pytest.fixture
def task() -> Task:
    return _Labels()


@pytest.fixture
def numbers_task() -> Task:
    return _Numbers()


@pytest.fixture
def look(tmp_path: Path, task: Task) -> Callable[..., Survey]:
    """Surveys rows given as (text, label), or as dictionaries, through a JSON lines file."""

    def make(rows: list[Any], name: str = "rows.jsonl", task: Task = task, pair: bool = False, **settings: str) -> Survey:
        plain = [row if isinstance(row, dict) else dict(zip(("text", "label"), row, strict=True)) for row in rows]
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain), encoding="utf-8")
        source = open_source(path)
        return survey(source, choose(source, DataSettings(**settings), pair, True)[0], task)

    return make


@pytest.fixture
def shared() -> Path:
    """The folder of real data that stands beside the project."""
    folder = Path(os.environ.get("TRAINFORMER_SHARED", Path(__file__).parents[2].parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; TRAINFORMER_SHARED says where it is")
    return folder
