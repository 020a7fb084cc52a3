"""A run that ends at a given time: with a clock that is made up, so that every number can be worked out by hand."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from trainformer import train
from trainformer.core.config import TrainSettings
from trainformer.engine import pace as pacing
from trainformer.engine.checkpoint import latest
from trainformer.engine.limits import Interrupted
from trainformer.engine.pace import FIRST_STEPS, Pace
from trainformer.engine.schedules import rate


class Steps:
    """What a pace sees of a plan."""

    def __init__(self, epochs: float, steps_an_epoch: int):
        self.epochs, self.steps_an_epoch = epochs, steps_an_epoch

    def __len__(self) -> int:
        return max(1, round(self.epochs * self.steps_an_epoch))


class Simulated:
    """Steps and scorings that take as long as it is said."""

    def __init__(self, seconds: float, cost: Any, scoring: float = 0.0, evals: int = 1, **settings: Any):
        self.now, self.cost, self.scoring = 100.0, cost, scoring
        steps_an_epoch = settings.pop("steps_an_epoch", 10**9)
        self.plan: Any = Steps(settings.get("epochs", 1.0), steps_an_epoch)
        self.settings = TrainSettings(minutes=seconds / 60, evals_per_epoch=evals, lr=1.0, **settings)
        self.pace = Pace(self.settings, self.plan)
        self.pace.clock = lambda: self.now
        self.step, self.rates = 0, list[float]()

    def score(self) -> None:
        with self.pace.scoring():
            self.now += self.scoring

    def run(self) -> "Simulated":
        self.pace.begin()
        self.score()
        while self.step < len(self.plan):
            self.rates.append(rate(self.pace.place(self.step), len(self.plan), self.settings))
            self.now += self.cost(self.step)
            self.step += 1
            if steps := self.pace.wanted(self.step):
                self.pace.fit(self.step, steps)
            if self.step % self.plan.steps_an_epoch == 0 or self.step == len(self.plan):
                self.score()
        return self


@pytest.mark.parametrize(("cost", "steps"), [(1.0, 600), (0.25, 2400), (100.0, 6)])
def test_an_even_speed_fills_the_time(cost: float, steps: int) -> None:
    done = Simulated(600, lambda _: cost).run()
    assert done.step == steps and done.now - 100 == 600
    assert done.pace.share(done.step) == 1.0


def test_scorings_are_a_part_of_the_time() -> None:
    """An epoch of 10 steps and its scoring take 15 s; one scoring of 5 s stands before the first step."""
    done = Simulated(600, lambda _: 1.0, scoring=5.0, steps_an_epoch=10).run()
    assert 585 <= done.now - 100 <= 601 and abs(done.step - 395) <= 10


@pytest.mark.parametrize("later", [0.5, 3.0])
def test_another_speed_in_the_middle_is_met_and_the_schedule_ends_with_the_time(later: float) -> None:
    done = Simulated(600, lambda step: 1.0 if step < 200 else later, schedule="linear").run()
    assert 0.95 * 600 <= done.now - 100 <= 600 + later
    assert done.rates[-1] < 0.05 and max(done.rates) > 0.99
    falls = done.rates[done.rates.index(max(done.rates)) :]
    assert all(a >= b for a, b in pairwise(falls)), "after the warm-up it only falls"
    jumps = [abs(a - b) for a, b in pairwise(done.rates[10:])]
    assert max(jumps) < 0.06, "it never jumps"


@pytest.mark.parametrize(("slow", "scoring"), [(5, 0.0), (20, 0.0), (20, 2.0)])
def test_slow_first_steps_do_not_end_a_run_early(slow: int, scoring: float) -> None:
    """The first ones take five times as long, as kernels are compiled: 120 s hold 240 - 4 slow, and the rate follows the time."""
    done = Simulated(120, lambda step: 2.5 if step < slow else 0.5, scoring, schedule="linear").run()
    steps = 240 - 4 * slow - 4 * scoring
    assert 0.95 * 120 <= done.now - 100 <= 120 and abs(done.step - steps) <= 0.1 * steps
    for step in range(done.step):
        # no fit can know of a change before it happened: the next one mends what the last one took for granted
        used = 5 * min(step, slow) + max(0, step - slow)  # in half seconds of steps
        assert abs(done.pace.share(step) - used / (done.step + 4 * slow)) < 0.1


def test_a_sudden_stand_still_is_cut_at_the_limit() -> None:
    done = Simulated(600, lambda step: 1.0 if step < 590 else 50.0).run()
    assert done.now - 100 <= 650 and done.step < 600


def test_epochs_are_still_the_most() -> None:
    done = Simulated(600, lambda _: 1.0, epochs=2.0, steps_an_epoch=50).run()
    assert done.step == 100


def test_without_a_limit_every_step_is_its_own_place() -> None:
    plan: Any = Steps(3.0, 10)
    pace = Pace(TrainSettings(), plan)
    assert [pace.place(s) for s in (0, 7, 29)] == [0, 7, 29] and pace.wanted(7) == 0 and pace.state() == {}
    assert plan.epochs == 3.0


def test_state_is_plain_and_goes_on_where_it_stood() -> None:
    first = Simulated(600, lambda _: 0.5)
    first.pace.begin()
    for step in range(1, 200):
        first.now += 0.5
        if steps := first.pace.wanted(step):
            first.pace.fit(step, steps)
    state = json.loads(json.dumps(first.pace.state()))
    assert state["seconds"] == 99.5 and state["fits"][0] == [0, 0.0, FIRST_STEPS]
    second = Simulated(600, lambda _: 0.5)
    second.now = 9000.0  # the time between two sessions does not count
    second.pace.restore(state)
    second.pace.begin()
    assert len(second.plan) == len(first.plan) and second.pace.share(250) == first.pace.share(250)
    assert second.pace.elapsed() == 99.5


def test_a_real_run_ends_in_time_and_a_killed_one_goes_on_with_the_same_bits(
    tiny_model: Path, tmp_path: Path, write: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is tied to the steps, an eighth of a second each: 0.1 minutes are 48 steps, for the killed run too."""
    from trainformer.engine.engine import Engine

    data = write("reviews.jsonl", rows(80))
    held = {"validation": write("held.jsonl", rows(20, 5)), "test": write("test.jsonl", rows(20, 6))}
    settings = {"data.cache": str(tmp_path / "cache"), "train.minutes": 0.1, "train.precision": "float32", "train.lr": 1e-3,
                "train.baselines": False, "train.probe": False, "callbacks.early_stopping.patience": 1000}  # fmt: skip
    one_step, fit, kill = Engine._step, Engine._fit_pace, {"at": -1}

    def step(engine: Engine) -> None:
        engine.pace.clock = lambda: engine.progress.step / 8
        one_step(engine)

    def fit_and_stop(engine: Engine) -> None:  # where the loop saves: after a fit, never between a step and its fit
        fit(engine)
        if engine.progress.step == kill["at"]:
            kill["at"] = -1
            engine.save()
            raise Interrupted(2, engine.progress.step, engine.job.folder)

    def begin(pace: Pace) -> None:
        pace.began = pace.used

    monkeypatch.setattr(Engine, "_step", step)
    monkeypatch.setattr(Engine, "_fit_pace", fit_and_stop)
    monkeypatch.setattr(pacing.Pace, "begin", begin)
    words = {"model": str(tiny_model), "set": settings, **held}
    whole = train(data, out=tmp_path / "whole", **words)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) == 48
    fits = [line for line in lines if "used_seconds" in line]
    assert fits[0]["step"] == 1 and fits[-1]["steps"] == 48
    kill["at"] = 21
    with pytest.raises(Interrupted):
        train(data, out=tmp_path / "cut", **words)
    resumed = train(out=tmp_path / "cut", resume=True)
    one, other = (latest(run.folder / "checkpoints") for run in (whole, resumed))
    assert one is not None and other is not None and one[0].plain["step"] == other[0].plain["step"] == 48
    assert all(torch.equal(one[0].tensors[name], other[0].tensors[name]) for name in one[0].tensors)
    assert one[0].plain["pace"]["fits"] == other[0].plain["pace"]["fits"]
    assert whole.scores == resumed.scores
