"""A model of ours as an ONNX graph: padded sequences in, the head's outputs out, any number and length of them."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainformer.bundle import Bundle
from trainformer.bundle.reading import encode_all
from trainformer.core import registry
from trainformer.core.batch import pack
from trainformer.core.errors import MissingExtra, UserError
from trainformer.core.roles import Backbone, Model
from trainformer.models.encoder import Encoder, padded
from trainformer.models.heads import EmbeddingHead, SequenceHead
from trainformer.models.onnx import CONFIG, GRAPH
from trainformer.nn.surgery import ADDED

OPSET = 18
MOST_BYTES = 2_000_000_000
"""A graph that holds its weights is one protobuf message, which ends at 2 GB."""


class Padded(nn.Module):
    """A model on padded sequences "S L": outputs "S C" of each, windows not joined."""

    def __init__(self, model: Model):
        super().__init__()
        assert isinstance(model.body, Encoder) and isinstance(model.head, SequenceHead)
        self.encoder, self.head, self.takes = model.body.encoder, model.head, model.body.takes

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "token_type_ids" in self.takes:
            inputs["token_type_ids"] = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        hidden = self.encoder(**inputs).last_hidden_state
        return self.head.sequence_outputs(self._pooled(hidden, attention_mask), hidden[:, 0])

    def _pooled(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """One state for each sequence: "S L D" -> "S D"."""
        if self.head.pooling == "cls":
            return hidden[:, 0]
        real = mask[:, :, None].to(hidden.dtype)
        if self.head.pooling == "mean":
            return (hidden * real).sum(1) / real.sum(1)
        return (hidden - (1 - real) * torch.finfo(hidden.dtype).max).amax(1)


def through(bundle: Bundle, folder: Path, kind: str = "onnx", **settings: Any) -> tuple[Backbone, Bundle]:
    """The backbone of this kind that opens the graph in FOLDER, and the bundle's answers through it."""
    body = bundle.model.body
    assert isinstance(body, Encoder)
    backbone = registry.build(Backbone, kind, {"pad": body.pad, **settings})
    return backbone, Bundle(bundle.task, backbone.open(folder, bundle.task), bundle.tokens, bundle.facts)


def refuse_added(model: Model, facts: dict[str, Any]) -> None:
    """Raises UserError where a method has added what the library's model does not have, or the model is a graph already."""
    if not isinstance(model.body, Encoder):
        kind = "a graph of OpenVINO" if facts["model"]["kind"] == "openvino" else "an ONNX graph"
        raise UserError(f"this bundle is {kind} already.", where="BUNDLE", fix="Start from the bundle it was made of.")
    if hasattr(model.body, ADDED):
        names = ", ".join(facts["methods"]) or "a method"
        what = f"what {names} has added is computed beside the encoder, in a form that is not written yet."
        raise UserError(what, where="BUNDLE", fix="Train with a method that folds into the weights, as lora does.")


def write_graph(bundle: Bundle, folder: Path, opset: int = OPSET) -> None:
    """FOLDER/model.onnx, for any number of sequences of any length, and the library's configuration beside it.

    Raises UserError for a model of which a part is computed beside the encoder, and for one of more than 2 GB.
    """
    refuse_added(bundle.model, bundle.facts)
    try:
        import onnx
        import onnxscript  # noqa: F401 (the exporter needs it)
    except ModuleNotFoundError as error:
        raise MissingExtra("onnxscript", "onnx") from error
    model, body = bundle.model, bundle.model.body
    assert isinstance(body, Encoder)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if size > MOST_BYTES:
        raise UserError(f"its weights are {size / 1e9:.1f} GB, and an ONNX file ends at 2 GB.", where="BUNDLE")
    (folder / CONFIG).write_text(body.encoder.config.to_json_string(), encoding="utf-8")
    inputs = _example(bundle)
    output = "sentence_embedding" if isinstance(model.head, EmbeddingHead) else "logits"
    axes = {0: "batch", 1: "length"}
    with library_attention(body), torch.no_grad(), _silent():
        torch.onnx.export(
            Padded(model).eval(),
            tuple(inputs.values()),
            str(folder / GRAPH),
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=tuple(axes for _ in inputs),
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    proto = onnx.load_model(str(folder / GRAPH))
    _forget(proto)
    onnx.save_model(proto, str(folder / GRAPH))


def _forget(message: Any) -> None:
    """Takes out what the exporter notes of each node: stack traces, with the paths of this machine."""
    for field, value in list(message.ListFields()):
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None and field.message_type.name != "TensorProto":
            for inner in [value] if hasattr(value, "ListFields") else value:
                _forget(inner)


def _example(bundle: Bundle) -> dict[str, Tensor]:
    """Three sequences of unequal length, with token types where the tokenizer has them."""
    text = bundle.tokens.tokenizer.decode(list(range(10, 16)))
    texts = [(t, t) if bundle.task.pair else t for t in (text, f"{text} {text}", text[:4])]
    given = [bundle.task.parse((t,) if isinstance(t, str) else t, ..., i, 1.0) for i, t in enumerate(texts)]
    part = pack(encode_all(bundle.task, bundle.tokens, bundle.limit, given)).parts[0]
    body = bundle.model.body
    assert isinstance(body, Encoder)
    inputs = padded(part, body.pad)
    if not bundle.tokens.typed or "token_type_ids" not in body.takes:
        inputs.pop("token_type_ids")
    return inputs


@contextmanager
def _silent() -> Iterator[None]:
    """The exporter's notices off: what matters is whether the graph answers as the model does, and that is checked."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


@contextmanager
def library_attention(body: Encoder) -> Iterator[None]:
    """Inside, the encoder attends as the library does, with a mask."""
    packed = body.packed
    body.encoder.set_attn_implementation("eager")
    try:
        yield
    finally:
        body.encoder.set_attn_implementation("packed" if packed else "sdpa" if body.encoder._supports_sdpa else "eager")
