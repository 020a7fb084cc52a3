"""When a run stops, counted by hand."""

import math

import pytest

from trainformer.callbacks.early_stopping import EarlyStopping
from trainformer.core.roles import EvalReport


def stops(callback: EarlyStopping, scores: list[float], higher: bool = True) -> int | None:
    """The evaluation, from 1, at which it asks to stop."""
    for number, score in enumerate(scores, 1):
        if callback.on_eval(EvalReport(number, float(number), {"score": score, "other": -score}, False, "score", higher)):
            return number
    return None


@pytest.mark.parametrize(
    ("scores", "higher", "expected"),
    [
        ([0.5, 0.6, 0.6, 0.6, 0.6, 0.9], True, 5),
        ([0.5, 0.4, 0.4, 0.6, 0.5, 0.5], True, None),
        ([0.5, 0.4, 0.3, 0.2], True, 4),
        ([1.0, 0.9, 0.8, 0.7], False, None),
        ([0.7, 0.8, 0.9, 1.0], False, 4),
        ([math.nan, math.nan, math.nan], True, 3),
        ([math.nan, 0.5, 0.6], True, None),
    ],
)
def test_after_three_evaluations_without_a_better_score(scores: list[float], higher: bool, expected: int | None) -> None:
    assert stops(EarlyStopping(), scores, higher) == expected


def test_small_steps_are_no_improvement() -> None:
    assert stops(EarlyStopping(min_delta=0.1, patience=2), [0.5, 0.55, 0.59]) == 3
    assert stops(EarlyStopping(min_delta=0.1, patience=2), [0.5, 0.55, 0.61, 0.62]) is None


def test_a_resumed_run_stops_at_the_same_evaluation() -> None:
    first, second = EarlyStopping(), EarlyStopping()
    assert stops(first, [0.6, 0.5, 0.5]) is None
    second.restore(first.state())
    assert stops(second, [0.6]) == 1


def test_patience_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        EarlyStopping(patience=0)
