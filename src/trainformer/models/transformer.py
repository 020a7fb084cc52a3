"""The Transformer: an encoder, a decoder, or both, the decoder attending to what the encoder made of the source.

    x = embedding of each token + where it stands
    for each layer:
        x = x + attention(x)            what the other tokens say            softmax(q k^T / sqrt(K)) v
        x = x + cross_attention(x, m)   what the source m says               (a decoder with a source)
        x = x + feed_forward(x)         each token for itself                W2 f(W1 x)
    with a norm before or after each of them

Vaswani et al. 2017, arXiv:1706.03762. Sequences lie end to end, "T D" for all T tokens of a batch: no token is padding, and
attention alone knows where a sequence ends. docs/ideas.md derives each step and points here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch, Packed
from trainformer.core.roles import Body
from trainformer.models.design import BASE_WIDTH, Design
from trainformer.models.encoder import filled
from trainformer.nn.cache import Cache, attend_cached, attend_memory
from trainformer.nn.layout import Layout, paired
from trainformer.nn.native.linear import speeds
from trainformer.nn.packed_attention import View, attend
from trainformer.nn.positions import buckets, rotate, rotation, sinusoids


@dataclass(frozen=True)
class Sight:
    """What the layers of a stack are told beside the states: where sequences lie, where tokens stand, what else is seen.

    `turn` and `bias`, `relative`: rotary and relative positions. `across`: the layouts of the target and of its source, whose
    states `memory` are. `cache`: while a text is written, its past; then "T D" are the next `width` tokens of each text.
    """

    layout: Layout | None = None
    turn: tuple[Tensor, Tensor] | None = None
    bias: Mapping[int, Tensor] | None = None
    relative: Callable[[Tensor], Tensor] | None = None
    across: tuple[Layout, Layout] | None = None
    memory: Tensor | None = None
    cache: Cache | None = None
    width: int = 1


class Attention(nn.Module):
    """Each token asks (query), all tokens answer (key) and tell (value): softmax(q k^T / sqrt(K)) v, in H heads."""

    def __init__(self, design: Design, number: int, causal: bool, cross: bool = False):
        super().__init__()
        self.heads, self.groups, self.inner = design.heads, design.groups, design.inner
        self.query = nn.Linear(design.width, self.heads * self.inner, bias=design.biases)
        self.key = nn.Linear(design.width, self.groups * self.inner, bias=design.biases)
        self.value = nn.Linear(design.width, self.groups * self.inner, bias=design.biases)
        self.output = nn.Linear(self.heads * self.inner, design.width, bias=design.biases)
        self.number, self.causal, self.cross = number, causal, cross
        self.scale = None if design.scaled_scores else 1.0
        self.window, self.dropout = (None if cross else design.window), design.attention_dropout

    def forward(self, x: Tensor, sight: Sight) -> Tensor:
        """Tokens "T D" -> what each has heard, "T D"."""
        query = self._in_heads(self.query(x))
        if sight.turn is not None and not self.cross:
            query = rotate(query, sight.turn)
        heard = self._packed(query, x, sight) if sight.cache is None else self._cached(query, x, sight, sight.cache)
        out: Tensor = self.output(heard.flatten(1))
        return out

    def told(self, source: Tensor, turn: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values "H T K" of the tokens that are asked."""
        key, value = self._in_heads(self.key(source)), self._in_heads(self.value(source))
        return (key if turn is None else rotate(key, turn)), value

    def _packed(self, query: Tensor, x: Tensor, sight: Sight) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        if self.cross:
            assert sight.memory is not None and sight.across is not None, "cross-attention needs a source"
            view = View(self.scale, dropout, native=speeds(self))
            return attend(query, *self.told(sight.memory), *sight.across, view)
        assert sight.layout is not None, "tokens that are not cached have a layout"
        view = View(self.scale, dropout, self.causal, self.window, sight.bias, native=speeds(self))
        return attend(query, *self.told(x, sight.turn), sight.layout, sight.layout, view)

    def _cached(self, query: Tensor, x: Tensor, sight: Sight, cache: Cache) -> Tensor:
        """The same for the next tokens of each text alone, "N*W D": the others' keys and values are kept."""

        def by_text(heads: Tensor) -> Tensor:
            return heads.transpose(0, 1).unflatten(0, (-1, sight.width))

        if self.cross:
            heard = attend_memory(by_text(query), self.number, cache, self.scale)
        else:
            cache.extend(self.number, *map(by_text, self.told(x, sight.turn)))
            heard = attend_cached(by_text(query), self.number, cache, self.window, self.scale, sight.relative)
        return heard.flatten(0, 1)

    def _in_heads(self, states: Tensor) -> Tensor:
        """ "T H*K" -> "H T K"."""
        return states.unflatten(-1, (-1, self.inner)).transpose(0, 1)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "silu": nn.SiLU,
    "swiglu": nn.SiLU,
}


class FeedForward(nn.Module):
    """Each token for itself: up to width F, a bend, down again; swiglu multiplies by a gate (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, design: Design):
        super().__init__()
        self.gate = nn.Linear(design.width, design.feed_forward, bias=design.biases) if design.activation == "swiglu" else None
        self.up = nn.Linear(design.width, design.feed_forward, bias=design.biases)
        self.down = nn.Linear(design.feed_forward, design.width, bias=design.biases)
        self.bend = ACTIVATIONS[design.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """ "T D" -> "T D"."""
        inner = self.bend(self.up(x)) if self.gate is None else self.bend(self.gate(x)) * self.up(x)
        out: Tensor = self.down(inner)
        return out


def norm(design: Design) -> nn.Module:
    """LayerNorm, g (x - mean) / sqrt(variance + eps) + b with learned g and b, or RMSNorm, g x / sqrt(mean of x^2 + eps)."""
    return (nn.LayerNorm if design.norm == "layer" else nn.RMSNorm)(design.width, eps=design.norm_eps)


class Layer(nn.Module):
    """Attention, attention to the source where there is one, feed-forward: each adds to the residual stream."""

    def __init__(self, design: Design, number: int, causal: bool, cross: bool):
        super().__init__()
        self.attention, self.attention_norm = Attention(design, number, causal), norm(design)
        self.cross = Attention(design, number, False, cross=True) if cross else None
        self.cross_norm = norm(design) if cross else None
        self.feed_forward, self.feed_forward_norm = FeedForward(design), norm(design)
        self.dropout = nn.Dropout(design.dropout)
        self.before = design.norm_place == "pre"

    def forward(self, x: Tensor, sight: Sight) -> Tensor:
        """ "T D" -> "T D"."""
        x = self._add(x, self.attention_norm, lambda states: self.attention(states, sight))
        if self.cross is not None and self.cross_norm is not None:
            cross = self.cross
            x = self._add(x, self.cross_norm, lambda states: cross(states, sight))
        return self._add(x, self.feed_forward_norm, self.feed_forward)

    def _add(self, x: Tensor, norm: nn.Module, layer: Callable[[Tensor], Tensor]) -> Tensor:
        """The residual: the gradient reaches every layer through the sum (He et al. 2015, arXiv:1512.03385)."""
        if self.before:
            out: Tensor = x + self.dropout(layer(norm(x)))
        else:
            out = norm(x + self.dropout(layer(x)))
        return out


class Stack(nn.Module):
    """Layers one on another. With norms before the layers, a last one follows them."""

    def __init__(self, design: Design, layers: int, causal: bool, cross: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(Layer(design, number, causal, cross) for number in range(layers))
        self.norm = norm(design) if design.norm_place == "pre" else nn.Identity()
        self.relative = nn.Embedding(design.buckets, design.heads) if design.positions == "relative" else None
        self.design, self.causal = design, causal

    def forward(self, x: Tensor, places: Tensor, sight: Sight) -> Tensor:
        """States "T D" of tokens that stand at `places` "T" -> "T D"."""
        if self.design.positions == "rotary":
            sight = replace(sight, turn=rotation(places, self.design.inner))
        if self.relative is not None:
            lengths = set() if sight.layout is None else set(sight.layout.lengths)
            sight = replace(sight, relative=self._bias, bias={n: self._of_length(n, x.device) for n in lengths})
        for layer in self.layers:
            x = layer(x, sight)
        out: Tensor = self.norm(x)
        return out

    def _of_length(self, length: int, device: torch.device) -> Tensor:
        places = torch.arange(length, device=device)
        return self._bias(places - places[:, None]).permute(2, 0, 1).contiguous()

    def _bias(self, distance: Tensor) -> Tensor:
        """What is added to the scores, by distance (key minus query): "... H"."""
        assert self.relative is not None
        found: Tensor = self.relative(buckets(distance, self.design.buckets, self.design.distance_max, self.causal))
        return found


class Table(nn.Embedding):
    """The embeddings of the vocabulary, which the output layer may be, too."""


class Transformer(Body):
    """An encoder, a decoder, or both, over packed batches; with both, a batch has a part of sources and one of targets."""

    packed = True

    def __init__(self, design: Design):
        super().__init__()
        self.design, self.width = design, design.width
        self.table = Table(design.vocabulary, design.width)
        self.places = nn.Embedding(design.positions_max, design.width) if design.positions == "learned" else None
        self.kinds = nn.Embedding(design.kinds, design.width) if design.kinds else None
        self.embedding_norm = norm(design) if design.embedding_norm else nn.Identity()
        self.dropout = nn.Dropout(design.embedding_dropout)
        both = design.form == "encoder-decoder"
        self.encoder = Stack(design, design.layers, causal=False) if design.form != "decoder" else None
        self.decoder = Stack(design, design.depth, causal=True, cross=both) if design.form != "encoder" else None

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """The states "T D" of each part. A target's are those that predict its next tokens."""
        if self.encoder is None or self.decoder is None:
            stack = self.encoder or self.decoder
            assert stack is not None
            return tuple(self._alone(stack, part) for part in batch.parts)
        sizes = [len(part.ids) for part in batch.parts]
        source, target = (filled(part, 1) for part in batch.parts)
        memory = self._alone(self.encoder, source)
        sight = Sight(Layout.of(target.lengths), across=paired(target.lengths, source.lengths), memory=memory)
        places = _places(target)
        states = self.decoder(self._embedded(target.ids, places), places, sight)
        return memory[: sizes[0]], states[: sizes[1]]

    def _alone(self, stack: Stack, part: Packed) -> Tensor:
        """The states "T D" of sequences that see themselves alone."""
        tokens, part = len(part.ids), filled(part)
        places = _places(part)
        states: Tensor = stack(self._embedded(part.ids, places, part.kinds), places, Sight(Layout.of(part.lengths)))
        return states[:tokens]

    def _embedded(self, ids: Tensor, places: Tensor, kinds: Tensor | None = None) -> Tensor:
        """Token, place and kind of each token as one state: "T D"."""
        x: Tensor = self.table(ids)
        if self.design.scaled_embedding:
            x = x * math.sqrt(self.width)
        if self.design.positions == "sinusoidal":
            x = x + sinusoids(places, self.width).to(x.dtype)
        if self.places is not None:
            x = x + self.places(places.clamp_max(self.design.positions_max - 1))  # what only fills up may stand beyond
        if self.kinds is not None:
            x = x + self.kinds(torch.zeros_like(ids) if kinds is None else kinds)
        out: Tensor = self.dropout(self.embedding_norm(x))
        return out

    def begin(self, texts: int, source: Packed | None = None) -> Cache:
        """An empty past for texts that will be written: as many for each sequence of the source, side by side."""
        device = self.table.weight.device
        cache = Cache(torch.zeros(texts, dtype=torch.long, device=device))
        if source is not None and self.encoder is not None and self.decoder is not None:
            memory = self._alone(self.encoder, source)
            for number, layer in enumerate(self.decoder.layers):
                assert isinstance(layer, Layer) and layer.cross is not None
                cache.remember(number, source.lengths, layer.cross.told(memory))
        return cache

    def step(self, ids: Tensor, cache: Cache, counts: Tensor | None = None) -> Tensor:
        """The states "N W D" of the next tokens "N W" of each text, of which `counts` "N" are no padding (none: all)."""
        stack, width = self.decoder, ids.shape[1]
        assert stack is not None, "an encoder writes nothing"
        places = cache.places(width).flatten()
        states: Tensor = stack(self._embedded(ids.flatten(), places), places, Sight(cache=cache, width=width))
        cache.lengths = cache.lengths + (width if counts is None else counts)
        return states.view(*ids.shape, -1)

    def rates(self) -> dict[str, float]:
        """Under mup matrices learn at a rate that falls with the width, as long as they are new."""
        if self.rate is None or self.design.initialisation != "mup":
            return {}
        return {f"{name}.weight": BASE_WIDTH / self.width for name, m in self.named_modules() if isinstance(m, nn.Linear)}

    def embed(self) -> nn.Embedding:
        return self.table

    def blocks(self) -> list[nn.Module]:
        """Embeddings, then the layers from the bottom up, an encoder's below a decoder's."""
        return [self.table, *(layer for stack in (self.encoder, self.decoder) if stack is not None for layer in stack.layers)]


def _places(part: Packed) -> Tensor:
    """Where each token stands in its sequence: "T"."""
    return torch.cat([torch.arange(n, device=part.ids.device) for n in part.lengths])
