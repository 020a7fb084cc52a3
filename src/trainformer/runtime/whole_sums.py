"""Products of 8 bits whose sums are whole on every processor: where an instruction would cut them, the weights are unsigned.

On x86 without VNNI, ONNX Runtime multiplies uint8 by int8 with `vpmaddubsw`, which cuts the sum of two products to 16 bits: the
answers of such a model hang on the machine. Of uint8 by uint8 it makes whole sums there. Its own switch for that,
`session.x64quantprecision`, cannot open a graph in which layers share weights.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

PRODUCT, WEIGHT, ZERO = "MatMulIntegerToFloat", 1, 5
"""The operator of all products of 8 bits in our graphs, and which of its inputs hold the weight and its zero point."""
CENTRE = 128


def make_sums_whole(proto: Any) -> bool:
    """Turns int8 weights around 0 into uint8 around 128 if this processor cuts sums; whether anything was turned."""
    import onnx

    held = {t.name: t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.INT8}
    inner = list(_nodes(proto.graph))
    products = [node for node in inner if node.op_type == PRODUCT and len(node.input) > ZERO]
    products = [node for node in products if node.input[WEIGHT] in held and node.input[ZERO] in held]
    if not products or not cuts():
        return False
    moved = {node.input[place] for node in products for place in (WEIGHT, ZERO)}
    for name in moved:
        numbers = onnx.numpy_helper.to_array(held[name]).view("uint8") ^ CENTRE
        proto.graph.initializer.append(onnx.numpy_helper.from_array(numbers, f"{name}_unsigned"))
    for node in products:
        for place in (WEIGHT, ZERO):
            node.input[place] += "_unsigned"
    for name in moved.difference(*(node.input for node in inner)):
        proto.graph.initializer.remove(held[name])
    return True


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of branches too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


@cache
def cuts() -> bool:
    """Whether ONNX Runtime loses here what does not fit 16 bits: a product whose result is known is asked for."""
    import numpy
    import onnx
    import onnxruntime

    rows, depth, columns = 8, 64, 32
    make, kinds = onnx.helper, onnx.TensorProto
    weight = onnx.numpy_helper.from_array(numpy.full((depth, columns), 127, "int8"), "w")
    ends = [make.make_tensor_value_info("x", kinds.UINT8, [rows, depth]), make.make_tensor_value_info("y", kinds.INT32, None)]
    graph = make.make_graph([make.make_node("MatMulInteger", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    asked = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10).SerializeToString()
    session = onnxruntime.InferenceSession(asked, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": numpy.full((rows, depth), 255, "uint8")})
    return bool((found != depth * 255 * 127).any())
