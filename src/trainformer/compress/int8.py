"""A float32 graph -> int8 graphs: linear layers by output column, word embeddings by row; for ONNX Runtime or OpenVINO."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trainformer.bundle import Bundle
from trainformer.compress.attention import fuse
from trainformer.compress.graph import through
from trainformer.compress.ir import write_ir
from trainformer.compress.nodes import replace
from trainformer.compress.products import Group, column_sizes, groups, integers
from trainformer.compress.roundings import CONTRIB, MOST, ByToken
from trainformer.core.errors import MissingExtra
from trainformer.core.roles import Backbone

LEAST_ROWS = 1024
"""Tables of fewer rows stay float32: they are small, and token types and positions are added to every token."""


class Quantiser:
    """A float32 graph at `path`, with what is known of its activations; writes int8 forms of it in its place."""

    def __init__(self, path: Path, given: Iterable[Mapping[str, Tensor]], longest: int, way: type[ByToken] = ByToken):
        """`given`: padded inputs "S L" whose activations tell how the columns of each product are evened out.

        `longest`: tokens of the longest sequence that the graph will read. `way` tells how activations are rounded, and by that
        which program the graph is for.
        """
        try:
            import onnx
            import onnxruntime  # noqa: F401 (said here that it is missing)
        except ModuleNotFoundError as error:
            raise MissingExtra("onnxruntime", "onnx") from error
        self.path, self.onnx, self.way = path, onnx, way
        folded = path.with_name("folded.onnx")
        _fold(path, folded)
        self.proto = onnx.load_model(str(folded))
        folded.unlink()
        if way.domain == CONTRIB:
            fuse(self.proto, longest, onnx)
        self.groups: list[Group] = groups(self.proto)
        self.columns = column_sizes(self.proto, given, onnx)
        widths = {len(self.columns[name]) for group in self.groups for name in group.sources}
        self.group = next((g for g in way.groups if all(width % g == 0 for width in widths)), 0)
        """Columns of an input that share a scale, where the program that runs it is told."""

    @property
    def told(self) -> str:
        """How activations are rounded, in words."""
        return self.way.told(self.group)

    def opened(self, bundle: Bundle) -> tuple[Backbone, Bundle]:
        """The backbone that opens what was written last, and the bundle's answers through it."""
        settings = {"group": self.group, "bfloat16": True} if self.way.backend == "openvino" else {}
        return through(bundle, self.path.parent, self.way.backend, **settings)

    def write(self, kept: Iterable[Group] = ()) -> None:
        """Writes the graph with integers everywhere but in the products of the groups `kept`, which stay float32."""
        proto, float32 = self.onnx.ModelProto(), list(kept)
        proto.CopyFrom(self.proto)
        integers(proto, self.columns, [g for g in self.groups if g not in float32], self.onnx, self.way)
        _tables(proto, self.onnx)
        self.onnx.save_model(proto, str(self.path))
        if self.way.backend == "openvino":
            write_ir(self.path.parent)


def _fold(source: Path, target: Path) -> None:
    """Transposed weights become weights: only those are found to be quantised."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _tables(proto: Any, onnx: Any) -> None:
    """Large tables that rows are taken from: int8 rows and a scale for each, multiplied after they are taken."""
    graph = proto.graph
    large = {t.name: t for t in graph.initializer if len(t.dims) == 2 and t.dims[0] >= LEAST_ROWS}
    taking = [n for n in graph.node if n.op_type == "Gather" and n.input[0] in large and _axis(n) == 0]
    nodes = []
    for node in graph.node:
        nodes += _scaled(node, onnx) if any(node is each for each in taking) else [node]
    replace(graph, nodes, [each for name in {n.input[0] for n in taking} for each in _rows(large[name], onnx)])


def _axis(node: Any) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "axis"), 0)


def _scaled(node: Any, onnx: Any) -> list[Any]:
    """Rows and their scales instead of the rows of a float table."""
    make, (table, rows), out = onnx.helper.make_node, node.input[:2], node.output[0]
    return [
        make("Gather", [f"{table}_int8", rows], [f"{out}_int8"], axis=0),
        make("Gather", [f"{table}_scale", rows], [f"{out}_scale"], axis=0),
        make("Cast", [f"{out}_int8"], [f"{out}_float"], to=onnx.TensorProto.FLOAT),
        make("Mul", [f"{out}_float", f"{out}_scale"], [out]),
    ]


def _rows(table: Any, onnx: Any) -> list[Any]:
    """The integers "V D" and scales "V 1" of a table "V D": value = integer x scale of its row."""
    values = onnx.numpy_helper.to_array(table)
    scale = abs(values).max(axis=1, keepdims=True) / MOST
    scale[scale == 0] = 1.0
    whole = (values / scale).round().astype("int8")
    named = ((f"{table.name}_int8", whole), (f"{table.name}_scale", scale.astype("float32")))
    return [onnx.numpy_helper.from_array(array, name) for name, array in named]
