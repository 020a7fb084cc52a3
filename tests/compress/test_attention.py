"""Attention as one operator: equal outputs, with padding and without, and left alone where the mask hides more than padding."""

from collections.abc import Callable
from pathlib import Path

import numpy
import onnx
import onnxruntime
import pytest

from trainformer.bundle import Bundle
from trainformer.compress.attention import UNPADDED, fuse
from trainformer.compress.graph import write_graph
from trainformer.compress.int8 import _fold

FUSED = {"bert": 3, "roberta": 3, "distilbert": 3, "electra": 3, "albert": 3, "modernbert": 0, "mpnet": 0, "deberta-v2": 0}
"""ModernBERT turns queries and keys by their places first; MPNet and DeBERTa add how far apart two tokens are."""
LONGEST = 40


def outputs(proto: onnx.ModelProto, lengths: list[int]) -> numpy.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    mask = (numpy.arange(max(lengths)) < numpy.array(lengths)[:, None]).astype("int64")
    ids = numpy.random.default_rng(0).integers(10, 1400, mask.shape) * mask
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(mask)}
    found: numpy.ndarray = session.run(None, {each.name: given[each.name] for each in session.get_inputs()})[0]
    return found


RARER = ("distilbert", "electra", "albert", "mpnet")


@pytest.mark.parametrize("family", [pytest.param(f, marks=pytest.mark.slow if f in RARER else ()) for f in FUSED])
def test_fused_attention_gives_equal_outputs(family: str, make: Callable[..., Path], tmp_path: Path) -> None:
    write_graph(Bundle.open(make(family)), tmp_path)
    _fold(tmp_path / "model.onnx", tmp_path / "folded.onnx")
    spelt_out, fused = (onnx.load(tmp_path / "folded.onnx") for _ in range(2))
    assert fuse(fused, LONGEST, onnx) == FUSED[family]
    assert sum(node.op_type == "If" and node.input[0] == UNPADDED for node in fused.graph.node) == FUSED[family]
    assert sum(node.op_type == "Softmax" for node in fused.graph.node) == 3 - FUSED[family]
    for lengths in ([LONGEST] * 3, [LONGEST, 17, 1], [5]):
        numpy.testing.assert_allclose(outputs(fused, lengths), outputs(spelt_out, lengths), atol=1e-5)


@pytest.mark.parametrize("hidden", [0.0, -1e9])
def test_a_mask_that_hides_real_tokens_stays(hidden: float, make: Callable[..., Path], tmp_path: Path) -> None:
    write_graph(Bundle.open(make("bert")), tmp_path)
    proto = onnx.load(tmp_path / "model.onnx")
    far = numpy.abs(numpy.subtract.outer(range(LONGEST), range(LONGEST))) > 8
    proto.graph.initializer.append(onnx.numpy_helper.from_array(numpy.where(far, hidden, 0.0).astype("f4")[None, None], "far"))
    first = next(i for i, node in enumerate(proto.graph.node) if node.op_type == "Add" and _softmax_reads(proto, node))
    added = proto.graph.node[first].input[1]
    proto.graph.node[first].input[1] = "both"
    proto.graph.node.insert(first, onnx.helper.make_node("Add", [added, "far"], ["both"]))
    assert fuse(proto, LONGEST, onnx) == (3 if hidden == 0 else 2)


def test_a_softmax_of_another_axis_stays(make: Callable[..., Path], tmp_path: Path) -> None:
    write_graph(Bundle.open(make("bert")), tmp_path)
    proto = onnx.load(tmp_path / "model.onnx")
    axis = next(a for node in proto.graph.node if node.op_type == "Softmax" for a in node.attribute if a.name == "axis")
    axis.i = 2
    assert fuse(proto, LONGEST, onnx) == 2


def _softmax_reads(proto: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    return any(other.op_type == "Softmax" and other.input[0] == node.output[0] for other in proto.graph.node)


def test_what_nobody_reads_is_not_run(make: Callable[..., Path], tmp_path: Path) -> None:
    """ONNX Runtime runs a node whose outputs nobody reads: none is left behind."""
    write_graph(Bundle.open(make("bert")), tmp_path)
    proto = onnx.load(tmp_path / "model.onnx")
    fuse(proto, LONGEST, onnx)
    inner = [each for node in proto.graph.node for a in node.attribute for each in a.g.node]
    read = {name for node in [*proto.graph.node, *inner] for name in node.input} | {each.name for each in proto.graph.output}
    assert all(read.intersection(node.output) for node in proto.graph.node)
    assert {tensor.name for tensor in proto.graph.initializer} <= read
