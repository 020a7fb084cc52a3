"""The formats of files: JSON lines, comma- and tab-separated values, Parquet. Rows come one at a time, in constant memory."""

import csv
import json
import shlex
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from trainformer.core.errors import UserError, nearest
from trainformer.core.files import sha256
from trainformer.core.rows import Row
from trainformer.data.lines import BOM, MAX_ROW_BYTES, Lines, opened

PEEK_ROWS = 100
"""Rows of a JSON lines file that its columns are read from."""
BATCH_ROWS = 256


class Source:
    """Rows from a file or a frame, again and again in the same order.

    `name` is how messages call it, `columns` are its names in order, `fingerprint` is a SHA-256 of its content.
    """

    name: str

    def __iter__(self) -> Iterator[Row]:
        raise NotImplementedError("each format reads its own rows")

    @property
    def columns(self) -> list[str]:
        raise NotImplementedError("each format knows its columns")

    @property
    def fingerprint(self) -> str:
        raise NotImplementedError("each source hashes its content")

    def require_unchanged(self) -> None:
        """Raises UserError if its content is no longer what it was when it was opened; rows in memory stay."""


class FileSource(Source):
    """A source that is a file."""

    def __init__(self, path: Path, name: str):
        self.path, self.name, self._seen = path, name, _marks(path)

    @cached_property
    def fingerprint(self) -> str:
        try:
            return sha256(self.path)
        except OSError as error:
            raise UserError(f"it cannot be read: {error.strerror}.", where=self.name) from error

    def require_unchanged(self) -> None:
        """A file that was only touched or copied again is the same; else it is read once more and its hash compared."""
        there = self.path.is_file()
        if there and (_marks(self.path) == self._seen or sha256(self.path) == self.fingerprint):
            return
        what = "it has changed since this run opened it." if there else "it is gone since this run opened it."
        raise UserError(what, where=self.name, fix="Put it back as it was and go on with --resume, or start another run.")


def _marks(path: Path) -> tuple[int, int, int]:
    """What of a file changes when its content does."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


class JsonLines(FileSource):
    """One JSON object a line; lines of white space alone are no rows. A row may lack a key: who needs it reports that."""

    def __init__(self, path: Path, name: str):
        super().__init__(path, name)
        self._refuse_array()

    @cached_property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(key for row in islice(self, PEEK_ROWS) for key in row.values))

    def __iter__(self) -> Iterator[Row]:
        lines = Lines(self.path, self.name)
        for text in lines:
            lines.held_bytes = 0
            if not text.isspace():
                yield Row(self._object(text, lines), self.name, lines.line)

    def _object(self, text: str, lines: Lines) -> dict[str, Any]:
        try:
            value = OBJECTS.decode(text)
        except json.JSONDecodeError as error:
            fix = "Each line must be a whole JSON object." if text.strip() in "{[" else ""
            raise lines.error(f"broken JSON at column {error.colno}: {error.msg}.", fix) from error
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise lines.error(f"JSON that cannot be read: {reason}.") from error
        if not isinstance(value, dict):
            shown = f"{text.strip():.40}"
            fix = 'Write each row as {"text": "...", "label": "..."}.'
            raise lines.error(f"a JSON object is expected, and this is {_kind(value)}: {shown}", fix)
        return value

    def _refuse_array(self) -> None:
        with opened(self.path, self.name) as f:
            start = f.read(4096).removeprefix(BOM).split(maxsplit=1)
        head = b"".join(start)
        if head[:1] == b"[" and head[1:].lstrip()[:1] in (b"{", b""):
            code = "import json,sys; [print(json.dumps(r)) for r in json.load(open(sys.argv[1], encoding='utf-8-sig'))]"
            command = f'python -c "{code}" {shlex.quote(self.name)} > {shlex.quote(self.path.stem + "-rows.jsonl")}'
            raise UserError("it is one JSON array; one object a line is expected.", where=self.name, fix=f"Convert it: {command}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [k for k, _ in pairs]
        twice = next(k for k in keys if keys.count(k) > 1)
        raise ValueError(f"the key '{twice}' stands twice in one object")
    return made


OBJECTS = json.JSONDecoder(object_pairs_hook=_unique)


def _kind(value: Any) -> str:
    kinds = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


class Delimited(FileSource):
    """Values separated by commas or tabs, quoted as RFC 4180 says; the first line names the columns."""

    def __init__(self, path: Path, name: str, delimiter: str):
        super().__init__(path, name)
        self.delimiter = delimiter

    @cached_property
    def columns(self) -> list[str]:
        header = next(self._records(), None)
        if header is None:
            raise UserError("the file has no header.", where=self.name, fix="Name the columns in its first line.")
        names = [n.strip() for n in header[1]]
        self._refuse_delimiter(names, header[0])
        return checked_names(names, f"{self.name} line {header[0]}")

    def __iter__(self) -> Iterator[Row]:
        columns = self.columns
        for line, values in islice(self._records(), 1, None):
            if len(values) != len(columns):
                raise UserError(
                    f"{len(values)} fields, where the header names {len(columns)} ({', '.join(columns):.80}).",
                    where=f"{self.name} line {line}",
                    fix=f'Put "quotes" around a text that holds a {self._delimiter_name}, and double the quotes inside.',
                )
            yield Row(dict(zip(columns, values, strict=True)), self.name, line)

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """First line and fields of each record; blank lines are no records."""
        csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
        lines = Lines(self.path, self.name)
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        while True:
            first, lines.held_bytes = lines.line + 1, 0
            try:
                values = next(reader, None)
            except csv.Error as error:
                raise self._broken(error, lines, first) from error
            except UserError as error:
                if lines.line > first and lines.held_bytes > MAX_ROW_BYTES:
                    raise lines.too_long(lines.held_bytes, first) from error
                raise
            if values is None:
                return
            if values:
                yield first, values

    def _broken(self, error: csv.Error, lines: Lines, first: int) -> UserError:
        if "new-line" in str(error):
            command = f"tr '\\r' '\\n' < {shlex.quote(self.name)} > {shlex.quote(self.path.stem + '-lines' + self.path.suffix)}"
            return lines.error("a carriage return alone ends a line (old Mac ends of lines).", f"Convert it: {command}", first)
        if "unexpected end" in str(error):
            return lines.error("a quote is opened here and never closed.", "Close it, or double the quotes inside a text.", first)
        return lines.error(f"broken quoting: {error}.", 'Double a quote inside a quoted text: "he said ""yes"" to it".', first)

    def _refuse_delimiter(self, names: list[str], line: int) -> None:
        other = next((d for d in "\t;,|" if len(names) == 1 and d != self.delimiter and d in names[0]), None)
        if other is not None:
            what = f"the header has no {self._delimiter_name}, but {other!r}."
            raise UserError(what, where=f"{self.name} line {line}", fix="Save it with commas as .csv or with tabs as .tsv.")

    @property
    def _delimiter_name(self) -> str:
        return "tab" if self.delimiter == "\t" else "comma"


class Parquet(FileSource):
    """A Parquet file, a few hundred rows in memory at a time. The line of a row is its number, from 1."""

    @cached_property
    def columns(self) -> list[str]:
        with self._file() as file:
            return checked_names(list(file.schema_arrow.names), self.name)

    def __iter__(self) -> Iterator[Row]:
        _ = self.columns
        with self._file() as file:
            yield from numbered(self._values(file), self.name)

    def _values(self, file: pyarrow.parquet.ParquetFile) -> Iterator[dict[str, Any]]:
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise self._broken(error) from error

    def _file(self) -> pyarrow.parquet.ParquetFile:
        try:
            return pyarrow.parquet.ParquetFile(self.path)
        except (pyarrow.ArrowException, OSError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> UserError:
        return UserError(f"it is no whole Parquet file: {str(error).splitlines()[0]}", where=self.name, fix="Write it again.")


def numbered(values: Iterable[dict[str, Any]], name: str) -> Iterator[Row]:
    """Rows numbered from 1 for what has no lines; a row over MAX_ROW_BYTES is refused."""
    for number, row in enumerate(values, 1):
        size = sum(len(v) for v in row.values() if isinstance(v, str))
        if size > MAX_ROW_BYTES // 4:
            size = sum(len(v.encode("utf-8", "surrogatepass")) for v in row.values() if isinstance(v, str))
        if size > MAX_ROW_BYTES:
            what = f"this row has {size / 2**20:.1f} MB; the most is {MAX_ROW_BYTES / 2**20:.0f} MB."
            raise UserError(what, where=f"{name} line {number}", fix="Cut the text.")
        yield Row(row, name, number)


def checked_names(names: list[str], where: str) -> list[str]:
    """The names of columns. Raises UserError for an empty one and for one that stands twice."""
    for i, column in enumerate(names):
        if not column:
            raise UserError(f"column {i + 1} of {len(names)} has no name.", where=where, fix="Name it, or take the column out.")
        if column in names[:i]:
            raise UserError(f"the column '{column}' stands twice.", where=where, fix="Rename one of them.")
    return names


EXTENSIONS = {".jsonl": JsonLines, ".json": JsonLines, ".ndjson": JsonLines, ".parquet": Parquet}
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def open_file(path: Path, name: str) -> FileSource:
    """The source that reads a file, by the ending of its name."""
    ending = path.suffix.lower()
    if ending in DELIMITERS:
        return Delimited(path, name, DELIMITERS[ending])
    if ending in EXTENSIONS:
        return EXTENSIONS[ending](path, name)
    fix = "Save the sheet as CSV UTF-8." if ending.startswith(".xls") else nearest(ending, [*EXTENSIONS, *DELIMITERS])
    raise UserError(f"files that end in '{ending}' cannot be read.", where=name, fix=fix)
