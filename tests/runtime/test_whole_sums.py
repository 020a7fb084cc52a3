"""Products of 8 bits: the same numbers whether weights are signed or not, and whole sums whatever the processor does."""

from typing import Any

import pytest

from trainformer.runtime import whole_sums

onnx = pytest.importorskip("onnx", reason="no onnx here: pip install 'trainformer[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime here: pip install 'trainformer[onnx]'")
np = pytest.importorskip("numpy")

ROWS, DEPTH, COLUMNS = 9, 96, 40


def integers(largest: int) -> tuple[Any, Any]:
    """Inputs uint8 and weights int8 up to `largest`."""
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (ROWS, DEPTH), "uint8"), draw.integers(-largest, largest + 1, (DEPTH, COLUMNS), "int8")


def graph(weight: Any, times: int = 1, in_branch: bool = False) -> Any:
    """`times` products of x with the same weights, each around 128 of x, added up; in a branch that is always taken."""
    make, kinds, array = onnx.helper, onnx.TensorProto, onnx.numpy_helper.from_array
    held = [array(weight, "w"), array(np.zeros(COLUMNS, "int8"), "z"), array(np.ones(COLUMNS, "float32"), "s"),
            array(np.float32(1), "one"), array(np.uint8(128), "middle"), array(np.array(True), "yes")]  # fmt: skip
    read = ["x", "w", "one", "s", "middle", "z"]
    nodes = [make.make_node("MatMulIntegerToFloat", read, [f"p{i}"], domain="com.microsoft") for i in range(times)]
    nodes.append(make.make_node("Sum", [f"p{i}" for i in range(times)], ["out"]))
    out = make.make_tensor_value_info("out", kinds.FLOAT, None)
    if in_branch:
        given = make.make_tensor_value_info("y", kinds.FLOAT, None)
        other = [make.make_node("Cast", ["x"], ["n"], to=kinds.FLOAT)]
        taken = make.make_graph(nodes, "a", [], [out])
        left = make.make_graph(other, "b", [], [make.make_tensor_value_info("n", kinds.FLOAT, None)])
        nodes, out = [make.make_node("If", ["yes"], ["y"], then_branch=taken, else_branch=left)], given
    whole = make.make_graph(nodes, "g", [make.make_tensor_value_info("x", kinds.UINT8, [ROWS, DEPTH])], [out], held)
    sets = [make.make_opsetid("", 20), make.make_opsetid("com.microsoft", 1)]
    return make.make_model(whole, opset_imports=sets, ir_version=10)


def run(proto: Any, x: Any) -> Any:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("in_branch", [False, True])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("largest", [3, 127])
def test_unsigned_weights_give_the_exact_sums(largest: int, times: int, in_branch: bool, monkeypatch: Any) -> None:
    """Against NumPy with 64 bits, to the last bit: all sums are below 2^24."""
    monkeypatch.setattr(whole_sums, "cuts", lambda: True)
    x, weight = integers(largest)
    proto = graph(weight, times, in_branch)
    assert whole_sums.make_sums_whole(proto)
    assert {t.name for t in proto.graph.initializer} >= {"w_unsigned", "z_unsigned"}
    assert not {t.name for t in proto.graph.initializer} & {"w", "z"}, "they are not held twice"
    assert (run(proto, x) == times * ((x.astype("int64") - 128) @ weight)).all()


def test_a_graph_as_it_is_to_be_run_here_gives_the_exact_sums() -> None:
    x, weight = integers(127)
    proto = graph(weight)
    assert whole_sums.make_sums_whole(proto) == whole_sums.cuts()
    assert (run(proto, x) == (x.astype("int64") - 128) @ weight).all()


def test_what_is_not_ours_stays(monkeypatch: Any) -> None:
    """A graph without such products, and one whose products have no zero point of int8."""
    monkeypatch.setattr(whole_sums, "cuts", lambda: True)
    proto = graph(integers(127)[1])
    proto.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.zeros(COLUMNS, "uint8"), "z"))
    before = proto.SerializeToString()
    assert not whole_sums.make_sums_whole(proto) and proto.SerializeToString() == before
    short = graph(integers(127)[1])
    del short.graph.node[0].input[4:]
    assert not whole_sums.make_sums_whole(short)
