"""A run that ends at a given time: how many steps that is, and where on the schedule of the rate each step stands.

The plan is a pure function of (seed, step) and the rate of (step, number of steps); only the number of steps N is not known
before the speed is. So N is fitted, from the speed since the last fit and the time that the last scoring took: after the first
step and whenever the steps have doubled, as the first ones are slow; whenever an eighth of the steps that were left is done,
so that a run which has become faster does not end early; and when 5, 25, 50, 75, 90 and 97 % of the time are used. A fit (step,
share, N) says: from this step, which stands at this share of the schedule, the rest of it is spread evenly up to step N. So
the share of the schedule is the share of the time as far as anyone can foretell it, it never jumps, and it is 1 at the last
step, unless the run comes to a stand still and the time ends first.

To resume exactly: fits and the time used are in the checkpoint, and what a step does follows from (seed, step, fits) alone. A run
that goes on has the same bits up to the next fit. A later fit reads the clock, and two runs whose clocks differ may get other
numbers of steps from there: that is what a limit of time means. With a clock that tells the same, the bits are the same to
the end. The time between the last checkpoint and a kill is lost to the count, the checkpoint's step being where it goes on.

Methods that schedule themselves by the number of steps see FIRST_STEPS, as nothing better is known when they are prepared.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from trainformer.core.config import TrainSettings
from trainformer.data.plan import Plan

FIRST_STEPS = 1000
"""The number of steps until the first fit."""
SHARES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.97)
"""Shares of the time at which the number of steps is fitted again, however many steps were done."""


class Pace:
    """The number of steps of a run; without a limit of time it is the plan's, and each step is its own place."""

    def __init__(self, settings: TrainSettings, plan: Plan):
        self.plan, self.evals = plan, settings.evals_per_epoch / plan.steps_an_epoch
        self.limit = None if settings.minutes is None else 60 * settings.minutes
        self.most = None if settings.epochs is None else len(plan)
        self.fits: list[list[float]] = []
        self.clock: Callable[[], float] = time.monotonic
        self.used = self._scored = self._scoring = 0.0
        self.began: float | None = None
        self._since = (0, 0.0, 0.0)
        if self.limit is not None:
            self._take([0, 0.0, FIRST_STEPS])

    def begin(self) -> None:
        """Called when the loop starts or goes on: from here the time counts."""
        self.began = self.clock()

    def elapsed(self) -> float:
        """Seconds of training in all sessions."""
        return self.used + (0.0 if self.began is None else self.clock() - self.began)

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Inside, time is that of a scoring and not of steps."""
        before = self.clock()
        yield
        self._scoring = self.clock() - before
        self._scored += self._scoring

    def place(self, step: int) -> float:
        """The step at which a run of as many steps, all equally fast, would stand on its schedule."""
        return step if self.limit is None else self.share(step) * len(self.plan)

    def share(self, step: int) -> float:
        """How much of the schedule is done before a step, 0..1."""
        start, share, steps = next(fit for fit in reversed(self.fits) if fit[0] <= step)
        return share + (1 - share) * (step - start) / max(1.0, steps - start)

    def wanted(self, step: int) -> int:
        """The number of steps that fits now, after so many; 0 where it stays as it is."""
        if self.limit is None or step >= len(self.plan):
            return 0
        now = self.elapsed()
        if now + self._scoring >= self.limit:
            return step
        if not self._due(step, now):
            return 0
        start, before, scored = self._since
        cost = (now - before - self._scored + scored) / (step - start)
        left = (self.limit - now - self._scoring) / max(1e-9, cost + self.evals * self._scoring)
        return max(step, min(step + int(left), self.most or step + int(left)))

    def fit(self, step: int, steps: int) -> None:
        """From this step on the run has so many steps."""
        share = self.share(step)
        self._since = (step, self.elapsed(), self._scored)
        self._take([step, share, steps])

    def _due(self, step: int, now: float) -> bool:
        """Whether it is time for a fit, after this step and so many seconds."""
        assert self.limit is not None
        start, before, _ = self._since
        passed = any(before < share * self.limit <= now for share in SHARES)
        return step > start and (passed or step >= 2 * start or 8 * (step - start) >= len(self.plan) - start)

    def _take(self, fit: list[float]) -> None:
        self.fits.append(fit)
        self.plan.epochs = fit[2] / self.plan.steps_an_epoch

    def state(self) -> dict[str, Any]:
        """What an exact resume needs, as plain JSON values."""
        if self.limit is None:
            return {}
        scored = [self._scored, self._scoring]
        return {"fits": list(self.fits), "seconds": self.elapsed(), "scored": scored, "since": list(self._since)}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what `state` gave."""
        if state:
            self.fits, self.used = [], state["seconds"]
            self._scored, self._scoring = state["scored"]
            step, seconds, scored = state["since"]
            self._since = (step, seconds, scored)
            for fit in state["fits"]:
                self._take(fit)
            assert all(a[0] <= b[0] for a, b in pairwise(self.fits)), "fits are in the order of their steps"
