"""A graph of OpenVINO (IR) that is looked at before it is read, and run on a CPU: padded arrays in, outputs out."""

import functools
import math
import re
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from trainformer.core.errors import MissingExtra, UserError

GRAPH, WEIGHTS = "openvino_model.xml", "openvino_model.bin"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What a graph may ask for, int64 "S L" each; its one output is float32 "S C"."""
TAGS = {"net", "layers", "layer", "data", "input", "output", "port", "dim", "edges", "edge"}
"""What the description of a graph of operators is made of: no bodies that run in loops, no notes for the reader."""
STATES = {"Assign", "ReadValue"}
"""Operators that remember a request until the next one."""
ANEW = "Write it anew: trainformer export --to openvino"
TELEMETRY = "openvino_telemetry"
_making = threading.Lock()


class Session:
    """A graph that is ready to run, on so many threads."""

    def __init__(self, path: Path, threads: int, group: int = 0, halves: bool = False):
        """`group`: so many columns of an input share a scale where weights are integers; 0: it is not rounded.

        `halves`: what is float32 is computed in bfloat16 where the processor has it. Raises UserError for what is no graph of a
        bundle, MissingExtra where there is no OpenVINO.
        """
        openvino, own = library(), core()
        self.path = path
        weights = path.with_name(WEIGHTS)
        self.bytes = path.stat().st_size + weights.stat().st_size
        described = checked(path, weights)
        try:
            # Both from memory: no name of a file, in whatever form it may be written, is there to be followed.
            model = own.read_model(described, openvino.tensor_from_file(str(weights)))
            compiled = own.compile_model(model, "CPU", settings(threads, group, halves))
        except Exception as error:  # the library raises RuntimeError, and pybind what it likes
            raise UserError(f"OpenVINO cannot read it: {first_line(error)}", where=str(path), fix=ANEW) from error
        self.inputs = [each.get_any_name() if each.get_names() else "?" for each in compiled.inputs]
        if not set(self.inputs) <= set(INPUTS) or len(compiled.outputs) != 1:
            what = f"it asks for {', '.join(self.inputs):.200} and gives {len(compiled.outputs)} outputs."
            raise UserError(what, where=str(path), fix=f"A bundle's graph reads {', '.join(INPUTS)} and gives one output.")
        self.request, self.lock = compiled.create_infer_request(), threading.Lock()

    def run(self, given: Mapping[str, Any]) -> Any:
        """Outputs "S C", float32, of padded sequences "S L", int64, all arrays; one batch at a time, on all threads."""
        with self.lock:
            self.request.infer({name: given[name] for name in self.inputs}, share_inputs=True)
            return self.request.get_output_tensor(0).data.copy()


def settings(threads: int, group: int, halves: bool) -> dict[str, str]:
    """How a graph is compiled: each batch runs on all threads as soon as it is there."""
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if halves else "f32",  # unsaid, it would be the former where there is that
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(group),
        "ENABLE_CPU_PINNING": "NO",  # several processes would be pinned to the same cores
    }


def library() -> Any:
    """OpenVINO. Raises MissingExtra where it is not installed."""
    modules: Any = sys.modules
    silent = TELEMETRY not in modules
    if silent:
        modules[TELEMETRY] = None  # else OpenVINO, when it is imported, would report to its makers over the network
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtra("openvino", "openvino") from error
    finally:
        if silent:
            del modules[TELEMETRY]
    return openvino


def core() -> Any:
    """The one of this process, which is never given up. Raises MissingExtra.

    Each loads a plugin that puts a stack for signals of its own into the thread, and frees it at its end even if another one has
    taken it over by then: after two had gone, the older first, Ctrl-C ended the process with a fault of the memory.
    """
    with _making:  # two threads would make two
        return _core()


@functools.cache
def _core() -> Any:
    return library().Core()


def checked(path: Path, weights: Path) -> str:
    """The description of a graph, written anew of what was understood of it.

    Raises UserError for what is none, and for operators that are not OpenVINO's own, that keep what they were told, or whose
    numbers do not lie in the file of the weights.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_Builder()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # broken, another encoding that is none
        raise UserError(f"it is no graph of OpenVINO: {first_line(error)}.", where=str(path), fix=ANEW) from error
    size = weights.stat().st_size
    for each in root.iter():
        wrong = _wrong(each, size)
        if wrong:
            raise UserError(wrong, where=str(path), fix=ANEW)
    return ElementTree.tostring(root, encoding="unicode")


class _Builder(ElementTree.TreeBuilder):
    """Refuses a document type, which may define entities: short names for long texts or for files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it has a document type")


def _wrong(each: ElementTree.Element, size: int) -> str:
    """What is wrong with an element, in words; nothing: all is well."""
    name = str(each.get("name"))
    if each.tag not in TAGS:
        return f"there is a <{each.tag:.60}> in it, which is no part of a plain graph."
    if each.tag != "layer":
        return ""
    kind, version = str(each.get("type")), str(each.get("version"))
    if not re.fullmatch(r"opset\d{1,2}", version):
        return f"the operator '{kind:.60}' ({name:.60}) is of '{version:.60}', which is not OpenVINO's own."
    if kind in STATES:
        return f"the operator '{kind}' ({name:.60}) keeps what it is told, and tells it to others."
    return _wrong_constant(each, name, size) if kind == "Const" else ""


def _wrong_constant(each: ElementTree.Element, name: str, size: int) -> str:
    data = each.find("data")
    found = dict(data.attrib) if data is not None else {}
    start, length = (int(found[key]) if found.get(key, "").isdecimal() else math.inf for key in ("offset", "size"))
    if set(found) != {"element_type", "shape", "offset", "size"} or start + length > size:
        return f"the numbers of '{name:.60}' do not lie in {WEIGHTS}."
    return ""


def first_line(error: Exception) -> str:
    """The line of an error that says something, short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{(lines or [type(error).__name__])[-1]:.200}"
