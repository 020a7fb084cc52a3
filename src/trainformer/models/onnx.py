"""A model as an ONNX graph, run by ONNX Runtime: what `export --to onnx` and `compress --to int8` write."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from pydantic import Field
from torch import Tensor

from trainformer.core.errors import MissingExtra, UserError
from trainformer.core.roles import Backbone, Method, Model, Task
from trainformer.models.whole import Whole, whole_model

GRAPH, CONFIG = "model.onnx", "config.json"
SLOW = ["SkipLayerNormFusion"]
"""What ONNX Runtime fuses into an operator that takes four times as long on a CPU as those that it stands for."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What a graph may ask for, int64 "S L" each; its one output is float32 "S C"."""


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


class Session:
    """A graph that is ready to run, on as many threads as torch has."""

    def __init__(self, path: Path):
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise MissingExtra("onnxruntime", "onnx") from error
        refuse_other_files(path)
        self.path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.enable_mem_pattern = False  # it is for one shape; here each batch has another
        options.log_severity_level = 3
        try:
            self.session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW
            )
        except Exception as error:  # the library has no class that all of its errors share
            raise UserError(f"ONNX Runtime cannot read it: {str(error).splitlines()[0]:.200}", where=str(path)) from error
        self.inputs = [each.name for each in self.session.get_inputs()]
        if not set(self.inputs) <= set(INPUTS) or len(self.session.get_outputs()) != 1:
            what = f"it asks for {', '.join(self.inputs):.200} and gives {len(self.session.get_outputs())} outputs."
            raise UserError(what, where=str(path), fix=f"A bundle's graph reads {', '.join(INPUTS)} and gives one output.")

    def __call__(self, given: dict[str, Tensor]) -> Tensor:
        """Outputs "S C" of padded sequences."""
        (found,) = self.session.run(None, {name: given[name].numpy() for name in self.inputs})
        return torch.from_numpy(found)


def refuse_other_files(path: Path) -> None:
    """Raises UserError for what is no graph, and for one whose weights lie in other files: they may be any of the machine's."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtra("onnx", "onnx") from error
    try:
        proto = onnx.load_model(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own error, whose class depends on how it was built
        raise UserError("it is no ONNX graph.", where=str(path), fix="Write it anew: trainformer export --to onnx") from error
    for tensor in _tensors(proto, onnx.TensorProto):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
            what = f"the weights '{tensor.name:.60}' are to be read from another file, '{place:.80}'."
            raise UserError(what, where=str(path), fix="A bundle's graph holds all its weights itself.")


def _tensors(message: Any, kind: Any) -> Iterator[Any]:
    """Every tensor anywhere in a graph: initialisers, constants, those of branches and functions."""
    if isinstance(message, kind):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if hasattr(value, "ListFields") else value:
            yield from _tensors(inner, kind)
