"""A model as an ONNX graph, run by ONNX Runtime: what `export --to onnx` and `compress --to int8` write."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from pydantic import Field
from torch import Tensor

from trainformer.core.errors import UserError
from trainformer.core.roles import Backbone, Method, Model, Task
from trainformer.models.whole import Whole, whole_model
from trainformer.runtime import session
from trainformer.runtime.session import GRAPH as GRAPH

CONFIG = "config.json"


class Onnx(Backbone):
    """An ONNX graph run by ONNX Runtime: it answers and is scored, and cannot be trained."""

    name: str | None = None
    """Folder of a bundle; there is no other way to come by one."""
    pad: int = Field(0, ge=0)
    """The token that fills up shorter sequences, as the encoder counts it."""

    def resolve(self) -> tuple["Onnx", list[str]]:
        self._refuse()

    def limit(self) -> int:
        self._refuse()

    def load(self, task: Task) -> tuple[Model, "Onnx", list[str]]:
        self._refuse()

    def _refuse(self) -> NoReturn:
        what = "an ONNX graph cannot be trained."
        raise UserError(what, where="model.kind", fix="Train from the bundle that it was made of, or from another encoder.")

    def save(self, model: Model, folder: Path, task: Task) -> None:
        """Copies the graph that the model runs, and the library's description of the encoder that it was made of."""
        assert isinstance(model.body, Whole) and isinstance(model.body.ask, Session)
        for name in (GRAPH, CONFIG):
            shutil.copyfile(model.body.ask.path.with_name(name), folder / name)

    def opens_in_library(self, model: Model) -> bool:
        return False

    def open(self, folder: Path, task: Task, stays: Sequence[Method] = (), weights: dict[str, Tensor] | None = None) -> Model:
        """The model of a bundle. Raises UserError for a graph that reads other files, or is none that a bundle holds."""
        return whole_model(Session(folder / GRAPH), self.pad, task)


class Session(session.Session):
    """A graph that is ready to run, on as many threads as torch has."""

    def __init__(self, path: Path):
        super().__init__(path, torch.get_num_threads())

    def __call__(self, given: dict[str, Tensor]) -> Tensor:
        """Outputs "S C" of padded sequences."""
        return torch.from_numpy(self.run({name: given[name].numpy() for name in self.inputs}))
