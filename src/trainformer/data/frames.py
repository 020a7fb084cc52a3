"""Rows that are in memory or come from the hub: pandas frames and data sets of the Hugging Face library."""

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from trainformer.core.errors import MissingExtra, UserError
from trainformer.core.hub import reachable
from trainformer.core.rows import Row
from trainformer.data.formats import Source, checked_names, numbered

CHUNK_ROWS = 1000


class TableSource(Source):
    """A source without a file: its fingerprint is that of its rows as JSON, in order."""

    def __iter__(self) -> Iterator[Row]:
        return numbered(self._values(), self.name)

    def _values(self) -> Iterator[dict[str, Any]]:
        raise NotImplementedError("each table gives its own rows")

    @cached_property
    def fingerprint(self) -> str:
        sha = hashlib.sha256(json.dumps(self.columns).encode())
        for values in self._values():
            sha.update(json.dumps(list(values.values()), default=str).encode() + b"\n")
        return sha.hexdigest()


class Frame(TableSource):
    """A pandas DataFrame. NaN, NaT and NA are null; numpy values become plain ones."""

    def __init__(self, frame: Any):
        self.frame, self.name = frame, "data frame"

    @cached_property
    def columns(self) -> list[str]:
        return checked_names([str(c) for c in self.frame.columns], self.name)

    def _values(self) -> Iterator[dict[str, Any]]:
        columns = self.columns
        for start in range(0, len(self.frame), CHUNK_ROWS):
            part = self.frame.iloc[start : start + CHUNK_ROWS]
            rows = part.itertuples(index=False, name=None)
            for row, nulls in zip(rows, part.isna().itertuples(index=False, name=None), strict=True):
                yield {c: None if null else _plain(v) for c, v, null in zip(columns, row, nulls, strict=True)}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


class HubSet(TableSource):
    """A `datasets.Dataset`. A class that it stores as a number is given by its name; -1, its mark for none, is null."""

    def __init__(self, table: Any, name: str):
        self.table, self.name = table, name

    @cached_property
    def columns(self) -> list[str]:
        return checked_names(list(self.table.column_names), self.name)

    def _values(self) -> Iterator[dict[str, Any]]:
        classes = {c: f.names for c, f in self.table.features.items() if hasattr(f, "int2str")}
        for row in self.table:
            yield {c: _class_name(v, classes[c]) if c in classes else v for c, v in row.items()}


def _class_name(value: int | None, names: list[str]) -> str | None:
    return None if value is None or value < 0 else names[value]


def from_hub(name: str, split: str, beside: str) -> HubSet:
    """A split of a data set of the hub, loaded or found in the library's cache.

    `beside` says which file of the folder has a similar name. Raises UserError where the hub cannot be reached.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", "hub") from error
    reachable()
    try:
        return HubSet(datasets.load_dataset(name, split=split), name)
    except ConnectionError as error:
        what = "there is no such file, and no connection to the hub to ask for a data set of that name."
        raise UserError(what, where=name, fix=beside) from error
    except (OSError, ValueError) as error:
        what = f"there is no such file, and the hub gives no such data set (split '{split}'): {str(error).splitlines()[0]}"
        raise UserError(what, where=name, fix=beside) from error
