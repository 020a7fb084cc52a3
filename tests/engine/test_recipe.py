"""The default recipe: numbers worked out by hand."""

import pytest
from torch import nn

from trainformer.core.config import TrainSettings
from trainformer.core.roles import Body, Model
from trainformer.engine.recipe import settle, trained


@pytest.mark.parametrize(("rows", "epochs"), [(100, 10), (2000, 8), (5333, 3), (8040, 3), (100_000, 3)])
def test_small_data_is_read_more_often(rows: int, epochs: int) -> None:
    assert settle(TrainSettings(), rows, 768)[0].epochs == epochs


@pytest.mark.parametrize(("width", "lr"), [(384, 1e-4), (768, 5e-5), (1024, 3.75e-5)])
def test_a_wider_model_gets_a_lower_rate(width: int, lr: float) -> None:
    assert settle(TrainSettings(), 1000, width)[0].lr == pytest.approx(lr)


def test_few_trained_weights_get_a_higher_rate() -> None:
    settled, said = settle(TrainSettings(), 1000, 768, trained_share=0.01)
    assert settled.lr == pytest.approx(2.5e-4)
    assert "1.0% is trained" in said[1]


def test_what_is_set_stays_and_is_not_said() -> None:
    settled, said = settle(TrainSettings(epochs=2, lr=1e-3), 10, 768)
    assert (settled.epochs, settled.lr, said) == (2, 1e-3, [])


def test_the_trained_share_is_told() -> None:
    model = Model(Body(), nn.Linear(9, 10))
    model.head.weight.requires_grad_(False)
    assert trained(model) == (0.1, ["trained: 10 of 100 parameters (10.00%); the others stay as they are"])
    model.head.weight.requires_grad_(True)
    assert trained(model) == (1.0, [])
