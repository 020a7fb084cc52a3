"""Any encoder of the transformers library, by hub name or folder: BERT, RoBERTa, DistilBERT, ModernBERT and their kind."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import nn

from trainformer.core.errors import UserError
from trainformer.core.roles import Backbone, Method, Model, Task
from trainformer.models.encoder import Encoder, packs_exactly
from trainformer.models.families import HEADS, UNIFORM_ATTENTION, is_head
from trainformer.models.heads import SequenceHead, library_modules, own_modules, start_as_identity, uniform_layer
from trainformer.models.locate import locate, sentence_pooling
from trainformer.nn.packed_attention import packed_attention
from trainformer.nn.pool import Pooling

transformers.AttentionInterface.register("packed", packed_attention)
OWN_HEAD = "trainformer_head"
DROPOUTS = ("hidden_dropout_prob", "dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout", "seq_classif_dropout")
ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")


class Pretrained(Backbone):
    """A pretrained encoder of the Hugging Face library."""

    name: str | None = None
    """Folder or hub name; none: the encoder that `make setup` installed, and said."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout of hidden states and head, 0..1; none: what the checkpoint says."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of attention weights, 0..1; 0 is the default, since fused attention has none and is several times faster."""
    pooling: Pooling | None = None
    """What the head reads: the first token (cls), the mean or the maximum of all; none: what trains well for the family."""
    packing: Literal["auto", "packed", "padded"] = "auto"
    """Whether sequences lie end to end or are padded inside; auto: packed where it gives the same numbers."""

    def resolve(self) -> tuple["Pretrained", list[str]]:
        """The settings with the name filled in, and what to say about it."""
        name, said = locate(self.name)
        return self.model_copy(update={"name": name}), said

    def config(self) -> Any:
        """The checkpoint's own description. Raises UserError where there is none."""
        path = Path(self.name or "")
        if path.is_dir() and not (path / "config.json").is_file():
            raise UserError("this folder is no model: it has no config.json.", where=str(path))
        try:
            config = transformers.AutoConfig.from_pretrained(self.name, revision=self.revision)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"no model of that name can be read: {_first_line(error)}", where=str(self.name)) from error
        if not hasattr(config, "hidden_size") or getattr(config, "is_encoder_decoder", False):
            raise UserError(f"'{config.model_type}' is no encoder.", where=str(self.name), fix="Take BERT or one of its kind.")
        return config

    def limit(self) -> int:
        """Most tokens of a sequence that the model can read, special tokens included."""
        config = self.config()
        places = getattr(config, "max_position_embeddings", 512) or 512
        after_padding = config.model_type in ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "mpnet")
        return int(places - (config.pad_token_id + 1 if after_padding else 0))

    def load(self, task: Task) -> tuple[Model, "Pretrained", list[str]]:
        """The model with a head for the task, the settings as they were settled, and what to say.

        Raises UserError listing missing or unexpected weights, unless they are the head's.
        """
        config = self._configured(task)
        had = transformers.AutoConfig.from_pretrained(self.name, revision=self.revision)
        pretrained_head = (had.architectures or [""])[0].endswith("ForSequenceClassification")
        library, missing = self._library(config, keep_head=pretrained_head and _same_labels(had, task))
        pooling = self.pooling or sentence_pooling(str(self.name)) or _family_pooling(config, missing)
        settled = self.model_copy(update={"pooling": pooling})
        model = settled._assemble(library, task)
        said = _head_words(model, had, task, missing, pretrained_head)
        return model, settled._packing(model, said), said

    def open(self, folder: Path, task: Task, stays: Sequence[Method] = ()) -> Model:
        """The model of a bundle, from its configuration and weights; nothing else is read."""
        config = transformers.AutoConfig.from_pretrained(folder)
        tensors = load_file(folder / "model.safetensors")
        extra = _extra_layer(config, self.pooling)
        if extra:
            config.num_hidden_layers -= 1
        library = _class(config).from_config(config)
        model = self._assemble(library, task)
        for method in stays:
            method.extend(model)
        names = library_names(model)
        own = {ours: tensors[theirs] for ours, theirs in names.items() if theirs in tensors}
        absent = [theirs for theirs in names.values() if theirs not in tensors]
        if absent:
            raise UserError(f"weights are missing: {', '.join(absent[:5])}.", where=str(folder))
        model.load_state_dict(own)
        self._packing(model, [])
        return model.eval()

    def opens_in_library(self, model: Model) -> bool:
        """Whether the library's classifier gives equal logits with what `save` writes."""
        assert isinstance(model.body, Encoder)
        return maps_to_library(model.body.encoder.config, self.pooling)

    def save(self, model: Model, folder: Path, task: Task) -> None:
        """Writes config.json and model.safetensors as the library reads them."""
        names = library_names(model)
        tensors = {theirs: model.state_dict()[ours].contiguous() for ours, theirs in names.items()}
        head, body = model.head, model.body
        assert isinstance(head, SequenceHead) and isinstance(body, Encoder)
        config = type(body.encoder.config).from_dict(body.encoder.config.to_dict())
        if _extra_layer(config, self.pooling):
            layer = uniform_layer(body.encoder, config.model_type)
            tensors |= {f"{body.encoder.base_model_prefix}.{name}": tensor for name, tensor in layer.items()}
            config.num_hidden_layers += 1
        equal = self.opens_in_library(model)
        known = _class(config)._model_mapping[type(config)].__name__
        config.architectures = [known if equal else type(body.encoder).__name__]
        config.dtype = "float32"
        config.save_pretrained(folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    def _configured(self, task: Task) -> Any:
        config = self.config()
        config.num_labels = task.outputs()
        labels = getattr(task, "labels", None)
        if labels:
            config.id2label, config.label2id = dict(enumerate(labels)), {x: i for i, x in enumerate(labels)}
        config.problem_type = {"multi_label": "multi_label_classification", "regression": "regression"}.get(type(task).key)
        for names, value in ((DROPOUTS, self.dropout), (ATTENTION_DROPOUTS, self.attention_dropout)):
            for name in names:
                if value is not None and hasattr(config, name):
                    setattr(config, name, value)
        if self.pooling and hasattr(config, "classifier_pooling") and self.pooling != "max":
            config.classifier_pooling = self.pooling
        return config

    def _library(self, config: Any, keep_head: bool) -> tuple[nn.Module, list[str]]:
        """The library's model, and the weights that the checkpoint lacks."""
        try:
            with quiet():
                library, info = _class(config).from_pretrained(
                    self.name,
                    config=config,
                    revision=self.revision,
                    dtype=torch.float32,
                    output_loading_info=True,
                    ignore_mismatched_sizes=not keep_head,
                    use_safetensors=True,
                )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"its weights cannot be read: {_first_line(error)}", where=str(self.name)) from error
        missing = [n for n in info["missing_keys"] if not n.endswith(("position_ids", "inv_freq"))]
        mismatched = [m[0] if isinstance(m, tuple) else m for m in info["mismatched_keys"]]
        for words, found in (("missing", missing), ("unexpected", info["unexpected_keys"]), ("of another shape", mismatched)):
            bad = sorted(n for n in found if not _of_head(n, library))
            if bad:
                shown = ", ".join(bad[:8]) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
                raise UserError(f"{len(bad)} weights of the encoder are {words}: {shown}.", where=str(self.name))
        return library, [*missing, *mismatched]

    def _assemble(self, library: Any, task: Task) -> Model:
        """Takes the library's model apart into body and head."""
        encoder, config = library.base_model, library.config
        pooling = self.pooling or "cls"
        family = config.model_type
        if family in HEADS and encoder is not library:
            modules = library_modules(library, family, library.base_model_prefix)
        else:
            modules = own_modules(config.hidden_size, task.outputs(), 0.1 if self.dropout is None else self.dropout)
        for name in ("pooler", "pooler_activation"):
            if getattr(encoder, name, None) is not None:
                setattr(encoder, name, None)
        averaged = _extra_layer(config, pooling)
        eps = getattr(config, "layer_norm_eps", 1e-12) if averaged else None
        head = SequenceHead(modules, pooling, getattr(task, "window_pool", "mean"), eps)
        return Model(Encoder(encoder, packed=False), head)

    def _packing(self, model: Model, said: list[str]) -> "Pretrained":
        """Settles whether the body packs, and sets its attention accordingly."""
        body = model.body
        assert isinstance(body, Encoder)
        able = bool(body.encoder._supports_attention_backend) and "position_ids" in body.takes
        if self.packing == "packed" and not able:
            raise UserError(f"'{body.encoder.config.model_type}' cannot be packed.", where="model.packing", fix="Use auto.")
        body.packed = self.packing != "padded" and able and (self.packing == "packed" or packs_exactly(body.encoder))
        if body.packed:
            body.encoder.set_attn_implementation("packed")
        else:
            said.append("attention: padded inside (this architecture does not pack)")
        return self


@contextmanager
def quiet() -> Iterator[None]:
    """The library's notices and bars off: what matters in them is checked and said by us."""
    logs = transformers.utils.logging
    level, bar = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logs.set_verbosity(level)
        if bar:
            logs.enable_progress_bar()


def library_names(model: Model) -> dict[str, str]:
    """Our name of each weight -> the library's, in which a bundle stores it."""
    body, head = model.body, model.head
    assert isinstance(body, Encoder) and isinstance(head, SequenceHead)
    prefix = body.encoder.base_model_prefix
    own = body.encoder.config.model_type not in HEADS
    equal = not own and maps_to_library(body.encoder.config, head.pooling)
    names = {}
    for ours in model.state_dict():
        if ours.startswith("body.encoder."):
            names[ours] = ours.replace("body.encoder", prefix, 1)
        else:
            _, _, index, inner = ours.split(".", 3)
            path = head.paths[int(index)]
            names[ours] = f"{path}.{inner}" if equal else f"{OWN_HEAD}.{path}.{inner}"
    return names


def maps_to_library(config: Any, pooling: str | None) -> bool:
    """Whether the library's classifier can compute what ours does."""
    if config.model_type not in HEADS:
        return False
    if hasattr(config, "classifier_pooling"):
        return pooling == config.classifier_pooling
    return pooling == "cls" or _extra_layer(config, pooling)


def _extra_layer(config: Any, pooling: str | None) -> bool:
    """Whether the mean is written as one more layer (models/heads.py)."""
    return pooling == "mean" and config.model_type in UNIFORM_ATTENTION


def _class(config: Any) -> Any:
    known = type(config) in transformers.AutoModelForSequenceClassification._model_mapping
    return transformers.AutoModelForSequenceClassification if known else transformers.AutoModel


def _of_head(name: str, library: Any) -> bool:
    prefix = f"{library.base_model_prefix}."
    return is_head(name) or (library.base_model is not library and any(
        not n.startswith(prefix) and n == name for n, _ in library.named_parameters()
    ))


def _family_pooling(config: Any, missing: list[str]) -> Pooling:
    """The family's own pooling. A bare encoder stored without its pooler was trained to be averaged, not for its first token."""
    if hasattr(config, "classifier_pooling"):
        return "mean" if config.classifier_pooling == "mean" else "cls"
    bare = (config.architectures or ["Model"])[0].endswith("Model")
    poolerless = any("pooler." in name for name in missing)
    return "mean" if bare and poolerless else "cls"


def _same_labels(config: Any, task: Task) -> bool:
    labels = getattr(task, "labels", None) or []
    return sorted(map(str, config.id2label.values())) == sorted(labels) and len(labels) == task.outputs()


def _head_words(model: Model, had: Any, task: Task, missing: list[str], classifier: bool) -> list[str]:
    """Says whose head it is; a checkpoint's own is put into the task's order of labels, a new one into a good start."""
    head = model.head
    assert isinstance(head, SequenceHead)
    if classifier and _same_labels(had, task) and not any("classifier" in n or "out_proj" in n for n in missing):
        order = [{str(v): int(k) for k, v in had.id2label.items()}[label] for label in getattr(task, "labels", [])]
        with torch.no_grad():
            head.last.weight.copy_(head.last.weight[order].clone())
            head.last.bias.copy_(head.last.bias[order].clone())
        return ["head: kept from the checkpoint, its labels are those of the data"]
    if head.eps is not None or any("pooler" in n or "dense" in n for n in missing):
        start_as_identity(head)
    return [f"head: new, {head.pooling} pooling" + (", the checkpoint's labels are others" if classifier else "")]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]

