"""Rates by layer, worked out by hand."""

import pytest

from trainformer.core.roles import Model, Rule
from trainformer.methods.llrd import Llrd


def rates(model: Model, decay: float) -> dict[str, float]:
    rules = {name: Rule() for name, p in model.named_parameters() if p.requires_grad}
    Llrd(decay=decay).groups(model, rules)
    return {name: rule.rate for name, rule in rules.items()}


def test_each_block_has_the_rate_of_the_one_above_times_decay(stack: Model) -> None:
    found = rates(stack, 0.5)
    assert found["body.table.weight"] == 0.25
    assert found["body.layers.0.query.weight"] == found["body.layers.0.dense.bias"] == 0.5
    assert found["body.layers.1.query.weight"] == found["body.layers.1.dense.bias"] == 1.0
    assert found["head.weight"] == found["body.pooler.weight"] == 1.0


def test_the_default_is_nine_tenths(stack: Model) -> None:
    assert rates(stack, Llrd().decay)["body.table.weight"] == pytest.approx(0.81)


def test_it_multiplies_the_rate_that_another_method_set(stack: Model) -> None:
    rules = {"body.table.weight": Rule(rate=10.0, decay=False)}
    Llrd(decay=0.5).groups(stack, rules)
    assert rules["body.table.weight"] == Rule(rate=2.5, decay=False)


def test_a_layer_that_is_used_twice_has_the_rate_of_its_highest_use(stack: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = stack.body.blocks()
    monkeypatch.setattr(type(stack.body), "blocks", lambda self: [shared[0], shared[1], shared[1], shared[1]])
    found = rates(stack, 0.5)
    assert found["body.layers.0.query.weight"] == 1.0 and found["body.table.weight"] == 0.125


def test_what_is_frozen_gets_no_rule(stack: Model) -> None:
    stack.body.embed().weight.requires_grad_(False)
    assert "body.table.weight" not in rates(stack, 0.5)
