"""Graphs of OpenVINO that were made to do harm: other files, other operators, memory, broken descriptions. All are refused."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainformer.core.errors import UserError
from trainformer.core.files import write_manifest
from trainformer.runtime.ir import GRAPH, WEIGHTS

pytest.importorskip("openvino", reason="no openvino here: pip install 'trainformer[openvino]'")
pytest.importorskip("onnxscript", reason="no onnxscript here: pip install 'trainformer[onnx]'")


@pytest.fixture
def graph(exported: Callable[[str], Path]) -> Path:
    """A bundle with a graph, to do harm to."""
    return exported("openvino")


def changed(graph: Path, change: Callable[[str], str]) -> None:
    """Another description, and a manifest that is in order."""
    before = (graph / GRAPH).read_text(encoding="utf-8")
    after = change(before)
    assert after != before
    (graph / GRAPH).write_text(after, encoding="utf-8")
    write_manifest(graph)


def put(old: str, new: str) -> Callable[[str], str]:
    """The first OLD becomes NEW."""

    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


ENTITIES = '<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><net name="&b;"'
FILE = '<!DOCTYPE net [<!ENTITY x SYSTEM "file:///etc/passwd">]><net name="&x;"'
CASES = {
    "another operator": (put('type="MatMul" version="opset1"', 'type="Exfiltrate" version="opset1"'), "OpenVINO cannot read it"),
    "an extension": (
        put('type="MatMul" version="opset1"', 'type="MatMul" version="evil"'),
        "is of 'evil', which is not OpenVINO's",
    ),
    "no version": (put('type="MatMul" version="opset1"', 'type="MatMul"'), "is of 'None'"),
    "a state": (put('type="MatMul" version="opset1"', 'type="ReadValue" version="opset6"'), "keeps what it is told"),
    "a body": (put("<edges>", "<body><layers /></body><edges>"), "there is a <body> in it"),
    "a note": (put("<edges>", '<rt_info><weights_path value="/etc/passwd" /></rt_info><edges>'), "there is a <rt_info> in it"),
    "another file": (put("<data element_type=", '<data location="/etc/passwd" element_type='), f"do not lie in {WEIGHTS}"),
    "beyond the end": (put(' offset="', ' offset="99999999999'), f"do not lie in {WEIGHTS}"),
    "before the beginning": (put(' offset="', ' offset="-'), f"do not lie in {WEIGHTS}"),
    "no number": (put(' offset="', ' offset="0x'), f"do not lie in {WEIGHTS}"),
    "too large a shape": (put(' shape="1504, 32"', ' shape="1504000000, 32000"'), "OpenVINO cannot read it"),
    "entities": (put("<net name=", f"{ENTITIES} name2="), "it has a document type"),
    "an outer entity": (put("<net name=", f"{FILE} name2="), "it has a document type"),
    "half of it": (lambda text: text[: len(text) // 2], "it is no graph of OpenVINO"),
    "nothing": (lambda _: "", "it is no graph of OpenVINO"),
    "another page": (lambda _: "<html></html>", "there is a <html> in it"),
    "no layers": (lambda _: '<net name="x" version="11"></net>', "openvino_model.xml"),
    "ONNX": (lambda _: "\x08\x08\x12\x07pytorch", "it is no graph of OpenVINO"),
    "other inputs": (lambda text: text.replace('names="input_ids"', 'names="pixels"'), "it asks for .*pixels"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_harm_is_refused(case: str, graph: Path, open_it: Any) -> None:
    change, said = CASES[case]
    changed(graph, change)
    with pytest.raises(UserError, match=said):
        open_it(graph)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-7"])
def test_another_encoding_hides_nothing(encoding: str, graph: Path, open_it: Any) -> None:
    text = (graph / GRAPH).read_text(encoding="utf-8").split("?>", 1)[1].lstrip()
    hidden = f'<?xml version="1.0" encoding="{encoding}"?>' + text.replace("<net name=", f"{FILE} name2=", 1)
    (graph / GRAPH).write_bytes(hidden.encode(encoding))
    write_manifest(graph)
    with pytest.raises(UserError, match="it is no graph of OpenVINO"):
        open_it(graph)


def test_a_file_that_is_missing_is_said(graph: Path, open_it: Any) -> None:
    for name in (WEIGHTS, GRAPH):
        (graph / name).unlink()
        write_manifest(graph)
        with pytest.raises(UserError, match=name.replace(".", r"\.")):
            open_it(graph)


@pytest.mark.parametrize("name", ["weights.bin", "sub/pytorch_model.bin", "OPENVINO_MODEL.BIN"])
def test_other_files_of_that_kind_are_pickles_still(name: str, graph: Path, open_it: Any) -> None:
    (graph / name).parent.mkdir(exist_ok=True)
    (graph / name).write_bytes(b"\x80\x04.")
    write_manifest(graph)
    with pytest.raises(UserError, match="it is a pickle"):
        open_it(graph)


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_changed_byte_is_refused(place: float, name: str, graph: Path, open_it: Any) -> None:
    data = bytearray((graph / name).read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    (graph / name).write_bytes(data)
    with pytest.raises(UserError, match=r"SHA-256 differs"):
        open_it(graph)


FUZZ = """
import random, sys
from pathlib import Path
from trainformer.core.errors import UserError
from trainformer.runtime.ir import GRAPH, Session
path, draw, refused = Path(sys.argv[1]) / GRAPH, random.Random(0), 0
whole = path.read_bytes()
values = [i for i in range(1, len(whole)) if whole[i - 1] == 34 and whole[i - 2] == 61]
for _ in range(int(sys.argv[2])):
    data, at = bytearray(whole), draw.choice(values)
    data[at] = draw.choice(b"09-,axz")
    path.write_bytes(data)
    try:
        Session(path, 1)
    except UserError:
        refused += 1
print(refused)
"""


@pytest.mark.slow
def test_wrong_values_end_in_a_refusal_or_in_a_graph(graph: Path) -> None:
    """In a process of its own: a library in C++ may end it."""
    done = subprocess.run([sys.executable, "-c", FUZZ, str(graph), "200"], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 50, "most values matter"
