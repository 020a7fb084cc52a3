"""A bundle for other programs: a folder that the transformers library opens, or an ONNX graph; checked by asking it."""

import tempfile
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from trainformer.bundle import Bundle, adapters
from trainformer.bundle.writing import write
from trainformer.compress.check import require_same
from trainformer.compress.graph import OPSET, Padded, refuse_added, through, write_graph
from trainformer.compress.ir import write_ir
from trainformer.compress.smaller import contents, pages_of, remembered
from trainformer.core.config import DataSettings
from trainformer.core.errors import UserError
from trainformer.core.files import refuse_existing, write_folder, write_json
from trainformer.core.roles import Model
from trainformer.models.encoder import Encoder
from trainformer.models.heads import EmbeddingHead, SequenceHead
from trainformer.models.pretrained import library_model
from trainformer.models.whole import whole_model
from trainformer.nn.pool import Pooling

Check = tuple[Any, DataSettings]
"""Rows to check with, none: made-up texts; and which columns are read."""
SENTENCE = "sentence_transformers.models."


def to_graph(bundle: Bundle, folder: Path, out: Path, opset: int | None, check: Check) -> list[str]:
    """Writes a graph with tokenizer, labels.json and what makes it a bundle: model.onnx, or OpenVINO's where there is no opset.

    What to say of it. Raises UserError, and writes nothing, where the graph does not answer as the bundle does.
    """
    refuse_existing(out)
    with tempfile.TemporaryDirectory() as place:
        write_graph(bundle, Path(place), opset or OPSET)
        if not opset:
            write_ir(Path(place))
        backbone, graph = through(bundle, Path(place), "onnx" if opset else "openvino")
        said = require_same(bundle, graph, "the graph", *check)
        write(out, contents(graph, backbone, pages_of(folder, bundle), {}, remembered(folder, graph, [])))
    return [said, f"{f'ONNX graph, opset {opset}' if opset else 'graph of OpenVINO'}: {out}"]


def to_hf(bundle: Bundle, folder: Path, out: Path, check: Check) -> list[str]:
    """Writes config.json, model.safetensors and tokenizer as the transformers library reads them; what to say of it.

    An embedding model gets the files of sentence-transformers. Raises UserError, and writes nothing, for a model that the
    library cannot compute, and where it does not answer as the bundle does.
    """
    refuse_existing(out)
    refuse_added(bundle.model, bundle.facts)
    _, backbone, _ = adapters.open_parts(bundle.facts)
    body, head = bundle.model.body, bundle.model.head
    assert isinstance(body, Encoder) and isinstance(head, SequenceHead)
    embeds = isinstance(head, EmbeddingHead)
    if not embeds and not backbone.opens_in_library(bundle.model):
        what = f"the library has no head of '{body.encoder.config.model_type}' with {head.pooling} pooling."
        raise UserError(what, where=str(folder), fix="Take --to onnx.")
    said = []

    def fill(beside: Path) -> None:
        backbone.save(bundle.model, beside, bundle.task)
        bundle.tokens.save(beside)
        if embeds:
            _sentence_files(beside, head.pooling, body.width, bundle.limit)
        said.append(require_same(bundle, _library(bundle, beside), "the library's model", *check))
        for name, text in pages_of(folder, bundle).items():
            (beside / name).write_text(text, encoding="utf-8")

    write_folder(out, fill)
    opener = "SentenceTransformer" if embeds else "AutoModelForSequenceClassification.from_pretrained"
    return [*said, *_left_out(bundle), f"for {opener}: {out}"]


def _library(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle's task and tokenizer around the library's own model of a folder."""
    library = library_model(folder, bundle.task)
    body = bundle.model.body
    assert isinstance(body, Encoder)
    embedding = isinstance(bundle.model.head, EmbeddingHead)
    embed = Padded(Model(Encoder(library, packed=False), bundle.model.head)) if embedding else None

    def ask(given: dict[str, Tensor]) -> Tensor:
        if embed is not None:
            return cast(Tensor, embed(**given))
        return cast(Tensor, library(**{k: v for k, v in given.items() if k in body.takes}).logits)

    return Bundle(bundle.task, whole_model(ask, body.pad, bundle.task), bundle.tokens, bundle.facts)


def _left_out(bundle: Bundle) -> list[str]:
    """What the library does not do of what the bundle does."""
    decision = bundle.decision
    parts = [
        ("the temperature", decision.temperature != 1.0),
        ("thresholds", bool(decision.thresholds)),
        ("costs", bool(decision.costs)),
        ("the band of silence", decision.abstain is not None),
    ]
    named = [name for name, there in parts if there]
    return [f"not in the library's model: {', '.join(named)}; labels.json has them"] if named else []


def _sentence_files(folder: Path, pooling: Pooling, width: int, limit: int) -> None:
    """What sentence-transformers reads beside the model: pooling, and that embeddings have length 1."""
    modes = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "max": "pooling_mode_max_tokens"}
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [{"idx": i, "name": str(i), "path": path, "type": SENTENCE + kind} for i, (path, kind) in enumerate(kinds)]
    write_json(folder / "modules.json", listed)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    for path, _ in kinds[1:]:
        (folder / path).mkdir()
    flags = {flag: name == pooling for name, flag in modes.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **flags})
