"""Token sequences on disk, read through a memory map: written once for a file, a tokenizer and a task's settings.

A folder of flat arrays. Training reads examples in any order; the pages it touched are given back to the system, so
resident memory does not grow with the number of rows.
"""

import json
import mmap
import shutil
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.nn import functional

from trainformer.core.batch import Encoded, Part
from trainformer.core.files import digest, disk_error, user_cache, write_json

VERSION = 2
ARRAYS = {
    "ids": ("i", torch.int32),
    "kinds": ("B", torch.uint8),
    "lengths": ("i", torch.int32),
    "sequences": ("q", torch.int64),
    "tokens": ("q", torch.int64),
    "targets": ("f", torch.float32),
    "target_starts": ("q", torch.int64),
    "weights": ("f", torch.float32),
    "rows": ("q", torch.int64),
    "cut": ("i", torch.int32),
    "unknown": ("i", torch.int32),
    "units": ("i", torch.int32),
    "bytes": ("i", torch.int32),
}
"""Name -> (code of the array module, torch type). `target_starts` says where each example begins, `sequences` and `tokens` where
each of its parts does; all examples have as many."""
CHUNK_TOKENS = 2**20
RELEASE_BYTES = 32 * 2**20
"""After so many bytes read, the pages of the map are given back."""


def cache_root() -> Path:
    """The folder of all token caches of this user."""
    return user_cache() / "tokens"


class TokenCache:
    """Examples of one file in the order of its rows; `cache[i]` is the i-th."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        self._arrays = {name: _Array(folder / f"{name}.bin", kind) for name, (_, kind) in ARRAYS.items()}
        self._read = 0

    def __len__(self) -> int:
        return int(self.meta["examples"])

    def __getitem__(self, i: int) -> Encoded:
        a = self._arrays
        start, stop = a["target_starts"][i : i + 2].tolist()
        parts = tuple(self._part(number) for number in range(i * self.parts, (i + 1) * self.parts))
        self._count(8 * sum(len(part.ids) for part in parts))
        return Encoded(
            parts=parts,
            target=a["targets"][start:stop].to(torch.long if self.meta["classes"] else torch.float32, copy=True),
            row=i,
            weight=float(a["weights"][i]),
            units=int(a["units"][i]),
            cut_tokens=int(a["cut"][i]),
            bytes=int(a["bytes"][i]),
        )

    @property
    def parts(self) -> int:
        """How many parts each example has."""
        return int(self.meta["parts"])

    def _part(self, number: int) -> Part:
        a = self._arrays
        first, last = a["sequences"][number : number + 2].tolist()
        begin, end = a["tokens"][number : number + 2].tolist()
        kinds = a["kinds"][begin:end].clone() if self.meta["typed"] else None
        return Part(a["ids"][begin:end].clone(), a["lengths"][first:last].tolist(), kinds)

    def _count(self, read_bytes: int) -> None:
        self._read += read_bytes
        if self._read > RELEASE_BYTES:
            self._read = 0
            for flat in self._arrays.values():
                flat.release()

    @cached_property
    def lengths(self) -> Tensor:
        """Tokens of each example, special tokens included: int32 "N"."""
        starts = self._arrays["tokens"][:: self.parts]
        return (starts[1:] - starts[:-1]).int()

    @cached_property
    def tokens(self) -> Tensor:
        """The tokens that occur, each once, sorted: int64."""
        ids, found = self._arrays["ids"], torch.zeros(0, dtype=torch.bool)
        for start in range(0, len(ids), CHUNK_TOKENS):
            chunk = ids[start : start + CHUNK_TOKENS].long()
            found = functional.pad(found, (0, max(0, int(chunk.max()) + 1 - len(found))))
            found[chunk] = True
            ids.release()
        return found.nonzero().squeeze(1)

    @property
    def cut(self) -> Tensor:
        """Tokens that were cut from each example: int32 "N"."""
        return self._arrays["cut"][:]

    @property
    def unknown(self) -> Tensor:
        """Unknown tokens of each example: int32 "N"."""
        return self._arrays["unknown"][:]

    @property
    def rows(self) -> Tensor:
        """The row of the file that each example came from: int64 "N"."""
        return self._arrays["rows"][:]

    @property
    def weights(self) -> Tensor:
        """The weight of each example, as the file gives it: float32 "N"."""
        return self._arrays["weights"][:]


class _Array:
    """A flat file seen as a tensor, without reading it."""

    def __init__(self, path: Path, kind: torch.dtype):
        size = path.stat().st_size
        self._map: mmap.mmap | None = None
        self._tensor = torch.empty(0, dtype=kind)
        if size:
            with path.open("rb") as f:
                self._map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
            self._tensor = torch.frombuffer(self._map, dtype=kind)

    def __len__(self) -> int:
        return len(self._tensor)

    def __getitem__(self, where: Any) -> Tensor:
        return self._tensor[where]

    def release(self) -> None:
        """Gives the pages back; they come again from the file when they are read."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def cached(root: Path, key: dict[str, Any], make: Iterator[tuple[Encoded, int]], typed: bool) -> TokenCache:
    """The cache for a key, written from `make` (example, its unknown tokens) unless it is there already."""
    folder = root / digest({"version": VERSION, **key})
    if not (folder / "meta.json").is_file():
        try:
            _write(folder, key, make, typed)
        except OSError as error:
            raise disk_error(error, folder) from error
    return TokenCache(folder)


def _write(folder: Path, key: dict[str, Any], make: Iterable[tuple[Encoded, int]], typed: bool) -> None:
    """Writes beside and renames: an interrupted run leaves no cache that looks whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        files = {name: (beside / f"{name}.bin").open("wb") for name in ARRAYS}
        try:
            found = _append(files, make, typed)
        finally:
            for f in files.values():
                f.close()
        write_json(beside / "meta.json", {**found, "typed": typed, "key": key})
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _append(files: Mapping[str, BinaryIO], make: Iterable[tuple[Encoded, int]], typed: bool) -> dict[str, int | bool]:
    """The number of examples and of their parts, and whether their targets are classes (whole numbers, exact in a float32)."""
    waiting: dict[str, array[Any]] = {name: array(code) for name, (code, _) in ARRAYS.items()}

    def write() -> None:
        for name, values in waiting.items():
            values.tofile(files[name])
            del values[:]

    examples = tokens = sequences = targets = 0
    parts, classes = 1, False
    for name in ("sequences", "tokens", "target_starts"):
        waiting[name].append(0)
    for item, unknown in make:
        for part in item.parts:
            size = len(part.ids)
            tokens, sequences = tokens + size, sequences + len(part.lengths)
            waiting["ids"].extend(part.ids.tolist())
            if typed:
                waiting["kinds"].extend([0] * size if part.kinds is None else part.kinds.tolist())
            waiting["lengths"].extend(part.lengths)
            waiting["sequences"].append(sequences)
            waiting["tokens"].append(tokens)
        wanted = item.target.tolist()
        targets += len(wanted)
        waiting["targets"].extend(wanted)
        for name, value in (("target_starts", targets), ("weights", item.weight), ("rows", item.row), ("units", item.units),
                            ("cut", item.cut_tokens), ("unknown", unknown), ("bytes", item.bytes)):  # fmt: skip
            waiting[name].append(value)
        parts, classes = len(item.parts), item.target.dtype == torch.long
        examples += 1
        if max(map(len, waiting.values())) >= CHUNK_TOKENS:
            write()
    write()
    return {"examples": examples, "parts": parts, "classes": classes}
