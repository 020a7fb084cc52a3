"""Any encoder of the transformers library, by hub name or folder: BERT, RoBERTa, DistilBERT, ModernBERT and their kind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from trainformer.core.errors import UserError
from trainformer.core.roles import Backbone, Method, Model, Task
from trainformer.data.tokens import quiet
from trainformer.models.encoder import Encoder, packs_exactly
from trainformer.models.families import AFTER_PADDING, HEADS
from trainformer.models.fill_head import FILLS, JUDGES, FillHead, fill_head
from trainformer.models.heads import EmbeddingHead, SequenceHead, library_modules, own_modules, uniform_layer
from trainformer.models.locate import keep_pooling, locate, sentence_pooling
from trainformer.models.start import family_pooling, grow, settle_head
from trainformer.models.weights import (
    Unfilled,
    extra_layer,
    fill,
    library_names,
    maps_to_library,
    new_weights,
    own_names,
    refuse_pickle,
)
from trainformer.nn.packed_attention import packed_attention
from trainformer.nn.pool import Pooling
from trainformer.nn.surgery import ADDED
from trainformer.nn.ties import write_once

transformers.AttentionInterface.register("packed", packed_attention)


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
        """The checkpoint's own description. Raises UserError where there is none, or where it is no encoder's."""
        path = Path(self.name or "")
        if path.is_dir() and not (path / "config.json").is_file():
            raise UserError("this folder is no model: it has no config.json.", where=str(path))
        try:
            with quiet():
                config = transformers.AutoConfig.from_pretrained(str(self.name), revision=self.revision, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"no model of that name can be read: {_first_line(error)}", where=str(self.name)) from error
        if not hasattr(config, "hidden_size") or config.is_encoder_decoder or _reads_forward(config):
            raise UserError(f"'{config.model_type}' is no encoder.", where=str(self.name), fix="Take BERT or one of its kind.")
        return config

    def limit(self) -> int:
        """Most tokens of a sequence that the model can read, special tokens included."""
        config = self.config()
        places = getattr(config, "max_position_embeddings", 512) or 512
        return int(places - (config.pad_token_id + 1 if config.model_type in AFTER_PADDING else 0))

    def refuse(self, task: Task) -> None:
        """Raises UserError for a task that writes."""
        if task.writes:
            new = {"decoder": "gpt2-tiny", "encoder-decoder": "transformer-tiny"}[task.writes]
            fix = f"Train one from nothing: --model {new} --tokenizer FOLDER."
            raise UserError(f"it is an encoder, and {type(task).key} needs a model that writes.", where=str(self.name), fix=fix)

    def load(self, task: Task) -> tuple[Model, "Pretrained", list[str]]:
        """The model with a head for the task, the settings as they were settled, and what to say.

        Raises UserError listing missing or unexpected weights, unless they are the head's.
        """
        had = self.config()
        asked = self.pooling or self._sentence_pooling() or ("mean" if task.embeds else None)
        library, info = self._library(self._configured(task, asked), task)
        missing = new_weights(library, info, str(self.name))
        bare = task.vocabulary and not _judges(task)  # its model has no pooler: one in the file is left over
        pooler = any("pooler." in name for name in (info["unexpected_keys"] if bare else missing))
        own = family_pooling(had, pooler != bare)
        settled = self.model_copy(update={"pooling": asked or own})
        grown = grow(library, task)
        model = settled._assemble(library, task)
        said = [settle_head(model, had, task, missing, settled.pooling == own), *grown]
        return model, settled._packing(model, said), said

    def open(
        self, folder: Path, task: Task, stays: Sequence[Method] = (), weights: dict[str, torch.Tensor] | None = None
    ) -> Model:
        """The model of a bundle, from its configuration and weights; nothing else is read."""
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tensors = load_file(folder / "model.safetensors") if weights is None else weights
        extra = self._extra(config, task)
        if extra:
            config.num_hidden_layers -= 1
        with quiet(), Unfilled():
            library = _class(config, task).from_config(config)
        model = self._assemble(library, task)
        named = library_names if weights is None else own_names
        fill(model, tensors, named(model), folder)
        self._packing(model, [])
        for method in stays:
            method.extend(model)
        fill(model, tensors, named(model), folder)
        return model.eval()

    def opens_in_library(self, model: Model) -> bool:
        """Whether the library's classifier gives equal logits with what `save` writes."""
        assert isinstance(model.body, Encoder)
        if hasattr(model.body, ADDED) or isinstance(model.head, EmbeddingHead):
            return False
        return isinstance(model.head, FillHead) or maps_to_library(model.body.encoder.config, self.pooling)

    def save(self, model: Model, folder: Path, task: Task) -> None:
        """Writes config.json and model.safetensors as the library reads them."""
        names = library_names(model)
        tensors = {theirs: model.state_dict()[ours].contiguous() for ours, theirs in names.items()}
        body = model.body
        assert isinstance(body, Encoder)
        config = type(body.encoder.config).from_dict(body.encoder.config.to_dict())
        if self._extra(config, task):
            layer = uniform_layer(body.encoder, config.model_type)
            tensors |= {f"{body.encoder.base_model_prefix}.{name}": tensor for name, tensor in layer.items()}
            config.num_hidden_layers += 1
        equal = self.opens_in_library(model)
        known = _class(config, task)._model_mapping[type(config)].__name__
        config.architectures = [known if equal else type(body.encoder).__name__]
        config.dtype = "float32"
        config.__dict__.pop("auto_map", None)  # code that is never run has no place beside the weights
        config.save_pretrained(folder)
        if task.vocabulary:  # what is trained from it later reads it in the same way
            keep_pooling(folder, self.pooling, body.width)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)  # it is written for its owner alone

    def _sentence_pooling(self) -> Pooling | None:
        """What a sentence-transformers checkpoint was trained with, a hub model's fetched if it can be."""
        found = transformers.utils.cached_file(
            str(self.name),
            "1_Pooling/config.json",
            revision=self.revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return None if found is None else sentence_pooling(Path(found))

    def _configured(self, task: Task, pooling: Pooling | None) -> Any:
        config = self.config()
        if not task.vocabulary:
            config.num_labels = task.outputs()
        labels = getattr(task, "labels", None)
        if labels:
            config.id2label, config.label2id = dict(enumerate(labels)), {x: i for i, x in enumerate(labels)}
        config.problem_type = {"multi_label": "multi_label_classification", "regression": "regression"}.get(type(task).key)
        for name in [n for n in config.to_dict() if "dropout" in n]:
            value = self.attention_dropout if "attention" in name else self.dropout
            if value is not None:
                setattr(config, name, value)
        if pooling and hasattr(config, "classifier_pooling") and pooling != "max":
            config.classifier_pooling = pooling
        return config

    def _extra(self, config: Any, task: Task) -> bool:
        """Whether mean pooling is written as one more layer."""
        return extra_layer(config, self.pooling) and not (task.embeds or task.vocabulary)

    def _library(self, config: Any, task: Task) -> tuple[nn.Module, dict[str, Any]]:
        """The library's model, and what it tells of its loading."""
        refuse_pickle(Path(self.name or ""))
        kind = _class(config, task)
        try:
            with quiet():
                library, info = kind.from_pretrained(
                    self.name,
                    config=config,
                    revision=self.revision,
                    dtype=torch.float32,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # they are listed and judged by `new_weights`
                    use_safetensors=True,
                    trust_remote_code=False,
                )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(f"its weights cannot be read: {_first_line(error)}", where=str(self.name)) from error
        return library, info

    def _assemble(self, library: Any, task: Task) -> Model:
        """Takes the library's model apart into body and head."""
        encoder, config = library.base_model, library.config
        pooling = self.pooling or "cls"
        family = config.model_type
        if task.vocabulary:
            library.tie_weights()
            model = Model(Encoder(encoder, packed=False), fill_head(library, family, library.base_model_prefix, _judges(task)))
            _leave_pooler(encoder)
            write_once(model)
            return model
        if family in HEADS and encoder is not library:
            modules = library_modules(library, family, library.base_model_prefix)
        else:
            modules = own_modules(config.hidden_size, task.outputs(), 0.1 if self.dropout is None else self.dropout)
        _leave_pooler(encoder)
        if task.embeds:
            return Model(Encoder(encoder, packed=False), EmbeddingHead(pooling))
        averaged = extra_layer(config, pooling)
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


def library_model(folder: Path, task: Task) -> Any:
    """The library's own model of a folder, its classifier where it has one: what other programs will open."""
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with quiet():
        found = _class(config, task).from_pretrained(folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    return found.eval()


def _class(config: Any, task: Task) -> Any:
    """The library's family of models with a head for the task. Raises UserError where it has none that we know."""
    if task.vocabulary:
        found = transformers.AutoModelForPreTraining if _judges(task) else transformers.AutoModelForMaskedLM
        kind = config.model_type
        if type(config) not in found._model_mapping or kind not in (JUDGES if _judges(task) else FILLS):
            what = f"'{kind}' has no head that {'judges sentences' if _judges(task) else 'tells hidden tokens'}."
            fix = "Use task.sentences=none." if kind in FILLS else "Take BERT or one of its kind."
            raise UserError(what, where="--model", fix=fix)
        return found
    known = not task.embeds and type(config) in transformers.AutoModelForSequenceClassification._model_mapping
    return transformers.AutoModelForSequenceClassification if known else transformers.AutoModel


def _leave_pooler(encoder: Any) -> None:
    """A pooler is a part of the head."""
    for name in ("pooler", "pooler_activation"):
        if getattr(encoder, name, None) is not None:
            setattr(encoder, name, None)


def _judges(task: Task) -> bool:
    return getattr(task, "sentences", "none") != "none"


def _reads_forward(config: Any) -> bool:
    """Whether the library knows it as a language model from left to right and not as one that fills gaps."""
    causal, masked = transformers.AutoModelForCausalLM, transformers.AutoModelForMaskedLM
    return type(config) in causal._model_mapping and type(config) not in masked._model_mapping


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
