"""Curves for TensorBoard, in the folder of the run."""

from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from trainformer.core.errors import MissingExtra
from trainformer.core.roles import Callback, EvalReport, StepReport


class Tensorboard(Callback):
    """Write curves for TensorBoard: `tensorboard --logdir RUN` shows them."""

    every: int = Field(1, ge=1)
    """Steps between two points of the training curves."""

    _writer: Any = PrivateAttr(None)

    def on_start(self, facts: dict[str, Any]) -> None:
        """Opens `RUN/tensorboard`; a resumed run replaces the points that come after its checkpoint."""
        writer = _writer_class()
        self._writer = writer(str(Path(facts["run"]) / "tensorboard"), purge_step=facts["start"] + 1 if facts["start"] else None)

    def on_step(self, report: StepReport) -> None:
        if report.step % self.every:
            return
        self._writer.add_scalar("train/loss", report.loss, report.step)
        self._writer.add_scalar("train/lr", report.lr, report.step)
        self._writer.add_scalar("train/grad_norm", report.grad_norm, report.step)
        self._writer.add_scalar("train/tokens_per_s", report.tokens / max(report.seconds, 1e-9), report.step)

    def on_eval(self, report: EvalReport) -> bool:
        for name, score in report.scores.items():
            self._writer.add_scalar(f"validation/{name}", score, report.step)
        return False

    def on_end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "tensorboard":
            raise
        raise MissingExtra("tensorboard", "tensorboard") from error
    return SummaryWriter
