"""What the loop tells its methods: which step is done, and when they may still change what ships."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import PrivateAttr

from trainformer.core.roles import Method, Model
from trainformer.methods.bitfit import Bitfit
from trainformer.methods.gradual_unfreeze import GradualUnfreeze


class Sevens(Method):
    """Notes the steps that it is told of; at the end it puts sevens into the head."""

    _steps: list[int] = PrivateAttr(default_factory=list)

    def after_step(self, model: Model, step: int) -> None:
        self._steps.append(step)

    @torch.no_grad()
    def finish(self, model: Model, score: Callable[[], float]) -> None:
        for parameter in model.head.parameters():
            parameter.fill_(7.0)


def test_the_step_just_done_counts_and_what_finish_changed_ships_in_the_adapter_too(engine: Any) -> None:
    sevens = Sevens()
    loop = engine("run", method={"bitfit": Bitfit(), "sevens": sevens})
    loop.fit()
    assert sevens._steps == list(range(1, 13))
    loop.ship()
    head = [value for name, value in loop.adapter.tensors.items() if name.startswith("head.")]
    assert head and all(bool((value == 7).all()) for value in head)


def test_ranks_are_cut_to_the_budget_even_at_the_very_end(engine: Any) -> None:
    pytest.importorskip("peft")
    loop = engine("run", method={"adalora": {"rank": 2, "initial": 4, "begin": 0.0, "end": 1.0, "every": 5}})
    loop.fit()
    ranks = loop.job.methods["adalora"].told()
    assert ranks["steps"][-1] == 12 and sum(r[-1] for r in ranks["ranks"].values()) == 2 * len(ranks["ranks"])


def test_a_layer_joins_at_the_step_that_it_waits_for(engine: Any) -> None:
    """12 steps, half of them until all train; 3 blocks: one joins at steps 1.5, 3 and 4.5, the highest first."""
    method = GradualUnfreeze(until=0.5)
    loop = engine("run", method={"gradual_unfreeze": method})
    waits = sorted({begin for _, begin in method._waits})
    assert waits == [1, 3, 4]
    loop.log = Silent()
    for step in range(6):
        joined = {begin for _, begin in method._waits if begin <= method._step}
        assert method._step == step and joined == {begin for begin in waits if begin <= step}
        loop._step()


class Silent:
    """A log that keeps nothing."""

    def write(self, **values: Any) -> None:
        """Nothing."""
