"""Weights of a graph as 8-bit integers: linear layers by output column, word embeddings by row; activations while it runs."""

from pathlib import Path
from typing import Any

from trainformer.core.errors import MissingExtra

LEAST_ROWS = 1024
"""Tables of fewer rows stay float32: they are small, and token types and positions are added to every token."""
MOST = 127.0


def quantise(path: Path) -> None:
    """Makes a float32 graph an int8 one, in its place.

    Products become MatMulInteger: weights are rounded once, symmetrically, with a scale for each output column; activations
    are rounded while it runs, with a scale for each call ("dynamic", Jacob et al. 2018, arXiv:1712.05877).
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ModuleNotFoundError as error:
        raise MissingExtra("onnxruntime", "onnx") from error
    folded, tables = path.with_name("folded.onnx"), path.with_name("tables.onnx")
    _fold(path, folded)
    proto = onnx.load_model(str(folded))
    _tables(proto, onnx)
    onnx.helper.set_model_props(proto, {"onnx.quant.pre_process": "onnxruntime.quant"})  # else it asks, loudly, for the folding
    onnx.save_model(proto, str(tables))
    head = [f"{n.name}_MatMul" for n in proto.graph.node if n.op_type == "Gemm"]  # by the name that they get on the way
    how = {"per_channel": True, "weight_type": QuantType.QInt8, "nodes_to_exclude": head}
    quantize_dynamic(tables, path, op_types_to_quantize=["MatMul"], **how)
    for left in (folded, tables):
        left.unlink()


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
    for name in {n.input[0] for n in taking}:
        used = any(name in n.input for n in nodes)
        _add_rows(graph, large[name], onnx, keep=used)
    del graph.node[:]
    graph.node.extend(nodes)


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


def _add_rows(graph: Any, table: Any, onnx: Any, keep: bool) -> None:
    """The integers "V D" and scales "V 1" of a table "V D": value = integer x scale of its row."""
    values = onnx.numpy_helper.to_array(table)
    scale = abs(values).max(axis=1, keepdims=True) / MOST
    scale[scale == 0] = 1.0
    whole = (values / scale).round().astype("int8")
    for name, array in ((f"{table.name}_int8", whole), (f"{table.name}_scale", scale.astype("float32"))):
        graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    if not keep:
        graph.initializer.remove(table)
