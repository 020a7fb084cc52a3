"""What is said, and how often."""

import io
from typing import Any

import pytest
from rich.console import Console as Terminal

from trainformer.callbacks.console import Console
from trainformer.core.roles import EvalReport, StepReport


def step(number: int, loss: float = 0.5, padding: int = 25, steps: int = 100) -> StepReport:
    return StepReport(number, steps, number / 50, loss, 2e-5, 100, padding, 0.05, 1.0)


def facts(start: int = 0) -> dict[str, Any]:
    return {"run": "run", "steps": 100, "start": start, "config": {}, "model": "tiny [model]"}


def opened(terminal: bool, **settings: int) -> tuple[Console, io.StringIO]:
    file, callback = io.StringIO(), Console(**settings)
    callback._terminal = Terminal(file=file, force_terminal=terminal, force_interactive=terminal, width=120)
    return callback, file


def test_plain_lines_where_there_is_no_terminal() -> None:
    callback, file = opened(terminal=False, lines=4)
    callback.on_start(facts())
    for number in range(1, 101):
        callback.on_step(step(number))
    callback.on_end()
    lines = file.getvalue().splitlines()
    assert lines[0] == "training tiny [model] for 100 steps"
    assert [line.split(" ")[1] for line in lines[1:]] == ["25/100", "50/100", "75/100", "100/100"]
    # 100 tokens in 0.05 s; 25 more are padding, of 125
    assert lines[1] == "step 25/100 epoch 0.50 loss 0.5000 lr 2.00e-05 2,000 tokens/s padding 20%"
    assert "\x1b" not in file.getvalue()


def test_no_line_of_progress_if_none_is_wanted() -> None:
    callback, file = opened(terminal=False, lines=0)
    callback.on_start(facts(start=50))
    callback.on_step(step(100))
    assert file.getvalue() == "training tiny [model] for 100 steps from 50\n"


def test_the_last_step_has_a_line_in_a_short_run() -> None:
    callback, file = opened(terminal=False)
    for number in (1, 2, 3):
        callback.on_step(step(number, steps=3))
    assert len(file.getvalue().splitlines()) == 3


def test_the_loss_is_a_running_mean_right_from_the_start() -> None:
    callback, file = opened(terminal=False)
    callback.on_step(step(1, loss=2.0, steps=2))
    callback.on_step(step(2, loss=1.0, steps=2))
    first, second = file.getvalue().splitlines()
    # weights 0.95 and 1: (0.95 * 2 + 1) / 1.95
    assert "loss 2.0000" in first and f"loss {2.9 / 1.95:.4f}" in second


def test_an_evaluation_is_one_line_with_the_choosing_score_first() -> None:
    callback, file = opened(terminal=False)
    callback.on_eval(EvalReport(50, 1.0, {"loss": 0.4, "accuracy": 0.875}, True, "accuracy", True))
    callback.on_eval(EvalReport(100, 2.0, {"loss": 0.5, "accuracy": 0.75}, False, "accuracy", True))
    assert file.getvalue().splitlines() == [
        "step 50 epoch 1.00 validation: accuracy 0.8750  loss 0.4000  (best)",
        "step 100 epoch 2.00 validation: accuracy 0.7500  loss 0.5000",
    ]


def test_a_bar_in_a_terminal() -> None:
    callback, file = opened(terminal=True)
    callback.on_start(facts(start=10))
    assert callback._bar is not None and callback._bar.tasks[0].completed == 10
    callback.on_step(step(11))
    assert callback._bar.tasks[0].completed == 11
    assert callback._bar.tasks[0].description == "loss 0.5000 lr 2.00e-05 2,000 tokens/s padding 20%"
    callback.on_end()
    assert callback._bar is None and "11/100" in file.getvalue()


def test_it_speaks_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    Console().on_eval(EvalReport(1, 1.0, {"loss": 0.4}, True, "loss", False))
    said = capsys.readouterr()
    assert said.out == "" and said.err == "step 1 epoch 1.00 validation: loss 0.4000  (best)\n"
