"""Keys and values that are kept while a text is written, so that each new token costs one token's work."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from trainformer.nn.local_attention import seen

Pair = tuple[Tensor, Tensor]
ROOM = 8
"""Places by which the cache grows at least: a search lays it out anew at each token, so little of it should be empty."""


@dataclass
class Cache:
    """The past of N texts of unequal lengths, for each attention layer by its number.

    `lengths` "N": tokens of each text so far. `own`: keys and values "N H L K" of the texts. `memory`: those "M H S K" of M
    sources, each read by N/M texts that lie side by side (the beams of a search); `real` "M S": which places are no padding.
    `covered` "N S", if it is kept: how much attention each place of the source got in the last layer, all heads alike.
    """

    lengths: Tensor
    own: dict[int, Pair] = field(default_factory=dict)
    memory: dict[int, Pair] = field(default_factory=dict)
    real: Tensor | None = None
    covered: Tensor | None = None

    def remember(self, number: int, lengths: list[int], told: Pair) -> None:
        """Keeps what a layer is told of the sources: keys and values "H T K", end to end."""
        device = told[0].device
        self.real = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]
        padded = []
        for flat in told:
            laid = flat.new_zeros(*self.real.shape, flat.shape[0], flat.shape[2])
            laid[self.real] = flat.transpose(0, 1)
            padded.append(laid.transpose(1, 2))
        self.memory[number] = (padded[0], padded[1])

    def places(self, width: int) -> Tensor:
        """Where the next `width` tokens of each text will stand: "N W"."""
        return self.lengths[:, None] + torch.arange(width, device=self.lengths.device)

    def extend(self, number: int, key: Tensor, value: Tensor) -> Pair:
        """Puts keys and values "N H W K" of the next tokens in their places; all of the layer's so far.

        What padding of a shorter text leaves behind its end is not seen, and is written over by what comes next.
        """
        places = self.places(key.shape[2])
        kept = self.own.get(number, (key.new_zeros(*key.shape[:2], 0, key.shape[3]),) * 2)
        missing = int(places.max()) + 1 - kept[0].shape[2]
        if missing > 0:
            kept = tuple(pad(t, (0, 0, 0, max(missing, ROOM, t.shape[2] // 4))) for t in kept)  # type: ignore[assignment]
        index = places[:, None, :, None].expand_as(key)
        for old, new in zip(kept, (key, value), strict=True):
            old.scatter_(2, index, new.to(old.dtype))
        self.own[number] = kept
        return kept

    def distances(self, width: int, number: int) -> Tensor:
        """How far each of the next tokens is from each key, queries minus keys: "N W L"."""
        keys = torch.arange(self.own[number][0].shape[2], device=self.lengths.device)
        return self.places(width)[:, :, None] - keys

    def select(self, texts: Tensor, sources: Tensor | None = None) -> None:
        """Goes on with these texts, in this order, and with these sources."""
        self.lengths = self.lengths[texts]
        self.own = {n: (k.index_select(0, texts), v.index_select(0, texts)) for n, (k, v) in self.own.items()}
        self.covered = None if self.covered is None else self.covered[texts]
        if sources is not None and self.real is not None:
            self.memory = {n: (k[sources], v[sources]) for n, (k, v) in self.memory.items()}
            self.real = self.real[sources]

    def joined(self, other: "Cache") -> "Cache":
        """The texts and sources of both, the other's behind."""
        both = Cache(torch.cat([self.lengths, other.lengths]), {n: _joined(self.own[n], other.own[n]) for n in self.own})
        if self.real is not None and other.real is not None:
            both.memory = {n: _joined(self.memory[n], other.memory[n]) for n in self.memory}
            both.real = _behind(self.real, other.real, 1)
        if self.covered is not None and other.covered is not None:
            both.covered = _behind(self.covered, other.covered, 1)
        return both


def _joined(one: Pair, other: Pair) -> Pair:
    """Keys and values "N H L K" of both."""
    return _behind(one[0], other[0], 2), _behind(one[1], other[1], 2)


def _behind(one: Tensor, other: Tensor, side: int) -> Tensor:
    """The rows of both, the shorter ones filled up with 0 along a side."""
    longest = max(one.shape[side], other.shape[side])
    return torch.cat([pad(t, (0, 0) * (t.dim() - 1 - side) + (0, longest - t.shape[side])) for t in (one, other)])


def attend_cached(
    query: Tensor, pair: Pair, distance: Tensor, window: int | None, scale: float | None, bias: Tensor | None
) -> Tensor:
    """Attention of the next tokens "N H W K" over all of their texts so far -> "N H W K". `bias` "N H W L"."""
    key, value = _shared(pair, query.shape[1])
    visible = seen(distance, True, window)[:, None]
    mask = visible if bias is None else bias.masked_fill(~visible, float("-inf"))
    return scaled_dot_product_attention(query, key.to(query.dtype), value.to(query.dtype), attn_mask=mask, scale=scale)


def attend_memory(query: Tensor, number: int, cache: Cache, scale: float | None) -> Tensor:
    """Attention of tokens "N H W K" over their sources -> "N H W K"; the texts of a source go together, nothing is copied."""
    assert cache.real is not None, "cross-attention needs a source"
    key, value = (t.to(query.dtype) for t in _shared(cache.memory[number], query.shape[1]))
    count, width = len(query) // len(cache.real), query.shape[2]
    beside = query.unflatten(0, (-1, count)).transpose(1, 2).flatten(2, 3)
    mask = cache.real[:, None, None]
    if cache.covered is not None and number == max(cache.memory):
        scores = (beside @ key.transpose(-1, -2)) * (query.shape[-1] ** -0.5 if scale is None else scale)
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).mean(1).unflatten(1, (count, width))
        cache.covered = cache.covered + weights.sum(2).flatten(0, 1)
    out = scaled_dot_product_attention(beside, key, value, attn_mask=mask, scale=scale)
    return out.unflatten(2, (count, width)).transpose(1, 2).flatten(0, 1)


def _shared(pair: Pair, heads: int) -> Pair:
    """Keys and values with a head for each of the queries'."""
    key, value = pair
    if key.shape[1] == heads:
        return pair
    return key.repeat_interleave(heads // key.shape[1], 1), value.repeat_interleave(heads // key.shape[1], 1)
