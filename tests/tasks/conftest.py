"""A tokenizer of letters, and the way from rows to a batch."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainformer.core.batch import Batch, pack
from trainformer.core.roles import Task


class Letters:
    """Each letter is a token; 0 stands at the start and between texts."""

    def __init__(self):
        self.specials = {1: 1, 2: 2}

    def pieces(self, texts):
        return [[ord(c) for c in text] for text in texts]

    def wrap(self, *texts):
        ids = [i for text in texts for i in [0, *text]]
        return ids, [0] * len(ids)


@pytest.fixture
def tokens() -> Letters:
    return Letters()


@pytest.fixture
def learn() -> Callable[[Task, list[Any]], Task]:
    """The task after it has seen a row with each of the labels."""

    def make(task: Task, labels: list[Any]) -> Task:
        texts = ("one", "two") if task.pair else ("one",)
        for row, label in enumerate(labels):
            task.observe(task.parse(texts, label, row, 1.0))
        task.settle()
        return task

    return make


@pytest.fixture
def batch_of(tokens: Letters) -> Callable[[Task, list[Any]], Batch]:
    """A batch of one example for each label."""

    def make(task: Task, labels: list[Any]) -> Batch:
        texts = ("one", "two") if task.pair else ("one",)
        examples = [task.parse(texts, label, row, 1.0) for row, label in enumerate(labels)]
        return pack([task.encode(e, tokens.pieces(e.texts), tokens, 16) for e in examples])

    return make


@pytest.fixture
def broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`broken_off(rows, 9, **given)`: a run that Ctrl-C ends in that step and that goes on ends with the bits of a whole one."""
    from trainformer import train
    from trainformer.callbacks.console import Console
    from trainformer.engine.limits import Interrupted

    def compare(rows: Any, step: int, **given: Any) -> None:
        train(rows, out=tmp_path / "whole", **given)
        told = Console.on_step

        def halting(self: Console, report: Any) -> None:
            told(self, report)
            if report.step == step:
                os.kill(os.getpid(), signal.SIGINT)

        with monkeypatch.context() as patched, pytest.raises(Interrupted):
            patched.setattr(Console, "on_step", halting)
            train(rows, out=tmp_path / "broken", **given)
        train(out=tmp_path / "broken", resume=True)
        one, other = (tmp_path / name / "bundle" / "model.safetensors" for name in ("whole", "broken"))
        assert one.read_bytes() == other.read_bytes()

    return compare
