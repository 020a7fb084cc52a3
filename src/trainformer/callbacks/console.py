"""What a person sees in the terminal while training: a bar that moves, or plain lines where it cannot."""

from typing import Any

from pydantic import Field, PrivateAttr
from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainformer.core.roles import Callback, EvalReport, StepReport

SMOOTH = 0.95
"""Share that a running mean keeps at each step."""


class Console(Callback):
    """Show progress in the terminal: loss, rate, tokens a second, share of padding, time left."""

    lines: int = Field(20, ge=0)
    """Lines of progress over a whole run where the terminal cannot show a bar; 0: evaluations only."""

    _terminal: Terminal | None = PrivateAttr(None)
    _bar: Progress | None = PrivateAttr(None)
    _sums: dict[str, float] = PrivateAttr(default_factory=dict)

    def on_start(self, facts: dict[str, Any]) -> None:
        minutes = facts.get("minutes")
        length = f"{facts['steps']} steps" if minutes is None else f"{minutes:g} minutes"
        self._say(f"training {facts['model']} for {length}" + (f" from {facts['start']}" if facts["start"] else ""))
        if self._open().is_interactive:
            columns = (BarColumn(24), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._open(), transient=True)
            self._bar.add_task("", total=facts["steps"], completed=facts["start"])
            self._bar.start()

    def on_step(self, report: StepReport) -> None:
        self._smooth(report)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=report.step, total=report.steps, description=self._shown(report))
        elif self.lines and _passes(report.step, report.steps, self.lines):
            self._say(f"step {report.step}/{report.steps} epoch {report.epoch:.2f} {self._shown(report)}")

    def _smooth(self, report: StepReport) -> None:
        """Sums that forget; their quotients are running means, right from the first step on."""
        now = {"weight": 1.0, "loss": report.loss, "seconds": report.seconds}
        now |= {"tokens": float(report.tokens), "padding": float(report.padded_tokens)}
        self._sums = {name: SMOOTH * self._sums.get(name, 0.0) + value for name, value in now.items()}

    def _shown(self, report: StepReport) -> str:
        """Real tokens, padding not counted, by second; padding as a share of all that went through the model."""
        s = self._sums
        speed, padding = s["tokens"] / max(s["seconds"], 1e-9), s["padding"] / max(s["tokens"] + s["padding"], 1.0)
        return f"loss {s['loss'] / s['weight']:.4f} lr {report.lr:.2e} {speed:,.0f} tokens/s padding {padding:.0%}"

    def on_eval(self, report: EvalReport) -> bool:
        """A line with all scores, the one that chooses the best epoch first."""
        names = [report.key, *(name for name in report.scores if name != report.key)]
        scores = "  ".join(f"{name} {report.scores[name]:.4f}" for name in names)
        self._say(f"step {report.step} epoch {report.epoch:.2f} validation: {scores}{'  (best)' if report.best else ''}")
        return False

    def _say(self, line: str) -> None:
        self._open().print(line, soft_wrap=True, markup=False, highlight=False)

    def _open(self) -> Terminal:
        """Standard error, so that what a command prints can be piped; opened late, because it cannot be copied."""
        if self._terminal is None:
            self._terminal = Terminal(stderr=True)
        return self._terminal

    def on_end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._terminal = None

    def state(self) -> dict[str, Any]:
        return dict(self._sums)

    def restore(self, state: dict[str, Any]) -> None:
        self._sums = dict(state)


def _passes(step: int, steps: int, lines: int) -> bool:
    """Whether one of `lines` evenly spaced marks lies at this step; the last step is one."""
    return step == steps or step * lines // steps > (step - 1) * lines // steps
