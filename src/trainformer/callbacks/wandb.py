"""Curves for Weights & Biases: offline unless it is asked to be online."""

import importlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from trainformer.core.errors import MissingExtra, UserError
from trainformer.core.roles import Callback, EvalReport, StepReport


class Wandb(Callback):
    """Write curves for Weights & Biases, in the folder of the run; `wandb sync` sends them later."""

    project: str = Field("trainformer", min_length=1)
    """Project that the run belongs to."""
    mode: Literal["offline", "online", "disabled"] = "offline"
    """Where curves go: a folder of the run, the service (after `wandb login`), or nowhere."""
    every: int = Field(1, ge=1)
    """Steps between two points of the training curves."""

    _run: Any = PrivateAttr(None)
    _id: str | None = PrivateAttr(None)

    def on_start(self, facts: dict[str, Any]) -> None:
        """Opens `RUN/wandb`. Raises UserError if it is to be online and nobody is logged in: it never asks for a key."""
        wandb = _library()
        if self.mode == "online" and not wandb.login(prompt=False):
            fix = "Run `wandb login` first, or set callbacks.wandb.mode=offline."
            raise UserError("nobody is logged in to Weights & Biases.", where="callbacks.wandb.mode", fix=fix)
        folder = Path(facts["run"])
        self._run = wandb.init(
            project=self.project,
            name=folder.name,
            dir=str(folder),
            config=facts["config"],
            id=self._id,
            resume="allow" if self._id else None,
            mode=self.mode,
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )
        self._id = self._run.id

    def on_step(self, report: StepReport) -> None:
        if report.step % self.every == 0:
            speed = report.tokens / max(report.seconds, 1e-9)
            train = {"loss": report.loss, "lr": report.lr, "grad_norm": report.grad_norm, "tokens_per_s": speed}
            self._log({f"train/{name}": value for name, value in train.items()}, report.step, report.epoch)

    def on_eval(self, report: EvalReport) -> bool:
        self._log({f"validation/{name}": value for name, value in report.scores.items()}, report.step, report.epoch)
        return False

    def _log(self, values: dict[str, float], step: int, epoch: float) -> None:
        self._run.log({**values, "epoch": epoch}, step=step)

    def on_end(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None

    def state(self) -> dict[str, Any]:
        """The name of the run at the service, so that a resumed run continues it."""
        return {"id": self._id}

    def restore(self, state: dict[str, Any]) -> None:
        """Before `on_start`, to go on with the same run."""
        self._id = state["id"]


def _library() -> Any:
    try:
        return importlib.import_module("wandb")
    except ModuleNotFoundError as error:
        if error.name != "wandb":
            raise
        raise MissingExtra("wandb", "wandb") from error
