"""A callback that times a run from inside: `--callback benchmarks.clock`, with the root of the repository in PYTHONPATH.

It writes RUN/clock.json when the run ends: the seconds from the start of the loop to the end of the last step, everything
between the steps included; the time of day of the first optimiser step; the seconds of each optimiser step and the number of
parameters that it moves; and, where it was asked to, RUN/profile.json, the operators of some steps. What it times is what the
loop really runs.
"""

import json
import time
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from trainformer.core.roles import Callback, StepReport


class Clock(Callback):
    """Time the loop, its optimiser and, if asked, its operators."""

    profile_steps: int = Field(0, ge=0)
    """Steps in the profile; 0: none."""
    profile_after: int = Field(4, ge=1)
    """Steps before the first one in the profile."""

    _found: dict[str, Any] = PrivateAttr(default_factory=dict)
    _began: float = PrivateAttr(0.0)
    _optimizer_began: float = PrivateAttr(0.0)
    _folder: Path = PrivateAttr(Path("."))
    _hooks: list[Any] = PrivateAttr(default_factory=list)
    _profile: Any = PrivateAttr(None)

    def on_start(self, facts: dict[str, Any]) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        self._folder = Path(facts["run"])
        self._found = {"first_step_at": None, "optimizer_seconds": []}
        self._hooks = [register_optimizer_step_pre_hook(self._before), register_optimizer_step_post_hook(self._after)]
        self._began = time.perf_counter()

    def _before(self, optimizer: Any, *_: Any) -> None:
        if not self._found["optimizer_seconds"]:
            moved = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            self._found["optimizer_parameters"] = sum(p.numel() for p in moved)
        self._optimizer_began = time.perf_counter()

    def _after(self, *_: Any) -> None:
        self._found["optimizer_seconds"].append(time.perf_counter() - self._optimizer_began)
        self._found["first_step_at"] = self._found["first_step_at"] or time.time()

    def on_step(self, report: StepReport) -> None:
        self._found |= {"seconds": time.perf_counter() - self._began, "steps": report.step}
        if not self.profile_steps:
            return
        if report.step == self.profile_after:
            from torch.profiler import ProfilerActivity, profile

            self._profile = profile(activities=[ProfilerActivity.CPU], acc_events=True)
            self._profile.start()
        elif report.step == self.profile_after + self.profile_steps:
            self._profile.stop()
            self._write_profile()

    def _write_profile(self) -> None:
        """Name, own microseconds and calls of each operator, the dearest first."""
        listed = [
            {"name": event.key, "own_us": event.self_cpu_time_total, "calls": event.count}
            for event in self._profile.key_averages()
        ]
        listed.sort(key=lambda each: -each["own_us"])
        found = {"steps": self.profile_steps, "operators": listed}
        (self._folder / "profile.json").write_text(json.dumps(found), encoding="utf-8")

    def on_end(self) -> None:
        for hook in self._hooks:
            hook.remove()
        (self._folder / "clock.json").write_text(json.dumps(self._found), encoding="utf-8")
