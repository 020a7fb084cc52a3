"""Which layers begin anew."""

import pytest
import torch

from trainformer.core.config import parse
from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Model
from trainformer.methods.reinit import Reinit


def test_the_top_layer_begins_anew_and_nothing_else(stack: Model) -> None:
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    Reinit(layers=1).extend(stack)
    changed = {name for name, value in stack.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"body.layers.1.{layer}.{kind}" for layer in ("query", "dense") for kind in ("weight", "bias")}
    assert stack.body.layers[1]["query"].bias.tolist() == [0.0, 0.0]


def test_matrices_are_normal_with_the_spread(stack: Model) -> None:
    stack.body.layers[1]["query"] = torch.nn.Linear(200, 200)
    stack.body.layers[1]["norm"] = torch.nn.LayerNorm(200).requires_grad_(True)
    stack.body.layers[1]["norm"].weight.data.fill_(5.0)
    Reinit(layers=1, spread=0.3).extend(stack)
    weight = stack.body.layers[1]["query"].weight.detach()
    assert float(weight.std()) == pytest.approx(0.3, rel=0.02) and float(weight.mean()) == pytest.approx(0, abs=0.01)
    assert stack.body.layers[1]["norm"].weight.unique().tolist() == [1.0]


@pytest.mark.parametrize("layers", [2, 9])
def test_a_model_that_would_be_all_new_is_refused(layers: int, stack: Model) -> None:
    with pytest.raises(UserError, match=rf"{layers} of 2 layers would begin anew.*Set it to 1 or less"):
        Reinit(layers=layers).extend(stack)


def test_frozen_layers_are_refused(stack: Model, facts: Facts) -> None:
    stack.body.layers[1].requires_grad_(False)
    with pytest.raises(UserError, match="must be learnt whole"):
        Reinit().prepare(stack, facts)
    with pytest.raises(UserError, match="'reinit' and 'lora' cannot be used together"):
        parse({"method": ["lora", "reinit"]})
