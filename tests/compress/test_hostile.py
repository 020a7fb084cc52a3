"""Bundles that were made to do harm: graphs that read other files, links, names outside, changed bytes. All are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainformer.core.errors import UserError
from trainformer.core.files import MANIFEST, sha256, write_json, write_manifest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def graph(exported: Callable[[str], Path]) -> Path:
    """A bundle with a graph, to do harm to."""
    return exported("onnx")


def outside(tensor: Any, location: str) -> None:
    """Makes a tensor be read from another file."""
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "beside.data"])
@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
def test_weights_in_other_files_are_refused(location: str, where: str, graph: Path, open_it: Any) -> None:
    """Also where the file lies in the folder, and where the tensor hides in a node or in a branch; the manifest is in order."""
    proto = onnx.load(str(graph / "model.onnx"))
    tensor = onnx.numpy_helper.from_array(__import__("numpy").zeros(4, "float32"), "evil")
    outside(tensor, location)
    if where == "initializer":
        proto.graph.initializer.append(tensor)
    else:
        node = onnx.helper.make_node("Constant", [], ["evil"], value=tensor)
        if where == "branch":
            inner = onnx.helper.make_graph([node], "then", [], [onnx.helper.make_tensor_value_info("evil", 1, [4])])
            node = onnx.helper.make_node("If", ["flag"], ["out"], then_branch=inner, else_branch=inner)
        proto.graph.node.insert(0, node)
    (graph / "beside.data").write_bytes(bytes(16))
    (graph / "model.onnx").write_bytes(proto.SerializeToString())
    write_manifest(graph)
    with pytest.raises(UserError, match="are to be read from another file"):
        open_it(graph)


def test_what_is_no_graph_is_refused(graph: Path, open_it: Any) -> None:
    for data in (b"", b"no graph", b"\x80\x04K\x01."):
        (graph / "model.onnx").write_bytes(data)
        write_manifest(graph)
        with pytest.raises(UserError, match=r"model\.onnx"):
            open_it(graph)


def test_a_graph_of_other_inputs_is_refused(graph: Path, open_it: Any) -> None:
    make = onnx.helper
    given, found = (make.make_tensor_value_info(name, 1, ["a"]) for name in ("pixels", "y"))
    body = make.make_graph([make.make_node("Identity", ["pixels"], ["y"])], "g", [given], [found])
    model = make.make_model(body, opset_imports=[make.make_opsetid("", 18)], ir_version=8)
    (graph / "model.onnx").write_bytes(model.SerializeToString())
    write_manifest(graph)
    with pytest.raises(UserError, match="it asks for pixels and gives 1 outputs"):
        open_it(graph)


def test_an_operator_that_nobody_knows_is_refused(graph: Path, open_it: Any) -> None:
    proto = onnx.load(str(graph / "model.onnx"))
    proto.graph.node[0].op_type = "Exfiltrate"
    (graph / "model.onnx").write_bytes(proto.SerializeToString())
    write_manifest(graph)
    with pytest.raises(UserError, match="ONNX Runtime cannot read it"):
        open_it(graph)


def test_links_are_refused(graph: Path, open_it: Any, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes((graph / "model.onnx").read_bytes())
    (graph / "model.onnx").unlink()
    (graph / "model.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="symbolic link"):
        open_it(graph)


@pytest.mark.parametrize("name", ["../elsewhere", "/etc/hostname", "a/../../elsewhere"])
def test_names_outside_are_refused(name: str, graph: Path, open_it: Any, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x")
    listed = json.loads((graph / MANIFEST).read_text())
    write_json(graph / MANIFEST, {name: sha256(tmp_path / "elsewhere"), **listed})
    with pytest.raises(UserError, match="lies outside the folder"):
        open_it(graph)


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_changed_byte_is_refused(place: float, graph: Path, open_it: Any) -> None:
    data = bytearray((graph / "model.onnx").read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    (graph / "model.onnx").write_bytes(data)
    with pytest.raises(UserError, match=r"model\.onnx.*SHA-256 differs"):
        open_it(graph)
