"""A file as lines of UTF-8 text: what is not UTF-8, holds NUL bytes or is too long is refused with its line and a way out."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from trainformer.core.errors import UserError

MAX_ROW_BYTES = 8 * 2**20
"""Longest row of a file, in bytes; a longer one is nearly always a quote or a bracket that was never closed."""

MARKS = {
    b"\xff\xfe\0\0": "UTF-32LE",
    b"\0\0\xfe\xff": "UTF-32BE",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
BOM = b"\xef\xbb\xbf"
SAMPLE_BYTES = 2**16


class Lines:
    """Iterates over the lines of a file, ends of lines kept. Memory: one line.

    `line` is the number of the line given last, from 1; `held_bytes` grows by each line, and a reader of
    records of several lines sets it back to 0 after each record, so that a record is held to MAX_ROW_BYTES.
    """

    def __init__(self, path: Path, name: str):
        self.path, self.name, self.line, self.held_bytes = path, name, 0, 0

    def __iter__(self) -> Iterator[str]:
        with opened(self.path, self.name) as f:
            while raw := self._read(f):
                self.line += 1
                yield self._text(raw, f)

    def _read(self, f: BinaryIO) -> bytes:
        try:
            return f.readline(MAX_ROW_BYTES + 1)
        except OSError as error:
            raise self.error(f"it cannot be read from here on: {error.strerror}.", line=self.line + 1) from error

    def _text(self, raw: bytes, f: BinaryIO) -> str:
        if self.line == 1:
            self._refuse_mark(raw)
            raw = raw.removeprefix(BOM)
        self.held_bytes += len(raw)
        if self.held_bytes > MAX_ROW_BYTES:
            raise self.too_long(self.held_bytes + _rest_bytes(f, raw))
        if b"\0" in raw:
            raise self._nul(raw)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._not_utf8(raw, error) from error

    def error(self, what: str, fix: str = "", line: int | None = None) -> UserError:
        """A UserError that names the file and the line given last, or another one."""
        return UserError(what, where=f"{self.name} line {line or self.line}", fix=fix)

    def too_long(self, size_bytes: int, line: int | None = None) -> UserError:
        what = f"this row has {size_bytes / 2**20:.1f} MB; the most is {MAX_ROW_BYTES / 2**20:.0f} MB."
        return self.error(what, "Look for a quote that is never closed, or cut the text.", line)

    def _refuse_mark(self, raw: bytes) -> None:
        mark = next((m for m in MARKS if raw.startswith(m)), None)
        if mark is not None:
            raise self.error(f"the file is {MARKS[mark]} (by its first bytes), not UTF-8.", self._convert(MARKS[mark]))

    def _nul(self, raw: bytes) -> UserError:
        byte = raw.index(b"\0")
        with opened(self.path, self.name) as f:
            sample = f.read(4096)
        if sample.count(b"\0") > len(sample) // 5:
            encoding = "UTF-16BE" if sample[:1] == b"\0" else "UTF-16LE"
            return self.error(f"byte {byte + 1} is NUL: the file is probably {encoding}, not UTF-8.", self._convert(encoding))
        fix = f"Look at the line; to take them out: tr -d '\\000' < {shlex.quote(self.name)} > {self._beside()}"
        return self.error(f"byte {byte + 1} is NUL, which is no text.", fix)

    def _not_utf8(self, raw: bytes, error: UnicodeDecodeError) -> UserError:
        with opened(self.path, self.name) as f:
            sample = f.read(SAMPLE_BYTES)
        place = f"byte {error.start + 1} (0x{raw[error.start]:02x}) is not UTF-8"
        encoding = guess(sample + b"\n" + raw[:SAMPLE_BYTES])
        if encoding == "UTF-8":
            drop = f"iconv -f UTF-8 -t UTF-8 -c {shlex.quote(self.name)} > {self._beside()}"
            return self.error(f"{place}, though the rest is: the line is damaged.", f"Mend it, or drop such bytes: {drop}")
        return self.error(f"{place}; the file is probably {encoding}.", self._convert(encoding))

    def _convert(self, encoding: str) -> str:
        return f"Convert it: iconv -f {encoding} -t UTF-8 {shlex.quote(self.name)} > {self._beside()}"

    def _beside(self) -> str:
        return shlex.quote(f"{self.path.stem}-utf8{self.path.suffix}")


def opened(path: Path, name: str) -> BinaryIO:
    """The file, open for reading bytes; an error of the disk in the user's words."""
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"it cannot be read: {error.strerror}.", where=name) from error


def _rest_bytes(f: BinaryIO, raw: bytes) -> int:
    """How many bytes of a line are still unread."""
    rest = 0
    while raw and not raw.endswith(b"\n"):
        raw = f.readline(2**20)
        rest += len(raw)
    return rest


def guess(sample: bytes) -> str:
    """The encoding that bytes which are not UTF-8 are probably in; "UTF-8" if only a few of them are broken.

    >>> guess("这个酒店很好".encode("gb18030")), guess("très élégant".encode("latin-1"))
    ('GB18030', 'WINDOWS-1252')
    """
    decoded = sample.decode("utf-8", "replace")
    broken = decoded.count("\ufffd")
    if sum(c > "\x7f" for c in decoded) - broken > broken:
        return "UTF-8"
    high = sum(b > 0x7F for b in sample)
    if sum(map(len, re.findall(rb"[\x80-\xff]{2,}", sample))) < 0.4 * high:
        return "WINDOWS-1252"
    if _mostly(rb"[\xb0-\xd7\xa1-\xa9][\xa1-\xfe]", sample, high):
        return "GB18030"
    if _mostly(rb"[\x82\x83\x88-\x9f\xe0-\xea].", sample, high, key=rb"[\x82\x83][\x40-\xf1]"):
        return "SHIFT_JIS"
    if _mostly(rb"[\xa4-\xc6][\x40-\x7e\xa1-\xfe]", sample, high):
        return "BIG5"
    return "WINDOWS-1251" if _mostly(rb"[\xc0-\xff\xa8\xb8]", sample, high) else "WINDOWS-1252"


def _mostly(pattern: bytes, sample: bytes, high: int, key: bytes | None = None) -> bool:
    """Whether two thirds of the bytes above 0x7f stand in such groups, and `key` groups among them are not rare."""
    inside = sum(b > 0x7F for group in re.findall(pattern, sample, re.DOTALL) for b in group)
    return inside >= 0.66 * high and (key is None or 8 * len(re.findall(key, sample)) > inside)
