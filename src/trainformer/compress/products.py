"""The products of a graph whose one side is weights, and how they become products of 8-bit integers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainformer.compress.attention import CONTRIB, own_operators

Columns = Mapping[str, Tensor]
"""By the name of a product's input: the largest absolute value "K" of each of its columns."""
MOST = 127.0
LEAST = 1e-30
"""Stands in for the largest value of a row or column that holds nothing but zeros."""


@dataclass(frozen=True)
class Group:
    """Products that read the same states, as query, key and value of a layer do, or the same weights: they go together."""

    sources: frozenset[str]
    weights: frozenset[str]
    names: tuple[str, ...]
    """What the model calls the layers: the names of their biases, else of their nodes."""


def groups(proto: Any) -> list[Group]:
    """The products of a graph, in its order; one that reads the states or the weights of others is of their group."""
    found: list[Group] = []
    for node, name in _products(proto):
        source, weight = node.input
        near = [g for g in found if source in g.sources or weight in g.weights]
        whole = Group(
            frozenset({source}).union(*(g.sources for g in near)),
            frozenset({weight}).union(*(g.weights for g in near)),
            tuple(dict.fromkeys([n for g in near for n in g.names] + [name])),
        )
        found = [g for g in found if g not in near] + [whole]
    return found


def column_sizes(proto: Any, given: Iterable[Mapping[str, Tensor]], onnx: Any) -> Columns:
    """Runs the float32 graph on padded inputs; the largest absolute value of each column of each product's input.

    What stands at padding does not count.
    """
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    names = sorted({name for group in groups(proto) for name in group.sources})
    for name in names:
        watched.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = [each.name for each in session.get_inputs()]
    sizes: dict[str, Tensor] = {}
    for one in given:
        real = one["attention_mask"].bool()
        for name, array in zip(names, session.run(names, {key: one[key].numpy() for key in inputs}), strict=True):
            states = torch.from_numpy(array)
            whole = states[real] if states.shape[:-1] == real.shape else states.reshape(-1, states.shape[-1])
            largest = whole.abs().amax(0)
            sizes[name] = torch.maximum(sizes[name], largest) if name in sizes else largest
    return sizes


def integers(proto: Any, columns: Columns, chosen: Iterable[Group], onnx: Any) -> None:
    """Turns the products of the chosen groups into products of integers, in place.

    Weights are rounded once, symmetrically, with a scale for each output column. Activations are rounded while it runs, with
    a scale for each row, which is a token: no token's rounding hangs on what stands beside it. Before that the columns of
    activations are divided by sqrt(largest activation / largest weight) of each, and the rows of the weights multiplied by
    it: both become easier to round (SmoothQuant, Xiao et al. 2022, arXiv:2211.10438, formula 4 with alpha 0.5).
    """
    held = {t.name: t for t in proto.graph.initializer}
    weights, smooth = dict[str, Tensor](), dict[str, Tensor]()
    for group in chosen:
        tables = {name: torch.tensor(onnx.numpy_helper.to_array(held[name])) for name in group.weights}
        factors = _smoothing(torch.stack([columns[s] for s in group.sources]).amax(0), list(tables.values()))
        smooth |= dict.fromkeys(group.sources, factors)
        weights |= {name: table * factors[:, None] for name, table in tables.items()}
    theirs = {node.output[0] for node, _ in _products(proto) if node.input[1] in weights}
    nodes, tensors, ready = list[Any](), _constants(), set[str]()
    for name, weight in weights.items():
        tensors |= _integer_weights(name, weight)
    for node in proto.graph.node:
        if node.output[0] not in theirs:
            nodes.append(node)
            continue
        source = node.input[0]
        if source not in ready:
            tensors[f"{source}_smooth"] = 1 / smooth[source]
            nodes += _rounded(source, onnx)
            ready.add(source)
        nodes += _product(node, onnx)
    _replace(proto, nodes, tensors, set(weights), onnx)


def _products(proto: Any) -> Iterator[tuple[Any, str]]:
    """Each product of states with weights that the graph holds, and what the model calls it."""
    held = {t.name for t in proto.graph.initializer if len(t.dims) == 2}
    reading: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            reading.setdefault(name, []).append(node)
    every = {t.name for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "MatMul" and node.input[1] in held and node.input[0] not in every:
            added = [n for after in reading.get(node.output[0], []) if after.op_type == "Add" for n in after.input if n in every]
            yield node, added[0].removesuffix(".bias") if added else node.name


def _smoothing(columns: Tensor, weights: list[Tensor]) -> Tensor:
    """What each column "K" of an input is divided by, where weights "K N" read it."""
    heavy = torch.stack([each.abs().amax(1) for each in weights]).amax(0)
    least = [1e-5 * max(float(each.max()), LEAST) for each in (columns, heavy)]
    return (columns.clamp(min=least[0]) / heavy.clamp(min=least[1])).sqrt()


def _constants() -> dict[str, Tensor]:
    """What all roundings share."""
    return {"last_axis": torch.tensor([-1]), "least_row": torch.tensor(LEAST), "all_rows": torch.tensor([-1]),
            "row_step": torch.tensor(1 / MOST), "row_zero": torch.tensor(128, dtype=torch.uint8),
            "one_zero": torch.tensor([128], dtype=torch.uint8)}  # fmt: skip


def _rounded(source: str, onnx: Any) -> list[Any]:
    """SOURCE_int8 "... K" and the largest value of each row, SOURCE_row "... 1": value = (integer - 128) / 127 x largest.

    Rows are rounded by one operator that takes a step for each: fewer passes over the states than to divide them before.
    """
    make = onnx.helper.make_node
    return [
        make("Mul", [source, f"{source}_smooth"], [f"{source}_even"]),
        make("ReduceMax", [f"{source}_even", "last_axis"], [f"{source}_top"], keepdims=1),
        make("ReduceMin", [f"{source}_even", "last_axis"], [f"{source}_bottom"], keepdims=1),
        make("Neg", [f"{source}_bottom"], [f"{source}_depth"]),
        make("Max", [f"{source}_top", f"{source}_depth", "least_row"], [f"{source}_row"]),
        make("Mul", [f"{source}_row", "row_step"], [f"{source}_step"]),
        make("Reshape", [f"{source}_step", "all_rows"], [f"{source}_steps"]),
        make("Shape", [f"{source}_steps"], [f"{source}_count"]),
        make("Expand", ["one_zero", f"{source}_count"], [f"{source}_zeros"]),
        make("Flatten", [f"{source}_even"], [f"{source}_rows"], axis=-1),
        make("QuantizeLinear", [f"{source}_rows", f"{source}_steps", f"{source}_zeros"], [f"{source}_rounded"], axis=0),
        make("Shape", [source], [f"{source}_shape"]),
        make("Reshape", [f"{source}_rounded", f"{source}_shape"], [f"{source}_int8"]),
    ]


def _integer_weights(name: str, weight: Tensor) -> dict[str, Tensor]:
    """Weights "K N" as integers, and scales "N": value = integer x scale of its column."""
    scale = weight.abs().amax(0).clamp(min=LEAST) / MOST
    return {
        f"{name}_int8": (weight / scale).round().to(torch.int8),
        f"{name}_scale": scale,
        f"{name}_zero": torch.zeros(weight.shape[1], dtype=torch.int8),
    }


def _product(node: Any, onnx: Any) -> list[Any]:
    """The product of rounded rows with integer weights, multiplied by the largest value of each row."""
    source, name, out = node.input[0], node.input[1], node.output[0]
    read = [f"{source}_int8", f"{name}_int8", "row_step", f"{name}_scale", "row_zero", f"{name}_zero"]
    return [
        onnx.helper.make_node("MatMulIntegerToFloat", read, [f"{out}_product"], domain=CONTRIB),
        onnx.helper.make_node("Mul", [f"{out}_product", f"{source}_row"], [out]),
    ]


def _replace(proto: Any, nodes: list[Any], tensors: dict[str, Tensor], weights: set[str], onnx: Any) -> None:
    """Puts in the new nodes and tensors, takes out the weights that nobody reads any more."""
    graph = proto.graph
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for tensor in [t for t in graph.initializer if t.name in weights and t.name not in used]:
        graph.initializer.remove(tensor)
    graph.initializer.extend(onnx.numpy_helper.from_array(array.numpy(), name) for name, array in tensors.items())
    own_operators(proto, onnx)
