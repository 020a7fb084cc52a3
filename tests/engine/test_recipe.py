"""The default recipe: numbers worked out by hand."""

import pytest
from torch import nn

from trainformer.core.config import TrainSettings
from trainformer.core.roles import Body, Method, Model
from trainformer.engine.recipe import settle, trained
from trainformer.methods.llrd import Llrd


@pytest.mark.parametrize(("rows", "epochs"), [(100, 10), (2000, 8), (5333, 3), (8040, 3), (100_000, 3)])
def test_small_data_is_read_more_often(rows: int, epochs: int) -> None:
    assert settle(TrainSettings(), rows, 768)[0].epochs == epochs


@pytest.mark.parametrize(("width", "lr"), [(384, 1e-4), (768, 5e-5), (1024, 3.75e-5)])
def test_a_wider_model_gets_a_lower_rate(width: int, lr: float) -> None:
    assert settle(TrainSettings(), 1000, width)[0].lr == pytest.approx(lr)


class _Slow(Method):
    """Asks for a higher rate."""

    key = "slow"
    rate_factor = 5.0


class _Slower(Method):
    """Asks for a still higher one."""

    key = "slower"
    rate_factor = 20.0


def test_a_method_may_ask_for_a_higher_rate_and_of_several_the_largest_counts() -> None:
    settled, said = settle(TrainSettings(), 1000, 768, [_Slow()])
    assert settled.lr == pytest.approx(2.5e-4)
    assert said[1] == "lr: 0.00025 for a model of width 768, 5 times the usual with slow (--set train.lr=X)"
    assert settle(TrainSettings(), 1000, 384, [Llrd(), _Slower(), _Slow()])[0].lr == pytest.approx(2e-3)
    assert settle(TrainSettings(), 1000, 768, [Llrd()])[0].lr == pytest.approx(5e-5)


def test_the_rate_of_the_user_wins() -> None:
    assert settle(TrainSettings(lr=3e-5), 1000, 768, [_Slower()])[0].lr == 3e-5


def test_what_is_set_stays_and_is_not_said() -> None:
    settled, said = settle(TrainSettings(epochs=2, lr=1e-3), 10, 768)
    assert (settled.epochs, settled.lr, said) == (2, 1e-3, [])


def test_the_trained_share_is_told() -> None:
    model = Model(Body(), nn.Linear(9, 10))
    model.head.weight.requires_grad_(False)
    assert trained(model) == ["trained: 10 of 100 parameters (10.00%); the others stay as they are"]
    model.head.weight.requires_grad_(True)
    assert trained(model) == []
