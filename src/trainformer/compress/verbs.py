"""The verbs of the command line that make other forms of a bundle. What a verb needs is imported inside it."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

BundleDir = Annotated[Path, typer.Argument(help="folder of a bundle", metavar="BUNDLE")]
Out = Annotated[Path, typer.Option(help="folder to write; it must not exist")]
Text = Annotated[str | None, typer.Option(help="column of the text")]
TextB = Annotated[str | None, typer.Option("--text-b", help="column of the second text of a pair")]
Label = Annotated[str | None, typer.Option(help="column of the label or number")]


def compress(
    bundle: BundleDir,
    data: Annotated[str, typer.Option(help="validation rows: what the smaller model is held against, and calibrated on")],
    out: Out,
    to: Annotated[Literal["int8"] | None, typer.Option(help="weights and products of 8 bits")] = None,
    backend: Annotated[Literal["onnxruntime", "openvino"], typer.Option(help="what runs the int8 model")] = "onnxruntime",
    calibration: Annotated[
        Literal["dynamic", "static"], typer.Option(help="scales of activations: by token while it runs, or fixed by --data")
    ] = "dynamic",
    layers: Annotated[int | None, typer.Option(min=1, help="how many layers to keep")] = None,
    prune: Annotated[float | None, typer.Option(help="share of the feed-forward columns to take out, 0..1")] = None,
    prune_heads: Annotated[float | None, typer.Option(help="share of the attention heads to take out, 0..1; with --to")] = None,
    max_loss: Annotated[
        float, typer.Option(help="points (hundredths) that the score, and the F1 of each class, may fall by on --data")
    ] = 0.4,
    text: Text = None,
    text_b: TextB = None,
    label: Label = None,
) -> None:
    """Make a bundle smaller and faster. Nothing is written, and the exit code is 2, if its scores fall by too much."""
    from trainformer.compress.smaller import REPORT, Wanted
    from trainformer.compress.smaller import compress as smaller
    from trainformer.core.config import DataSettings

    wanted = Wanted(layers, prune, prune_heads, to, max_loss, backend, calibration)
    smaller(bundle, data, wanted, out, DataSettings(text=text, text_b=text_b, label=label), _say)
    _say(f"bundle: {out}    all numbers: {out / REPORT}")


def export(
    bundle: BundleDir,
    out: Out,
    to: Annotated[
        Literal["hf", "onnx", "openvino", "peft"],
        typer.Option(help="hf: for the transformers library; onnx, openvino: a graph for that program; peft: the adapter alone"),
    ] = "peft",
    data: Annotated[str | None, typer.Option(help="rows to check hf, onnx and openvino with; none: made-up texts")] = None,
    text: Text = None,
    text_b: TextB = None,
    opset: Annotated[int, typer.Option(min=18, help="version of ONNX operators; with --to onnx")] = 18,
    adapter: Annotated[str | None, typer.Option("--adapter", help="which of a bundle's adapters")] = None,
    base: Annotated[str | None, typer.Option("--base", help="peft: folder or hub name of the model that was trained on")] = None,
) -> None:
    """Write a bundle for other programs; all but peft are asked texts and must answer as the bundle does."""
    from trainformer.bundle import Bundle
    from trainformer.compress import export as exports
    from trainformer.core.config import DataSettings
    from trainformer.models import peft_files

    if to == "peft":
        lines = peft_files.export(bundle, out, adapter, base)
    else:
        check = (data, DataSettings(text=text, text_b=text_b))
        opened = Bundle.open(bundle, adapter=adapter)
        hf, version = to == "hf", opset if to == "onnx" else None
        lines = exports.to_hf(opened, bundle, out, check) if hf else exports.to_graph(opened, bundle, out, version, check)
    for line in lines:
        _say(line)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
