"""Near duplicates without comparing all pairs: MinHash and banded hashing, verified on a sketch, in constant memory.

MinHash: Broder 1997, "On the resemblance and containment of documents"; the sketch: one permutation hashing, Li, Owen and
Zhang 2012 (arXiv:1208.1259). A row costs 160 bytes in temporary files and 8 bytes in memory for its group; grouping sorts
one band at a time, which takes about 95 bytes a row for a moment.
"""

import tempfile
import unicodedata
import weakref
from array import array
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from trainformer.core.files import disk_error

GRAM = 4
BANDS, BAND_ROWS = 8, 4
BINS = 128
NEAR = 0.8
"""Least Jaccard similarity of the sets of character 4-grams of two near duplicates."""
MAX_CHARS = 2**14
"""Characters of a loose text that are compared; longer texts that begin alike are near duplicates."""
CHUNK_CHARS = 2**18
WINDOW = 8
"""How many neighbours in a band's bucket a row is compared with, beside the first of the bucket."""
PAIRS = 4096
"""Pairs that are verified at a time."""


class _Kept(dict[int, int | None]):
    """For str.translate: drops white space, punctuation, digits and controls; learns each character once."""

    def __missing__(self, code: int) -> int | None:
        category = unicodedata.category(chr(code))
        self[code] = None if category[0] in "PZ" or category in ("Nd", "Cc", "Cf") else code
        return self[code]


_KEPT = _Kept()


def loose(text: str) -> str:
    """A text without case, width, white space, punctuation and digits; the text itself if nothing is left.

    >>> loose("Ｇreat, 10/10 !"), loose("10/10")
    ('great', '10/10')
    """
    return unicodedata.normalize("NFKC", text).casefold().translate(_KEPT) or text


def mix(values: Tensor) -> Tensor:
    """A bijection of int64 that spreads every bit over all (the finalizer of splitmix64, Steele et al. 2014)."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        values = (values ^ _right(values, shift)) * factor
    return values ^ _right(values, 31)


def _right(values: Tensor, shift: int) -> Tensor:
    return (values >> shift) & ((1 << (64 - shift)) - 1)


class Signatures:
    """Band hashes and sketches of rows, in temporary files that vanish with the object. UserError: the disk is full."""

    def __init__(self, texts_a_row: int):
        self.rows, self.texts_a_row = 0, texts_a_row
        files: list[IO[bytes]] = [tempfile.TemporaryFile(buffering=0) for _ in range(BANDS + 1)]  # noqa: SIM115
        self._bands, self._sketches = files[:BANDS], files[BANDS]
        self._close = weakref.finalize(self, _close, files)

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        """Appends rows, each given by its loose texts."""
        for some in _chunks(rows):
            hashes, owner, part = _grams(some, self.texts_a_row)
            bands = _bands(hashes, owner, len(some))
            sketch = _sketch(hashes, owner * self.texts_a_row + part, len(some), self.texts_a_row)
            for file, band in zip(self._bands, bands, strict=True):
                _write(file, band)
            _write(self._sketches, sketch)
            self.rows += len(some)

    def band(self, index: int) -> Tensor:
        """The hashes int32 "N" of one band."""
        buffer = bytearray(4 * self.rows)
        with open(self._bands[index].fileno(), "rb", closefd=False) as file:
            file.seek(0)
            assert file.readinto(buffer) == len(buffer), "bands are read as they were written"
        return torch.frombuffer(buffer, dtype=torch.int32) if buffer else torch.empty(0, dtype=torch.int32)

    def sketches(self, rows: Tensor) -> Tensor:
        """The sketches of some rows, uint8: one line of BINS each. Read one by one: a memory map would pull in its neighbours."""
        found = bytearray()
        for row in rows.tolist():
            self._sketches.seek(BINS * row)
            found += self._sketches.read(BINS)
        return torch.frombuffer(found, dtype=torch.uint8).view(len(rows), BINS)


def _close(files: list[IO[bytes]]) -> None:
    for file in files:
        file.close()


def _write(file: IO[bytes], values: Tensor) -> None:
    plain = values.contiguous().view(torch.uint8).flatten()
    buffer = bytearray(len(plain))
    torch.frombuffer(buffer, dtype=torch.uint8).copy_(plain)
    try:
        file.seek(0, 2)
        left = memoryview(buffer)
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise disk_error(error, Path(tempfile.gettempdir())) from error


def _chunks(rows: Sequence[Sequence[str]]) -> Iterator[list[list[str]]]:
    """Rows in runs of at most CHUNK_CHARS characters; texts are cut at MAX_CHARS and filled up to one gram."""
    run, chars = [], 0
    for row in rows:
        run.append([text[:MAX_CHARS].ljust(GRAM, "\0") for text in row])
        chars += sum(len(text) for text in run[-1])
        if chars >= CHUNK_CHARS:
            yield run
            run, chars = [], 0
    if run:
        yield run


def _grams(rows: list[list[str]], texts_a_row: int) -> tuple[Tensor, Tensor, Tensor]:
    """The hash of each character 4-gram, the row it stands in and which of its texts; grams across borders are left out."""
    texts = [text for row in rows for text in row]
    lengths = torch.tensor([len(text) for text in texts])
    raw = bytearray("".join(texts).encode("utf-32-le", "surrogatepass"))
    codes = torch.frombuffer(raw, dtype=torch.int32).long()
    text = torch.repeat_interleave(torch.arange(len(texts)), lengths)
    left = torch.repeat_interleave(lengths.cumsum(0), lengths) - torch.arange(len(codes))
    at = (left >= GRAM).nonzero().squeeze(1)
    hashes = codes[at] * 0x1F123BB5
    for i in range(1, GRAM):
        hashes = mix(hashes) + codes[at + i]
    text = text[at]
    part = text % texts_a_row
    return mix(mix(hashes) + part), text // texts_a_row, part


def _bands(hashes: Tensor, owner: Tensor, rows: int) -> list[Tensor]:
    """One hash int32 "N" a band: its BAND_ROWS minima over permutations of the grams, mixed."""
    bands = []
    for band in range(BANDS):
        key = torch.full((rows,), band)
        for i in range(band * BAND_ROWS, (band + 1) * BAND_ROWS):
            values = (hashes ^ _salt(2 * i)) * (_salt(2 * i + 1) | 1)
            least = torch.full((rows,), 2**62).scatter_reduce_(0, owner, _right(values, 16), "amin")
            key = mix(key * 31 + least)
        bands.append((key >> 32).int())
    return bands


@cache
def _salt(i: int) -> int:
    return int(mix(torch.tensor(i + 1)))


def _sketch(hashes: Tensor, text: Tensor, rows: int, texts_a_row: int) -> Tensor:
    """A byte for each of BINS bins a row, shared among its texts: 0 for an empty bin, else from its least hash."""
    bins = BINS // texts_a_row
    values = mix(hashes ^ _salt(999))
    place = text * bins + _right(values, 32) % bins
    least = torch.full((rows * texts_a_row * bins,), 2**62).scatter_reduce_(0, place, _right(values, 2), "amin")
    byte = torch.where(least == 2**62, 0, 1 + least % 255).to(torch.uint8).view(rows, texts_a_row * bins)
    return torch.nn.functional.pad(byte, (0, BINS - texts_a_row * bins))


def similarity(one: Tensor, other: Tensor, texts_a_row: int) -> Tensor:
    """Estimated Jaccard similarity "N" of the texts of pairs of rows, the smallest of a row's texts; unbiased, +-0.04 at 0.8."""
    bins = BINS // texts_a_row
    one, other = (s[:, : bins * texts_a_row].view(len(s), texts_a_row, bins) for s in (one, other))
    same = ((one == other) & (one > 0)).sum(-1)
    return (same / ((one > 0) | (other > 0)).sum(-1).clamp(min=1)).amin(-1)


def group(loose_hash: Tensor, signatures: list[Signatures]) -> Tensor:
    """The smallest row of each row's group "N": equal loose texts, and near ones by chains of verified pairs.

    Rows count through all the `signatures`, in order. Pairs are sought among the rows that share a band: at a similarity
    of 0.8 that finds 98 of 100, at 0.9 all.
    """
    first = _first_equal(loose_hash)
    lone = (first == torch.arange(len(first))).nonzero().squeeze(1)
    union = _Union(len(first))
    for band in range(BANDS):
        for one, other in _candidates(torch.cat([s.band(band) for s in signatures])[lone], lone):
            _verify(one, other, signatures, union)
    return union.roots()[first]


def _first_equal(values: Tensor) -> Tensor:
    """For each place the first place with an equal value."""
    order = torch.argsort(values, stable=True)
    ordered = values[order]
    starts = torch.ones(len(values), dtype=torch.bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    first = torch.empty_like(order)
    first[order] = order[starts][starts.cumsum(0) - 1]
    return first


def _candidates(keys: Tensor, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of rows with equal keys: each with its next WINDOW neighbours and with the first of its bucket."""
    keys, order = torch.sort(keys, stable=True)
    rows = rows[order]
    for shift in range(1, WINDOW + 1):
        same = (keys[shift:] == keys[:-shift]).nonzero().squeeze(1)
        if not len(same):
            return
        yield rows[same], rows[same + shift]
    far = (keys[WINDOW + 1 :] == keys[: -WINDOW - 1]).nonzero().squeeze(1) + WINDOW + 1
    yield rows[torch.searchsorted(keys, keys[far])], rows[far]


def _verify(one: Tensor, other: Tensor, signatures: list[Signatures], union: "_Union") -> None:
    """Joins the pairs whose sketches agree; pairs that are joined already are not looked at again."""
    for some in zip(torch.split(one, PAIRS), torch.split(other, PAIRS), strict=True):
        open_pairs = [(a, b) for a, b in zip(*(part.tolist() for part in some), strict=True) if union.root(a) != union.root(b)]
        if not open_pairs:
            continue
        pairs = torch.tensor(open_pairs)
        rows, place = torch.unique(pairs, return_inverse=True)
        sketches = _gather(rows, signatures)
        alike = similarity(sketches[place[:, 0]], sketches[place[:, 1]], signatures[0].texts_a_row) >= NEAR
        for a, b in pairs[alike].tolist():
            union.join(a, b)


def _gather(rows: Tensor, signatures: list[Signatures]) -> Tensor:
    found, start = [], 0
    for s in signatures:
        mine = rows[(rows >= start) & (rows < start + s.rows)] - start
        if len(mine):
            found.append(s.sketches(mine))
        start += s.rows
    return torch.cat(found)


class _Union:
    """Union-find over rows, 8 bytes each; the root of a set is its smallest row."""

    def __init__(self, rows: int) -> None:
        self._up = array("q", range(rows))

    def root(self, row: int) -> int:
        up = self._up
        while up[row] != row:
            up[row] = row = up[up[row]]
        return row

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._up[high] = low

    def roots(self) -> Tensor:
        """The root "N" of each row."""
        up = torch.frombuffer(self._up, dtype=torch.int64).clone()
        while not torch.equal(up, up := up[up]):
            pass
        return up
