"""An ONNX graph -> OpenVINO's own form of it: two files, one that describes the operators and one with their numbers."""

from pathlib import Path
from xml.etree import ElementTree

from trainformer.core.errors import UserError
from trainformer.models.onnx import GRAPH
from trainformer.runtime import ir


def write_ir(folder: Path) -> None:
    """FOLDER/openvino_model.xml and .bin of FOLDER/model.onnx, which goes; numbers stay as they are, float32 or int8.

    Raises UserError where OpenVINO has no form of an operator.
    """
    openvino = ir.library()
    path = folder / ir.GRAPH
    try:
        model = ir.core().read_model(str(folder / GRAPH))
    except RuntimeError as error:
        what = f"OpenVINO has no form of this model: {ir.first_line(error)}"
        raise UserError(what, where="openvino", fix="Take ONNX Runtime.") from error
    openvino.save_model(model, str(path), compress_to_fp16=False)
    (folder / GRAPH).unlink()
    tree = ElementTree.parse(path)
    for each in list(tree.iter()):  # notes on where operators come from, with paths of this machine
        for note in each.findall("rt_info"):
            each.remove(note)
    tree.write(path, encoding="utf-8", xml_declaration=True)
