"""Products of 8 bits: each token is rounded by itself, even columns, zeros stay zeros, and what loses most can stay float32."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainformer.bundle import Bundle
from trainformer.compress import gate, mixed, smaller
from trainformer.compress.smaller import Wanted
from trainformer.core.config import DataSettings
from trainformer.runtime.whole_sums import make_sums_whole

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
np = pytest.importorskip("numpy")

from trainformer.compress.products import column_sizes, groups, integers  # noqa: E402 (they stand below what they need)
from trainformer.compress.roundings import Fixed  # noqa: E402 (as above)
from trainformer.models.onnx import GRAPH  # noqa: E402 (as above)

TEXTS = ["w1 w2 w3", "w4", "w5 " * 60, "w6 w7 w8 w9 w1 w2 unknown", "w3 w2 w1"]


def chain(weight: Any, times: int) -> Any:
    """x -> x W -> x W W ..., the same weights each time, as in a model whose layers share them."""
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [make.make_node("MatMul", ["x" if i == 0 else f"y{i}", "w"], [f"y{i + 1}"], name=f"p{i}") for i in range(times)]
    ends = [make.make_tensor_value_info(name, kind, ["s", "l", len(weight)]) for name in ("x", f"y{times}")]
    mask = make.make_tensor_value_info("attention_mask", onnx.TensorProto.INT64, ["s", "l"])
    graph = make.make_graph(nodes, "g", [ends[0], mask], [ends[1]], [onnx.numpy_helper.from_array(weight, "w")])
    return make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10)


def run(proto: Any, given: dict[str, Any]) -> Any:
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    make_sums_whole(whole)
    session = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, given)[0]


def product(scales: Any, times: int = 1) -> tuple[Any, Any, dict[str, Any]]:
    """A graph, its integer form, and inputs of which each column has its own scale; one row is zero, one is padding."""
    draw = np.random.default_rng(0)
    proto = chain(draw.standard_normal((32, 32)).astype(np.float32) / 6, times)
    given = {"x": (draw.standard_normal((2, 8, 32)) * scales).astype(np.float32), "attention_mask": np.ones((2, 8), np.int64)}
    given["x"][0, 0] = 0
    given["attention_mask"][1, 7] = 0
    given["x"][1, 7] = 1e6
    small = onnx.ModelProto()
    small.CopyFrom(proto)
    sizes = column_sizes(proto, [{name: torch.from_numpy(array) for name, array in given.items()}], onnx)
    integers(small, sizes, groups(proto), onnx)
    return proto, small, given


def test_columns_of_unlike_size_are_evened_out_and_zeros_stay_zeros() -> None:
    scales = np.where(np.arange(32) == 5, 60.0, 1.0)
    proto, small, given = product(scales)
    right, found = run(proto, given), run(small, given)
    assert (found[0, 0] == 0).all() and np.isfinite(found).all()
    real = given["attention_mask"].astype(bool)
    real[0, 0] = False
    wrong = np.abs(found - right)[real].mean() / np.abs(right)[real].mean()
    flat = onnx.ModelProto()
    flat.CopyFrom(proto)
    weight = torch.tensor(onnx.numpy_helper.to_array(proto.graph.initializer[0]))
    integers(flat, {"x": weight.abs().amax(1)}, groups(flat), onnx)  # factors of 1: nothing is evened out
    plain = np.abs(run(flat, given) - right)[real].mean() / np.abs(right)[real].mean()
    assert wrong < 0.02 and plain > 1.5 * wrong


def test_rounding_a_row_does_not_hang_on_other_rows() -> None:
    _, small, given = product(np.ones(32))
    alone = run(small, {"x": given["x"][:1, 3:4], "attention_mask": given["attention_mask"][:1, 3:4]})
    assert (alone[0, 0] == run(small, given)[0, 3]).all(), "the row of 1e6 stands beside it and changes no bit"


def test_weights_that_layers_share_are_stored_once() -> None:
    proto, small, given = product(np.ones(32), times=3)
    assert [(sorted(g.sources), g.names) for g in groups(proto)] == [(["x", "y1", "y2"], ("p0", "p1", "p2"))]
    assert [n.op_type for n in small.graph.node].count("MatMulIntegerToFloat") == 3
    assert [t.name for t in small.graph.initializer if list(t.dims) == [32, 32]] == ["w_int8"]
    right, found = run(proto, given)[0, 1:], run(small, given)[0, 1:]
    assert np.abs(found - right).max() < 0.05 * np.abs(right).max()


def test_what_a_text_gets_does_not_hang_on_its_neighbours(make: Any, rows: Any, tmp_path: Path) -> None:
    folder = make("roberta")
    said: list[str] = []
    smaller.compress(folder, rows(folder), Wanted(to="int8", max_loss=100), tmp_path / "q", DataSettings(), said.append)
    small = Bundle.open(tmp_path / "q")
    alone = torch.cat([small.logits([text]) for text in TEXTS])
    torch.testing.assert_close(small.logits(TEXTS), alone, atol=5e-3 * float(alone.abs().max()), rtol=0)


def test_products_that_lose_most_stay_float32_until_the_gate_lets_it_pass(
    make: Any, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out, asked = make(), tmp_path / "q", list[float]()

    def lost(held: gate.Held, most: float) -> list[tuple[str, float, float, float]]:
        asked.append(most)
        return held.losses if len(asked) < 3 else []

    monkeypatch.setattr(gate, "lost", lost)
    said: list[str] = []
    report = smaller.compress(folder, rows(folder), Wanted(to="int8", max_loss=3), out, DataSettings(), said.append)
    proto = onnx.load(str(out / GRAPH))
    kinds = [n.op_type for n in proto.graph.node]
    (line,) = report["did"]
    kept = line.split("those that lose most: ")[1].split(", ")
    assert f"{len(kept)} of 18 linear layers stay float32" in line and line in said
    assert kinds.count("MatMulIntegerToFloat") == 18 - len(kept) and 2 <= len(kept) <= 6
    assert all(name.startswith("encoder.encoder.layer.") for name in kept)
    assert json.loads((out / "compress.json").read_text())["did"] == [line]


def test_what_stays_float32_is_what_helps(make: Any, rows: Any, tmp_path: Path) -> None:
    folder = make()
    bundle = Bundle.open(folder)
    examples = list(bundle.examples(rows(folder), None))
    right, _ = bundle.raw(examples)
    apart = [mixed._distance(form.raw(examples)[0], right) for _, form, _ in mixed.forms(bundle, examples, tmp_path, print)]
    assert len(apart) == 4, "12 groups: none, 1, 2 and 4 of them; 8 are more than half"
    assert apart[1] < apart[0] and apart[3] < apart[0]


def test_scales_can_be_fixed_by_the_rows() -> None:
    """Then nothing is measured while it runs: numbers that were seen come out nearly as before, larger ones are cut."""
    proto, _, given = product(np.where(np.arange(32) == 5, 60.0, 1.0))
    small = onnx.ModelProto()
    small.CopyFrom(proto)
    sizes = column_sizes(proto, [{name: torch.from_numpy(array) for name, array in given.items()}], onnx)
    integers(small, sizes, groups(proto), onnx, Fixed)
    assert [n.op_type for n in small.graph.node] == ["Mul", "QuantizeLinear", "MatMulIntegerToFloat"]
    right, found = run(proto, given), run(small, given)
    real = given["attention_mask"].astype(bool)
    assert (found[0, 0] == 0).all() and np.abs(found - right)[real].mean() < 0.03 * np.abs(right)[real].mean()
    assert np.abs(found[1, 7]).max() < 1e-2 * np.abs(right[1, 7]).max(), "a padding of 1e6 was not seen"


def test_static_is_a_bundle_behind_the_same_gate(make: Any, rows: Any, cli: Any, tmp_path: Path) -> None:
    folder, out = make(), tmp_path / "q"
    data = rows(folder)
    words = ["compress", folder, "--to", "int8", "--calibration", "static", "--data", data]
    done = cli(*words, "--max-loss", 100, "--out", out)
    assert done.code == 0 and "activations int8 with scales fixed by the rows" in done.err, done.err
    proto = onnx.load(str(out / GRAPH))
    kinds = [n.op_type for n in proto.graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 18 and kinds.count("QuantizeLinear") == 12
    before, after = Bundle.open(folder).logits(TEXTS), Bundle.open(out).logits(TEXTS)
    assert 0 < (after - before).square().mean() < 0.05 * before.square().mean()
    assert json.loads((out / "compress.json").read_text())["asked"]["calibration"] == "static"
    done = cli("compress", folder, "--calibration", "static", "--layers", 2, "--data", data, "--out", tmp_path / "x")
    assert done.code == 2 and "--calibration: it tells how products of 8 bits are made. Add --to int8." in done.err
