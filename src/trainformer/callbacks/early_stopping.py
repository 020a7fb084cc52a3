"""Stops a run whose score on validation no longer rises."""

from typing import Any

from pydantic import Field, PrivateAttr

from trainformer.core.roles import Callback, EvalReport


class EarlyStopping(Callback):
    """Stop when the score that chooses the best epoch has not improved for `patience` evaluations."""

    patience: int = Field(3, ge=1)
    """Evaluations in a row without improvement after which the run stops."""
    min_delta: float = Field(0.0, ge=0)
    """Least change of the score that counts as improvement, in units of the score."""

    _best: float | None = PrivateAttr(None)
    _waited: int = PrivateAttr(0)

    def on_eval(self, report: EvalReport) -> bool:
        """True when patience has run out; a score that is not a number is no improvement."""
        score = report.scores[report.key]
        if self._improves(score if report.higher_is_better else -score):
            self._best, self._waited = (score if report.higher_is_better else -score), 0
        else:
            self._waited += 1
        return self._waited >= self.patience

    def _improves(self, value: float) -> bool:
        """`value`: higher is better."""
        return value == value and (self._best is None or value - self._best > self.min_delta)

    def state(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited}

    def restore(self, state: dict[str, Any]) -> None:
        self._best, self._waited = state["best"], state["waited"]
