"""What one Transformer may be: sizes, and the choices in which BERT, GPT-2, T5 and the first one differ."""

from typing import Annotated, Any, Literal

from pydantic import Field

from trainformer.core.component import Component
from trainformer.core.errors import UserError

Form = Literal["encoder", "decoder", "encoder-decoder"]
Positions = Literal["sinusoidal", "learned", "rotary", "relative"]
Activation = Literal["relu", "gelu", "gelu_tanh", "swiglu", "silu"]
Initialisation = Literal["xavier", "truncated_normal", "depth_scaled", "fan_in", "mup"]
BASE_WIDTH = 128
"""A rate that fits a model of this width fits wider ones, too, under muP."""
Share = Annotated[float, Field(ge=0, lt=1)]


class Sizes(Component):
    """What a user may set; what is none is the preset's."""

    width: int | None = Field(None, ge=2)
    """Width of the hidden states."""
    layers: int | None = Field(None, ge=1)
    """Layers of each stack."""
    decoder_layers: int | None = Field(None, ge=1)
    """Layers of the decoder where it has another number than the encoder."""
    heads: int | None = Field(None, ge=1)
    """Heads of attention; they divide the width."""
    kv_heads: int | None = Field(None, ge=1)
    """Heads of keys and values, each shared by several of the queries' (Ainslie et al. 2023, arXiv:2305.13245)."""
    feed_forward: int | None = Field(None, ge=1)
    """Width inside the feed-forward layers."""
    dropout: Share | None = None
    """Dropout of what each layer adds to the residual stream, 0..1."""
    attention_dropout: Share | None = None
    """Dropout of attention weights, 0..1; fused attention has none and is several times faster."""
    embedding_dropout: Share | None = None
    """Dropout of the embeddings, 0..1."""
    norm: Literal["layer", "rms"] | None = None
    """layer: LayerNorm (Ba et al. 2016, arXiv:1607.06450); rms: RMSNorm, without mean and bias (2019, arXiv:1910.07467)."""
    norm_place: Literal["pre", "post"] | None = None
    """post: norm(x + f(x)), as first published; pre: x + f(norm(x)), which trains deep stacks (2020, arXiv:2002.04745)."""
    positions: Positions | None = None
    """How places are told: sinusoidal (2017), learned, rotary (arXiv:2104.09864), relative (T5, arXiv:1910.10683)."""
    activation: Activation | None = None
    """Inside the feed-forward: relu, gelu, gelu_tanh (its approximation), silu, or swiglu with a gate (arXiv:2002.05202)."""
    tied: bool | None = None
    """Whether the output layer is the table of embeddings (Press and Wolf 2017, arXiv:1608.05859)."""
    window: int | None = Field(None, ge=1)
    """A token sees those less than that far away: local attention, whose cost grows with the length; none: all."""
    initialisation: Initialisation | None = None
    """How weights begin: see models/initialisation.py for what each is for."""
    positions_max: int | None = Field(None, ge=8)
    """Most tokens of a sequence, special tokens included."""


class Design(Component):
    """A Transformer, whole: all that `models/transformer.py` needs to build it."""

    vocabulary: int = Field(0, ge=0)
    form: Form = "encoder"
    width: int = 512
    layers: int = 6
    decoder_layers: int | None = None
    heads: int = 8
    kv_heads: int | None = None
    head_width: int | None = None
    feed_forward: int = 2048
    dropout: float = 0.1
    attention_dropout: float = 0.0
    embedding_dropout: float = 0.1
    norm: Literal["layer", "rms"] = "layer"
    norm_place: Literal["pre", "post"] = "post"
    norm_eps: float = 1e-5
    positions: Positions = "sinusoidal"
    positions_max: int = 1024
    activation: Activation = "relu"
    tied: bool = True
    window: int | None = None
    initialisation: Initialisation = "xavier"
    biases: bool = True
    """Whether linear layers have one: T5's have none."""
    scaled_embedding: bool = True
    """Embeddings times sqrt(D), as first published; so that they are not lost beside the positions."""
    embedding_norm: bool = False
    """A norm after the embeddings: BERT."""
    kinds: int = 0
    """Types of token, as the two texts of a pair: BERT."""
    scaled_scores: bool = True
    """Scores over sqrt(K); T5 leaves that to its initial weights."""
    output: Literal["plain", "bias", "scaled", "transformed"] = "plain"
    """Before the output layer nothing; with a bias (Marian); times 1/sqrt(D) (T5); a layer and a norm, with a bias (BERT)."""
    buckets: int = 32
    distance_max: int = 128

    @property
    def inner(self) -> int:
        """The width K of a head."""
        return self.head_width or self.width // self.heads

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def depth(self) -> int:
        """Layers of the decoder, or of the only stack."""
        return (self.decoder_layers or self.layers) if self.form == "encoder-decoder" else self.layers

    def checked(self) -> "Design":
        """Itself. Raises UserError for sizes that do not go together."""
        where = "model"
        if self.head_width is None and self.width % self.heads:
            near = [n for n in range(1, self.width + 1) if self.width % n == 0]
            fix = f"Numbers that divide {self.width}: {', '.join(map(str, near[:12]))}."
            raise UserError(f"{self.heads} heads do not divide a width of {self.width}.", where="model.heads", fix=fix)
        if self.heads % self.groups:
            what = f"{self.groups} heads of keys and values do not divide {self.heads} heads."
            raise UserError(what, where="model.kv_heads")
        if self.positions == "rotary" and self.inner % 2:
            raise UserError(f"rotary positions need heads of an even width, not {self.inner}.", where="model.heads")
        if self.positions == "relative" and self.window is not None:
            what = "relative positions and a window do not go together."
            raise UserError(what, where="model.window", fix="Take rotary positions.")
        if not self.vocabulary:
            raise UserError("its vocabulary is empty.", where=where, fix="Give --set model.tokenizer=FOLDER.")
        return self


def designed(base: Design, asked: dict[str, Any]) -> Design:
    """The design with what was asked for laid over it; a new width brings the feed-forward along, in proportion."""
    given = {name: value for name, value in asked.items() if value is not None}
    if "width" in given and "feed_forward" not in given:
        given["feed_forward"] = given["width"] * base.feed_forward // base.width
    return base.model_copy(update=given)
