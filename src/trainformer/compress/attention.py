"""Attention that a graph spells out -> one operator of ONNX Runtime, which reads no mask where no row of a batch is padded."""

from dataclasses import dataclass
from typing import Any

import numpy

from trainformer.compress.nodes import declare, needed, replace
from trainformer.compress.roundings import CONTRIB

MASK, MASK_WHOLE, UNPADDED = "attention_mask", "attention_mask_int32", "no_row_is_padded"
HIDDEN = -1e4
"""A score to which less than this is added is hidden."""
SPLIT, SPLIT_KEYS = [0, 2, 1, 3], [0, 2, 3, 1]
"""How states "S L H D" are turned for the products of each head."""


@dataclass(frozen=True)
class Attention:
    """softmax(scale x queries keys^T + mask) values, as a graph spells it out; names of its inputs "S L D" and output "S L D"."""

    inputs: list[str]
    heads: int
    scale: float
    mask: str
    output: str


class Graph:
    """Who gives and who reads each name."""

    def __init__(self, proto: Any, onnx: Any):
        self.proto, self.onnx = proto, onnx
        self.gives = {name: node for node in proto.graph.node for name in node.output}
        self.held = {tensor.name: tensor for tensor in proto.graph.initializer}
        self.reads: dict[str, list[Any]] = {}
        for node in proto.graph.node:
            for name in node.input:
                self.reads.setdefault(name, []).append(node)

    def before(self, name: str, kind: str) -> Any:
        """What gives a name. Raises LookupError where it is of another kind."""
        return self._of(self.gives.get(name), kind)

    def after(self, name: str, kind: str) -> Any:
        """What alone reads a name. Raises LookupError where others read it too, or it is of another kind."""
        found = self.reads.get(name, [])
        return self._of(found[0] if len(found) == 1 else None, kind)

    def constant(self, name: str) -> Any:
        """The values of a constant. Raises LookupError where it is computed."""
        return self.onnx.numpy_helper.to_array(self.held[name])

    def _of(self, node: Any, kind: str) -> Any:
        if node is None or node.op_type != kind:
            raise LookupError(kind)
        return node


def fuse(proto: Any, longest: int, onnx: Any) -> int:
    """One operator for each attention whose mask hides padding and nothing else, in place; how many there are.

    `longest`: tokens of the longest sequence that the model reads; what a mask hides is looked at in such a one.
    """
    graph = Graph(proto, onnx)
    found = [spelt for node in proto.graph.node if node.op_type == "Softmax" for spelt in _spelt_out(graph, node)]
    plain = {mask for mask in {each.mask for each in found} if _hides_padding_alone(proto, mask, longest, onnx)}
    fused = {each.output: each for each in found if each.mask in plain}
    if not fused:
        return 0
    nodes = _whether_padded(proto, onnx)
    for node in proto.graph.node:
        spelt = fused.get(node.output[0])
        nodes.append(_operator(spelt, onnx) if spelt else node)
    replace(proto.graph, needed(nodes, {each.name for each in proto.graph.output}))
    declare(proto, CONTRIB, onnx)
    return len(fused)


def _spelt_out(graph: Graph, softmax: Any) -> list[Attention]:
    """The attention that a softmax stands in; none where the graph has another form."""
    try:
        scores, mask = graph.before(softmax.input[0], "Add").input
        product, factor = graph.before(scores, "Mul").input
        queries, keys = graph.before(product, "MatMul").input
        mixed = graph.after(softmax.output[0], "MatMul")
        joined = graph.after(_turned(graph.after(mixed.output[0], "Transpose"), SPLIT).output[0], "Reshape")
        sides = [_heads(graph, *side) for side in ((queries, SPLIT), (keys, SPLIT_KEYS), (mixed.input[1], SPLIT))]
        scale = graph.constant(factor)
    except LookupError:
        return []
    if any(a.i not in (-1, 3) for a in softmax.attribute if a.name == "axis"):
        return []
    inputs, heads = [name for name, _ in sides], {count for _, count in sides}
    if scale.size != 1 or len(heads) != 1:
        return []
    return [Attention(inputs, heads.pop(), float(scale.reshape(())), mask, joined.output[0])]


def _heads(graph: Graph, name: str, order: list[int]) -> tuple[str, int]:
    """The states "S L D" that are cut into heads, and how many heads. Raises LookupError."""
    cut = graph.before(_turned(graph.before(name, "Transpose"), order).input[0], "Reshape")
    states, shape = cut.input
    last = shape if shape in graph.held else graph.before(shape, "Concat").input[-1]
    size = int(graph.constant(last)[-1])
    giver = graph.gives[states]
    width = [int(graph.held[each].dims[-1]) for each in giver.input if each in graph.held]
    if size < 1 or len(width) != 1 or width[0] % size:
        raise LookupError("width of the heads")
    return states, width[0] // size


def _turned(node: Any, order: list[int]) -> Any:
    if [list(a.ints) for a in node.attribute if a.name == "perm"] != [order]:
        raise LookupError("order of the axes")
    return node


def _hides_padding_alone(proto: Any, mask: str, longest: int, onnx: Any) -> bool:
    """Whether a mask adds 0 to what real tokens say to each other and hides padding: seen in two rows, one of them padded."""
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    replace(watched.graph, needed(list(watched.graph.node), {mask}))  # the mask alone: attention over the longest is large
    del watched.graph.output[:]
    watched.graph.output.append(onnx.helper.make_tensor_value_info(mask, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    real = numpy.ones((2, longest), dtype=numpy.int64)
    real[1, longest // 2 :] = 0
    given = {each.name: real if each.name == MASK else numpy.zeros_like(real) for each in session.get_inputs()}
    (added,) = session.run([mask], given)
    if added.ndim != 4 or added.shape[1] != 1:
        return False
    added = numpy.broadcast_to(added, (2, 1, longest, longest))
    sizes = real.sum(1).tolist()
    said = [(added[i, 0, :n, :n] == 0).all() and (added[i, 0, :n, n:] < HIDDEN).all() for i, n in enumerate(sizes)]
    return all(said)


def _whether_padded(proto: Any, onnx: Any) -> list[Any]:
    """Nodes that say whether all tokens of a batch are real, and the mask as the operator takes it, int32 "S L"."""
    make, kinds = onnx.helper.make_node, onnx.TensorProto
    proto.graph.initializer.append(onnx.helper.make_tensor("one_int32", kinds.INT32, [], [1]))
    return [
        make("Cast", [MASK], [MASK_WHOLE], to=kinds.INT32),
        make("ReduceMin", [MASK_WHOLE], [f"{MASK}_least"], keepdims=0),
        make("Equal", [f"{MASK}_least", "one_int32"], [UNPADDED]),
    ]


def _operator(spelt: Attention, onnx: Any) -> Any:
    """The operator without a mask, which keeps no scores in memory, where no row is padded; else the one with the mask."""

    def branch(name: str, *more: str) -> Any:
        words = {"num_heads": spelt.heads, "scale": spelt.scale, "mask_filter_value": float(numpy.finfo("float32").min)}
        out = f"{spelt.output}_{name}"
        node = onnx.helper.make_node("MultiHeadAttention", [*spelt.inputs, *more], [out], domain=CONTRIB, **words)
        return onnx.helper.make_graph([node], name, [], [onnx.helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, None)])

    branches = {"then_branch": branch("whole"), "else_branch": branch("padded", "", MASK_WHOLE)}
    return onnx.helper.make_node("If", [UNPADDED], [spelt.output], **branches)
