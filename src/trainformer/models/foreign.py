"""BERT, GPT-2, Marian and T5 as the transformers library writes them, and as we do: the same weights by other names.

Nothing of the library is needed: a checkpoint is a config.json and a file of tensors.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainformer.models.design import Design

OURS = "trainformer"
"""The model type of a design that is none of the library's."""
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}
"""The library's word for each of ours that it has."""

FIXED: dict[str, dict[str, Any]] = {
    "bert": {"form": "encoder", "positions": "learned", "norm": "layer", "norm_place": "post", "scaled_embedding": False,
             "embedding_norm": True, "output": "transformed", "tied": True},
    "gpt2": {"form": "decoder", "positions": "learned", "norm": "layer", "norm_place": "pre", "scaled_embedding": False,
             "embedding_norm": False, "kinds": 0, "output": "plain"},
    "marian": {"form": "encoder-decoder", "positions": "sinusoidal", "norm": "layer", "norm_place": "post", "norm_eps": 1e-5,
               "embedding_norm": False, "kinds": 0, "output": "bias", "tied": True},
    "t5": {"form": "encoder-decoder", "positions": "relative", "norm": "rms", "norm_place": "pre", "scaled_embedding": False,
           "embedding_norm": False, "kinds": 0, "output": "scaled", "biases": False, "scaled_scores": False,
           "activation": "relu"},
}  # fmt: skip
"""What makes a design one of the library's."""
USUAL: dict[str, Any] = {"window": None, "biases": True, "scaled_scores": True, "head_width": None}
CLASSES = {"bert": "BertForMaskedLM", "gpt2": "GPT2LMHeadModel", "marian": "MarianMTModel",
           "t5": "T5ForConditionalGeneration"}  # fmt: skip
PREFIX = {"bert": "bert.", "gpt2": "transformer.", "marian": "model.", "t5": ""}
"""What stands before the names of the body's weights in the library's model with a head."""


@dataclass(frozen=True)
class Place:
    """Where a weight of ours is in a checkpoint: part `part` of `parts` of a tensor that may be transposed, or led by a 1."""

    name: str
    part: int = 0
    parts: int = 1
    transposed: bool = False
    led: bool = False

    def read(self, tensors: dict[str, Tensor]) -> Tensor:
        found = tensors[self.name]
        found = found.T if self.transposed else found[0] if self.led else found
        return found.chunk(self.parts, 0)[self.part].contiguous()


def written(weights: dict[str, Tensor], places: dict[str, Place]) -> dict[str, Tensor]:
    """Weights by our names -> the tensors of a checkpoint."""
    by_name: dict[str, list[tuple[Place, Tensor]]] = {}
    for ours, place in places.items():
        by_name.setdefault(place.name, []).append((place, weights[ours]))
    found = {}
    for name, listed in by_name.items():
        joined = torch.cat([tensor for _, tensor in sorted(listed, key=lambda pair: pair[0].part)])
        first = listed[0][0]
        found[name] = (joined.T if first.transposed else joined[None] if first.led else joined).contiguous()
    return found


def family(design: Design) -> str | None:
    """Which of the library's models computes what a design does."""
    if design.groups != design.heads or design.initialisation == "mup" or design.activation not in ACTIVATIONS:
        return None
    for name, fixed in FIXED.items():
        wanted = USUAL | ({"head_width": design.head_width} if name == "t5" else {}) | fixed
        if all(getattr(design, key) == value for key, value in wanted.items()) and bool(design.kinds) == (name == "bert"):
            return name
    return None


def places(design: Design, kind: str, has_head: bool = True) -> dict[str, Place]:
    """Where each weight of ours is in the library's model of a family, by our names."""
    found = {f"body.{n}": p for n, p in _BODIES[kind](design).items()}
    if has_head:
        prefixed = {n: Place(PREFIX[kind] + p.name, p.part, p.parts, p.transposed) for n, p in found.items()}
        return prefixed | _head(design, kind)
    return found


def _head(design: Design, kind: str) -> dict[str, Place]:
    if kind == "bert":
        names = {"transform.0": "transform.dense", "transform.2": "transform.LayerNorm"}
        both = {f"head.{o}.{w}": Place(f"cls.predictions.{t}.{w}") for o, t in names.items() for w in ("weight", "bias")}
        return both | {"head.bias": Place("cls.predictions.bias")}
    if kind == "marian":
        return {"head.bias": Place("final_logits_bias", led=True)}
    return {} if design.tied else {"head.out.weight": Place("lm_head.weight")}


def _both(ours: str, theirs: str, biases: bool = True, **how: Any) -> dict[str, Place]:
    """A layer's weight and bias."""
    return {f"{ours}.{w}": Place(f"{theirs}.{w}", **how) for w in ("weight", "bias")[: 1 + biases]}


def _bert(design: Design) -> dict[str, Place]:
    found = {"table.weight": Place("embeddings.word_embeddings.weight"),
             "places.weight": Place("embeddings.position_embeddings.weight"),
             "kinds.weight": Place("embeddings.token_type_embeddings.weight"),
             **_both("embedding_norm", "embeddings.LayerNorm")}  # fmt: skip
    names = {"attention.query": "attention.self.query", "attention.key": "attention.self.key",
             "attention.value": "attention.self.value", "attention.output": "attention.output.dense",
             "attention_norm": "attention.output.LayerNorm", "feed_forward.up": "intermediate.dense",
             "feed_forward.down": "output.dense", "feed_forward_norm": "output.LayerNorm"}  # fmt: skip
    for i in range(design.layers):
        for ours, theirs in names.items():
            found |= _both(f"encoder.layers.{i}.{ours}", f"encoder.layer.{i}.{theirs}")
    return found


def _gpt2(design: Design) -> dict[str, Place]:
    found = {"table.weight": Place("wte.weight"), "places.weight": Place("wpe.weight"), **_both("decoder.norm", "ln_f")}
    for i in range(design.layers):
        ours, theirs = f"decoder.layers.{i}", f"h.{i}"
        for part, name in enumerate(("query", "key", "value")):
            found |= {
                f"{ours}.attention.{name}.weight": Place(f"{theirs}.attn.c_attn.weight", part, 3, transposed=True),
                f"{ours}.attention.{name}.bias": Place(f"{theirs}.attn.c_attn.bias", part, 3),
            }
        matrices = {"attention.output": "attn.c_proj", "feed_forward.up": "mlp.c_fc", "feed_forward.down": "mlp.c_proj"}
        for own, other in matrices.items():
            found[f"{ours}.{own}.weight"] = Place(f"{theirs}.{other}.weight", transposed=True)
            found[f"{ours}.{own}.bias"] = Place(f"{theirs}.{other}.bias")
        found |= _both(f"{ours}.attention_norm", f"{theirs}.ln_1") | _both(f"{ours}.feed_forward_norm", f"{theirs}.ln_2")
    return found


def _marian(design: Design) -> dict[str, Place]:
    found = {"table.weight": Place("shared.weight")}
    parts = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
    blocks = {"attention": "self_attn", "cross": "encoder_attn"}
    for stack, layers in (("encoder", design.layers), ("decoder", design.depth)):
        for i in range(layers):
            at = f"{stack}.layers.{i}"
            for own, other in list(blocks.items())[: 1 + (stack == "decoder")]:
                for ours, theirs in parts.items():
                    found |= _both(f"{at}.{own}.{ours}", f"{at}.{other}.{theirs}")
                found |= _both(f"{at}.{own}_norm", f"{at}.{other}_layer_norm")
            found |= _both(f"{at}.feed_forward.up", f"{at}.fc1") | _both(f"{at}.feed_forward.down", f"{at}.fc2")
            found |= _both(f"{at}.feed_forward_norm", f"{at}.final_layer_norm")
    return found


def _t5(design: Design) -> dict[str, Place]:
    found = {"table.weight": Place("shared.weight")}
    parts = {"query": "q", "key": "k", "value": "v", "output": "o"}
    for stack, layers in (("encoder", design.layers), ("decoder", design.depth)):
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        found |= {f"{stack}.relative.weight": Place(bias), f"{stack}.norm.weight": Place(f"{stack}.final_layer_norm.weight")}
        blocks = [("attention", "SelfAttention"), ("cross", "EncDecAttention")][: 1 + (stack == "decoder")]
        for i in range(layers):
            for place, (own, other) in enumerate(blocks):
                at, there = f"{stack}.layers.{i}.{own}", f"{stack}.block.{i}.layer.{place}"
                found |= {f"{at}.{o}.weight": Place(f"{there}.{other}.{t}.weight") for o, t in parts.items()}
                found[f"{at}_norm.weight"] = Place(f"{there}.layer_norm.weight")
            at, there = f"{stack}.layers.{i}.feed_forward", f"{stack}.block.{i}.layer.{len(blocks)}"
            found |= {f"{at}.{o}.weight": Place(f"{there}.DenseReluDense.{t}.weight") for o, t in (("up", "wi"), ("down", "wo"))}
            found[f"{at}_norm.weight"] = Place(f"{there}.layer_norm.weight")
    return found


_BODIES = {"bert": _bert, "gpt2": _gpt2, "marian": _marian, "t5": _t5}
