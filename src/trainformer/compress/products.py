"""The products of a graph whose one side is weights, and how they become products of 8-bit integers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainformer.compress.nodes import declare, replace
from trainformer.compress.roundings import LEAST, ByToken, Parts

Columns = Mapping[str, Tensor]
"""By the name of a product's input: the largest absolute value "K" of each of its columns."""


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


def integers(proto: Any, columns: Columns, chosen: Iterable[Group], onnx: Any, way: type[ByToken] = ByToken) -> None:
    """Turns the products of the chosen groups into products of integers, in place; `way` tells how activations are rounded.

    Weights are rounded once, symmetrically, with a scale for each output column. Before that the columns of activations are
    divided by (largest activation)^alpha / (largest weight)^(1 - alpha) of each, and the rows of the weights multiplied by it:
    both become easier to round (SmoothQuant, Xiao et al. 2022, arXiv:2211.10438, formula 4).
    """
    held = {t.name: t for t in proto.graph.initializer}
    form = way(onnx.helper.make_node)
    theirs = {node.output[0] for node, _ in _products(proto)}
    nodes, tensors = list[Any](), form.constants()
    sources, weights = dict[str, Parts](), set[str]()
    for group in chosen:
        tables = {name: torch.tensor(onnx.numpy_helper.to_array(held[name])) for name in group.weights}
        seen = torch.stack([columns[s] for s in group.sources]).amax(0)
        factors = _smoothing(seen, list(tables.values()), form.alpha)
        top = (seen / factors).max().clamp(min=LEAST)
        sources |= {name: form.source(name, factors, top) for name in group.sources}
        for name, table in tables.items():
            added, found = form.weights(name, table * factors[:, None], top)
            nodes, tensors = nodes + added, tensors | found
        weights |= group.weights
    for node in proto.graph.node:
        if node.output[0] not in theirs or node.input[1] not in weights:
            nodes.append(node)
            continue
        source, weight = node.input
        if source in sources:  # once for all products that read it
            added, found = sources.pop(source)
            nodes, tensors = nodes + added, tensors | found
        nodes += form.product(source, weight, node.output[0])
    replace(proto.graph, nodes, (onnx.numpy_helper.from_array(array.numpy(), name) for name, array in tensors.items()))
    declare(proto, form.domain, onnx)


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


def _smoothing(columns: Tensor, weights: list[Tensor], alpha: float) -> Tensor:
    """What each column "K" of an input is divided by, where weights "K N" read it."""
    heavy = torch.stack([each.abs().amax(1) for each in weights]).amax(0)
    least = [1e-5 * max(float(each.max()), LEAST) for each in (columns, heavy)]
    divided: Tensor = columns.clamp(min=least[0]) ** alpha / heavy.clamp(min=least[1]) ** (1 - alpha)
    return divided
