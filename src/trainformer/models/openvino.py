"""A model as a graph of OpenVINO: what `export --to openvino` and `compress --backend openvino` write."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from pydantic import Field
from torch import Tensor

from trainformer.core.errors import UserError
from trainformer.core.roles import Method, Model, Task
from trainformer.models.onnx import CONFIG, Onnx
from trainformer.models.whole import Whole, whole_model
from trainformer.runtime.ir import GRAPH, WEIGHTS, Session


class Openvino(Onnx):
    """A graph run by OpenVINO on a CPU: it answers and is scored, and cannot be trained."""

    group: int = Field(0, ge=0)
    """Columns of an input of integer weights that share a scale while it runs; 0: inputs are not rounded."""
    bfloat16: bool = False
    """What is no product of integers is computed in bfloat16 where the processor has it, else in float32."""

    def _refuse(self) -> NoReturn:
        what = "a graph of OpenVINO cannot be trained."
        raise UserError(what, where="model.kind", fix="Train from the bundle that it was made of, or from another encoder.")

    def save(self, model: Model, folder: Path, task: Task) -> None:
        """Copies the graph that the model runs, and the library's description of the encoder that it was made of."""
        assert isinstance(model.body, Whole) and isinstance(model.body.ask, Asked)
        for name in (GRAPH, WEIGHTS, CONFIG):
            shutil.copyfile(model.body.ask.session.path.with_name(name), folder / name)

    def open(self, folder: Path, task: Task, stays: Sequence[Method] = (), weights: dict[str, Tensor] | None = None) -> Model:
        """The model of a bundle. Raises UserError for a graph that is none that a bundle holds."""
        return whole_model(Asked(Session(folder / GRAPH, torch.get_num_threads(), self.group, self.bfloat16)), self.pad, task)


class Asked:
    """A graph that takes and gives tensors."""

    def __init__(self, session: Session):
        self.session = session

    def __call__(self, given: dict[str, Tensor]) -> Tensor:
        """Outputs "S C" of padded sequences."""
        return torch.from_numpy(self.session.run({name: array.numpy() for name, array in given.items()}))
