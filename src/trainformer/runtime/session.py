"""An ONNX graph that is ready to run: padded sequences in, outputs out, as NumPy arrays."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainformer.core.arrays import Array
from trainformer.core.errors import MissingExtra, UserError
from trainformer.runtime.whole_sums import make_sums_whole

GRAPH = "model.onnx"
SLOW = ["SkipLayerNormFusion"]
"""What ONNX Runtime fuses into an operator that takes four times as long on a CPU as those that it stands for."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What a graph may ask for, int64 "S L" each; its one output is float32 "S C"."""
MICRO_TOKENS = 1024
"""Tokens of a batch, padding counted: states of so many stay in the caches of a processor."""


class Session:
    """A graph of a bundle. Raises UserError for one that reads other files, or is none that a bundle holds."""

    def __init__(self, path: Path, threads: int):
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise MissingExtra("onnxruntime", "runtime") from error
        source = _source(path)
        self.path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_mem_pattern = False  # it is for one shape; here each batch has another
        options.log_severity_level = 3
        try:
            self.session: Any = onnxruntime.InferenceSession(
                source, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW
            )
        except Exception as error:  # the library has no class that all of its errors share
            raise UserError(f"ONNX Runtime cannot read it: {str(error).splitlines()[0]:.200}", where=str(path)) from error
        self.inputs = [each.name for each in self.session.get_inputs()]
        if not set(self.inputs) <= set(INPUTS) or len(self.session.get_outputs()) != 1:
            what = f"it asks for {', '.join(self.inputs):.200} and gives {len(self.session.get_outputs())} outputs."
            raise UserError(what, where=str(path), fix=f"A bundle's graph reads {', '.join(INPUTS)} and gives one output.")

    def run(self, given: Mapping[str, Array]) -> Array:
        """Outputs "S C" of padded sequences."""
        found: Array
        (found,) = self.session.run(None, {name: given[name] for name in self.inputs})
        return found


def cores() -> int:
    """Threads that a graph is run on unless told: OMP_NUM_THREADS, else one for each core that this process may use."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdigit() and int(told):
        return int(told)
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    places = [Path(f"/sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list") for i in allowed]
    return len({place.read_text() for place in places}) if all(p.is_file() for p in places) else len(allowed)


def _source(path: Path) -> str | bytes:
    """What ONNX Runtime reads: the file or, where it is to be otherwise on this machine, a graph. Raises UserError."""
    proto = _graph(path)
    return proto.SerializeToString() if make_sums_whole(proto) else str(path)


def _graph(path: Path) -> Any:
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
    return proto


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
