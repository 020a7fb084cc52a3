"""The average after three steps, worked out by hand."""

import pytest
import torch

from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Model
from trainformer.methods.ema import Ema


def after_three_steps(model: Model, facts: Facts, decay: float) -> Ema:
    """The weights are 0, then 1, 2 and 3."""
    method = Ema(decay=decay)
    model.head.weight.data.zero_()
    method.prepare(model, facts)
    for step in (1, 2, 3):
        model.head.weight.data.fill_(step)
        method.after_step(model, step)
    return method


def test_warm_up_lets_the_start_be_forgotten(bag: Model, facts: Facts) -> None:
    # 2/11, 3/12 and 4/13 of the average are kept: 9/11; then 9/44 + 3/2 = 75/44; then 4/13 * 75/44 + 9/13 * 3 = 372/143
    method = after_three_steps(bag, facts, 0.999)
    assert method.state()["average.head.weight"].tolist() == pytest.approx([372 / 143] * 2, rel=1e-6)


def test_then_the_setting_holds(bag: Model, facts: Facts) -> None:
    # 0.9 * 1 = 0.9; 0.1 * 0.9 + 0.9 * 2 = 1.89; 0.1 * 1.89 + 0.9 * 3 = 2.889
    method = after_three_steps(bag, facts, 0.1)
    assert method.state()["average.head.weight"].tolist() == pytest.approx([2.889] * 2, rel=1e-6)


def test_swap_shows_the_average_and_gives_the_weights_back(bag: Model, facts: Facts) -> None:
    method = after_three_steps(bag, facts, 0.1)
    method.swap(bag)
    assert bag.head.weight.tolist() == pytest.approx([2.889] * 2, rel=1e-6)
    method.swap(bag)
    assert bag.head.weight.tolist() == [3.0, 3.0]


def test_weights_of_sixteen_bits_come_back_too_and_the_average_has_more(bag: Model, facts: Facts) -> None:
    bag.to(torch.bfloat16)
    method = after_three_steps(bag, facts, 0.999)
    state = method.state()
    assert state["average.head.weight"].dtype == torch.float32
    before = {name: value.clone() for name, value in bag.state_dict().items()}
    method.swap(bag)
    method.swap(bag)
    assert all(torch.equal(value, before[name]) for name, value in bag.state_dict().items())
    assert all(torch.equal(value, state[name]) for name, value in method.state().items())


def test_what_is_frozen_is_not_averaged(bag: Model, facts: Facts) -> None:
    bag.body.embed().weight.requires_grad_(False)
    method = Ema()
    method.prepare(bag, facts)
    assert set(method.state()) == {"average.head.weight", "steps"}


def test_the_average_of_other_weights_is_refused(bag: Model, stack: Model, facts: Facts) -> None:
    one, other = Ema(), Ema()
    one.prepare(bag, facts)
    other.prepare(stack, facts)
    with pytest.raises(UserError, match=r"do not train the same weights: 'body\.layers\.0\.dense\.bias'"):
        other.restore(one.state())
