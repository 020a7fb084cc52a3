"""The config.json of BERT, GPT-2, Marian, T5 and of our own designs: read as a design, and written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainformer.core.errors import UserError, nearest
from trainformer.models.design import Design
from trainformer.models.foreign import ACTIVATIONS, CLASSES, OURS

Config = dict[str, Any]
WORDS = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {"gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}
"""Ours for each of the library's words for an activation."""


@dataclass(frozen=True)
class Marks:
    """The ids of the tokens that begin and end a text, and fill up a batch; None where there is none."""

    begin: int | None = None
    end: int | None = None
    pad: int | None = None


def design_of(config: Config, where: str) -> Design:
    """The design that a config.json describes. Raises UserError for models, and for variants of them, that ours is not."""
    kind = config.get("model_type")
    if kind == OURS:
        return Design(**config["design"])
    if kind not in _READERS:
        known = [*_READERS, OURS]
        raise UserError(f"'{kind}' is none of the models that ours can be.", where=where, fix=nearest(str(kind), known))
    _require(config, where)
    return _READERS[kind](config, where)


def _require(config: Config, where: str) -> None:
    """Refuses settings under which the library computes something else than ours does."""
    asked: dict[str, tuple[Any, ...]] = {
        "position_embedding_type": ("absolute", None),
        "scale_attn_weights": (True, None),
        "scale_attn_by_inverse_layer_idx": (False, None),
        "add_cross_attention": (False, None),
        "feed_forward_proj": ("relu", None),
        "share_encoder_decoder_embeddings": (True, None),
        "encoder_ffn_dim": (config.get("decoder_ffn_dim"),),
        "encoder_attention_heads": (config.get("decoder_attention_heads"),),
    }
    for name, usual in asked.items():
        if config.get(name, usual[0]) not in usual:
            what = f"{name} is {config[name]!r}: ours has {usual[0]!r} alone."
            raise UserError(what, where=where, fix="Take another checkpoint.")


def _activation(word: str, where: str) -> Any:
    if word not in WORDS:
        raise UserError(f"the activation '{word}' is none of ours.", where=where, fix=f"There is: {', '.join(WORDS)}.")
    return WORDS[word]


def _bert(config: Config, where: str) -> Design:
    return Design(
        form="encoder", vocabulary=config["vocab_size"], width=config["hidden_size"], layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"], feed_forward=config["intermediate_size"], norm_eps=config["layer_norm_eps"],
        positions="learned", positions_max=config["max_position_embeddings"], kinds=config["type_vocab_size"],
        activation=_activation(config["hidden_act"], where), embedding_norm=True, scaled_embedding=False,
        output="transformed", dropout=config["hidden_dropout_prob"], embedding_dropout=config["hidden_dropout_prob"],
        initialisation="truncated_normal", tied=config.get("tie_word_embeddings", True),
    )  # fmt: skip


def _gpt2(config: Config, where: str) -> Design:
    return Design(
        form="decoder", vocabulary=config["vocab_size"], width=config["n_embd"], layers=config["n_layer"],
        heads=config["n_head"], feed_forward=config.get("n_inner") or 4 * config["n_embd"],
        norm_eps=config["layer_norm_epsilon"], norm_place="pre", positions="learned", positions_max=config["n_positions"],
        activation=_activation(config["activation_function"], where), scaled_embedding=False,
        dropout=config["resid_pdrop"], embedding_dropout=config["embd_pdrop"], initialisation="depth_scaled",
        tied=config.get("tie_word_embeddings", True),
    )  # fmt: skip


def _marian(config: Config, where: str) -> Design:
    return Design(
        form="encoder-decoder", vocabulary=config["vocab_size"], width=config["d_model"], layers=config["encoder_layers"],
        decoder_layers=config["decoder_layers"], heads=config["encoder_attention_heads"],
        feed_forward=config["encoder_ffn_dim"], positions="sinusoidal", positions_max=config["max_position_embeddings"],
        activation=_activation(config["activation_function"], where), scaled_embedding=config["scale_embedding"],
        output="bias", dropout=config["dropout"], embedding_dropout=config["dropout"],
        tied=config.get("tie_word_embeddings", True),
    )  # fmt: skip


def _t5(config: Config, where: str) -> Design:
    return Design(
        form="encoder-decoder", vocabulary=config["vocab_size"], width=config["d_model"], layers=config["num_layers"],
        decoder_layers=config.get("num_decoder_layers") or config["num_layers"], heads=config["num_heads"],
        head_width=config["d_kv"], feed_forward=config["d_ff"], norm="rms", norm_place="pre",
        norm_eps=config["layer_norm_epsilon"], positions="relative", buckets=config["relative_attention_num_buckets"],
        distance_max=config.get("relative_attention_max_distance", 128), positions_max=config.get("n_positions", 512),
        activation="relu", biases=False, scaled_embedding=False, scaled_scores=False, output="scaled",
        dropout=config["dropout_rate"], embedding_dropout=config["dropout_rate"], initialisation="fan_in",
        tied=config.get("tie_word_embeddings", True),
    )  # fmt: skip


_READERS: dict[str, Callable[[Config, str], Design]] = {"bert": _bert, "gpt2": _gpt2, "marian": _marian, "t5": _t5}


def config_of(design: Design, kind: str | None, marks: Marks) -> Config:
    """The config.json of a design: in the words of the library's family, or in ours where it has none."""
    if kind is None:
        return {"model_type": OURS, "design": design.settings()}
    shared = {
        "model_type": kind, "architectures": [CLASSES[kind]], "dtype": "float32", "vocab_size": design.vocabulary,
        "pad_token_id": marks.pad, "bos_token_id": marks.begin, "eos_token_id": marks.end,
        "tie_word_embeddings": design.tied,
    }  # fmt: skip
    if design.form == "encoder-decoder":
        shared |= {"is_encoder_decoder": True, "decoder_start_token_id": marks.begin, "forced_eos_token_id": marks.end}
    return shared | _WRITERS[kind](design)


def _write_bert(design: Design) -> Config:
    return {
        "hidden_size": design.width, "num_hidden_layers": design.layers, "num_attention_heads": design.heads,
        "intermediate_size": design.feed_forward, "hidden_act": ACTIVATIONS[design.activation],
        "hidden_dropout_prob": design.dropout, "attention_probs_dropout_prob": design.attention_dropout,
        "max_position_embeddings": design.positions_max, "type_vocab_size": design.kinds, "layer_norm_eps": design.norm_eps,
    }  # fmt: skip


def _write_gpt2(design: Design) -> Config:
    return {
        "n_embd": design.width, "n_layer": design.layers, "n_head": design.heads, "n_inner": design.feed_forward,
        "n_positions": design.positions_max, "activation_function": ACTIVATIONS[design.activation],
        "resid_pdrop": design.dropout, "embd_pdrop": design.embedding_dropout, "attn_pdrop": design.attention_dropout,
        "layer_norm_epsilon": design.norm_eps,
    }  # fmt: skip


def _write_marian(design: Design) -> Config:
    sizes: Config = {"d_model": design.width, "max_position_embeddings": design.positions_max, "dropout": design.dropout,
                     "activation_function": ACTIVATIONS[design.activation], "scale_embedding": design.scaled_embedding,
                     "attention_dropout": design.attention_dropout, "activation_dropout": 0.0,
                     "share_encoder_decoder_embeddings": True, "num_hidden_layers": design.layers}  # fmt: skip
    for stack, layers in (("encoder", design.layers), ("decoder", design.depth)):
        sizes |= {f"{stack}_layers": layers, f"{stack}_attention_heads": design.heads, f"{stack}_ffn_dim": design.feed_forward}
    return sizes


def _write_t5(design: Design) -> Config:
    return {
        "d_model": design.width, "num_layers": design.layers, "num_decoder_layers": design.depth, "num_heads": design.heads,
        "d_kv": design.inner, "d_ff": design.feed_forward, "layer_norm_epsilon": design.norm_eps,
        "relative_attention_num_buckets": design.buckets, "relative_attention_max_distance": design.distance_max,
        "feed_forward_proj": "relu", "dropout_rate": design.dropout, "n_positions": design.positions_max,
    }  # fmt: skip


_WRITERS: dict[str, Callable[[Design], Config]] = {
    "bert": _write_bert,
    "gpt2": _write_gpt2,
    "marian": _write_marian,
    "t5": _write_t5,
}
