"""Keys and values that are kept while a text is written, so that each new token costs one token's work."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from trainformer.nn.local_attention import seen
from trainformer.nn.native.look_back import look_back, looks_back

Pair = tuple[Tensor, Tensor]
ROOM = 8
"""Places by which the cache grows at least."""


@dataclass
class Cache:
    """The past of N texts of unequal lengths, for each attention layer by its number.

    `lengths` "N": tokens of each text so far. `own`: their keys and values "R L H K", and `memory`: those "Q S H K" of sources,
    each of which is read by N/M texts that lie side by side (the beams of a search); `real` "M S": which places are no padding.
    `rows` "N": in which row each text puts its next token, `origin` "N P": in which row each of its tokens lies, and `heard` "M":
    in which row a source lies; none: in that of the same number. `covered` "N S", if it is kept: how much attention each place of
    the source got in the last layer, all heads alike.
    """

    lengths: Tensor
    own: dict[int, Pair] = field(default_factory=dict)
    memory: dict[int, Pair] = field(default_factory=dict)
    real: Tensor | None = None
    covered: Tensor | None = None
    rows: Tensor | None = None
    origin: Tensor | None = None
    heard: Tensor | None = None

    def remember(self, number: int, lengths: list[int], told: Pair) -> None:
        """Keeps what a layer is told of the sources: keys and values "H T K", end to end."""
        device = told[0].device
        self.real = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]
        padded = [flat.new_zeros(*self.real.shape, flat.shape[0], flat.shape[2]) for flat in told]
        for laid, flat in zip(padded, told, strict=True):
            laid[self.real] = flat.transpose(0, 1)
        self.memory[number] = (padded[0], padded[1])

    def places(self, width: int) -> Tensor:
        """Where the next `width` tokens of each text will stand: "N W"."""
        return self.lengths[:, None] + torch.arange(width, device=self.lengths.device)

    def extend(self, number: int, key: Tensor, value: Tensor) -> None:
        """Puts keys and values "N W H K" of the next tokens in their places.

        What padding of a shorter text leaves behind its end is not seen, and is written over by what comes next.
        """
        places = self.places(key.shape[1])
        keys, values = self.own.get(number, (key.new_zeros(len(key), 0, *key.shape[2:]),) * 2)
        missing = int(places.max()) + 1 - keys.shape[1]
        if missing > 0:
            more = (0, 0, 0, 0, 0, max(missing, ROOM, keys.shape[1] // 4))
            keys, values = pad(keys, more), pad(values, more)
        rows = torch.arange(len(key), device=key.device) if self.rows is None else self.rows
        index = (rows[:, None] * keys.shape[1] + places).flatten()
        for old, new in ((keys, key), (values, value)):
            old.flatten(0, 1).index_copy_(0, index, new.flatten(0, 1).to(old.dtype))
        self.own[number] = keys, values

    def laid(self, number: int) -> Pair:
        """Keys and values "N L H K" of a layer, each text's in its own row."""
        key, value = self.own[number]
        if self.origin is None:
            return key, value
        length = min(self.origin.shape[1], key.shape[1])
        origin, places = self.origin[:, :length], torch.arange(length, device=key.device)
        return key[origin, places], value[origin, places]

    def sources(self, number: int) -> Pair:
        """Keys and values "M S H K" of the sources in a layer."""
        key, value = self.memory[number]
        return (key, value) if self.heard is None else (key[self.heard], value[self.heard])

    def distances(self, width: int, keys: int) -> Tensor:
        """How far each of the next tokens is from each key, queries minus keys: "N W L"."""
        return self.places(width)[:, :, None] - torch.arange(keys, device=self.lengths.device)

    def select(self, texts: Tensor, sources: Tensor | None = None) -> None:
        """Goes on with these texts, in this order, and with these sources."""
        self.lay_out()
        self.lengths = self.lengths[texts]
        self.own = {n: (k.index_select(0, texts), v.index_select(0, texts)) for n, (k, v) in self.own.items()}
        self.covered = None if self.covered is None else self.covered[texts]
        if sources is not None and self.real is not None:
            self.memory = {n: (k[sources], v[sources]) for n, (k, v) in self.memory.items()}
            self.real = self.real[sources]

    def follow(self, texts: Tensor, sources: Tensor | None = None) -> None:
        """The same where each source has as many texts as before: nothing is moved, and what lies where is noted."""
        device, count = texts.device, len(self.lengths)
        if self.rows is None or self.origin is None:
            longest = max(key.shape[1] for key, _ in self.own.values())
            self.rows = torch.arange(count, device=device)
            self.origin = self.rows[:, None].expand(-1, longest)
        if sources is not None:
            self.rows = self.rows.view(-1, len(texts) // len(sources))[sources].flatten()
            if self.real is not None:
                self.heard = sources if self.heard is None else self.heard[sources]
                self.real = self.real[sources]
        self.lengths = self.lengths[texts]
        self.covered = None if self.covered is None else self.covered[texts]
        origin = self.origin[texts]
        missing = int(self.lengths.max()) + 1 - origin.shape[1]
        origin = pad(origin, (0, max(missing, ROOM))) if missing > 0 else origin
        self.origin = origin.scatter_(1, self.lengths[:, None], self.rows[:, None])
        if 2 * len(self.rows) <= max(len(key) for key, _ in self.own.values()):
            self.lay_out()

    def lay_out(self) -> None:
        """Puts each text and each source in the row of its number."""
        self.own = {n: self.laid(n) for n in self.own}
        self.memory = {n: self.sources(n) for n in self.memory}
        self.rows = self.origin = self.heard = None

    def joined(self, other: "Cache") -> "Cache":
        """The texts and sources of both, the other's behind."""
        self.lay_out()
        other.lay_out()
        both = Cache(torch.cat([self.lengths, other.lengths]), {n: _joined(self.own[n], other.own[n]) for n in self.own})
        if self.real is not None and other.real is not None:
            both.memory = {n: _joined(self.memory[n], other.memory[n]) for n in self.memory}
            both.real = _behind(self.real, other.real)
        if self.covered is not None and other.covered is not None:
            both.covered = _behind(self.covered, other.covered)
        return both


def _joined(one: Pair, other: Pair) -> Pair:
    """Keys and values "N L H K" of both."""
    return _behind(one[0], other[0]), _behind(one[1], other[1])


def _behind(one: Tensor, other: Tensor) -> Tensor:
    """The rows "N L ..." of both, the shorter ones filled up with 0."""
    longest = max(one.shape[1], other.shape[1])
    return torch.cat([pad(t, (0, 0) * (t.dim() - 2) + (0, longest - t.shape[1])) for t in (one, other)])


def attend_cached(
    query: Tensor, number: int, cache: Cache, window: int | None, scale: float | None, bias: Callable[[Tensor], Tensor] | None
) -> Tensor:
    """Attention of the next tokens "N W H K" over all of their texts so far -> "N W H K".

    `bias`: what is added to the scores, "N W L H" by the distances "N W L" of keys minus queries.
    """
    if bias is None and query.shape[1] == 1 and looks_back(query):
        return look_back(query, cache.own[number], cache.lengths + 1, (cache.rows, cache.origin), scale, window)
    key, value = cache.laid(number)
    distance = cache.distances(query.shape[1], key.shape[1])
    mask = seen(distance, True, window)[:, None]
    if bias is not None:
        mask = bias(-distance).permute(0, 3, 1, 2).masked_fill(~mask, float("-inf"))
    return _attended(query, key, value, mask, scale)


def attend_memory(query: Tensor, number: int, cache: Cache, scale: float | None) -> Tensor:
    """Attention of tokens "N W H K" over their sources -> "N W H K"; the texts of a source go together, nothing is copied."""
    assert cache.real is not None, "cross-attention needs a source"
    width, count = query.shape[1], len(query) // len(cache.real)
    covers = cache.covered is not None and number == max(cache.memory)
    if width == 1 and not covers and looks_back(query):
        rows = torch.arange(len(cache.real)) if cache.heard is None else cache.heard
        lengths = cache.real.sum(1).repeat_interleave(count)
        return look_back(query, cache.memory[number], lengths, (rows.repeat_interleave(count), None), scale)
    key, value = cache.sources(number)
    beside = query.unflatten(0, (-1, count)).flatten(1, 2)
    mask = cache.real[:, None, None]
    if covers:
        scores = torch.einsum("mqhk,mshk->mhqs", beside, _shared(key, query).to(query.dtype))
        scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).mean(1).unflatten(1, (count, width))
        cache.covered = cache.covered + weights.sum(2).flatten(0, 1)
    return _attended(beside, key, value, mask, scale).unflatten(1, (count, width)).flatten(0, 1)


def _attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None) -> Tensor:
    """ "N W H K" of keys and values "N L H K"."""
    key, value = (_shared(t, query).to(query.dtype).transpose(1, 2) for t in (key, value))
    return scaled_dot_product_attention(query.transpose(1, 2), key, value, attn_mask=mask, scale=scale).transpose(1, 2)


def _shared(told: Tensor, query: Tensor) -> Tensor:
    """Keys or values "N L H K" with a head for each of the queries'."""
    heads = query.shape[2]
    return told if told.shape[2] == heads else told.repeat_interleave(heads // told.shape[2], 2)
