"""Opens what the user gives: a file, a frame, a data set, or the name of one on the hub. The rows come as a stream."""

import re
from itertools import islice
from pathlib import Path
from typing import Any

from trainformer.core.config import nearest_file
from trainformer.core.errors import UserError, nearest
from trainformer.data.formats import DELIMITERS, EXTENSIONS, Source, open_file
from trainformer.data.frames import Frame, HubSet, from_hub

__all__ = ["Source", "open_source"]

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def open_source(given: Any, split: str = "train") -> Source:
    """A source with at least one row, of known columns.

    `given`: path of a .jsonl, .json (lines), .csv, .tsv or .parquet file; a pandas DataFrame; a `datasets.Dataset`, or a
    DatasetDict, of which `split` is taken; or the name of a data set on the hub. Raises UserError for all else.
    """
    source = _find(given, split)
    if not list(islice(source, 1)):
        known = f", only the header ({', '.join(source.columns):.80})" if source.columns else ""
        raise UserError(f"it has no rows{known}.", where=source.name, fix="Add rows with texts.")
    if not source.columns:
        raise UserError("its rows have no columns.", where=source.name, fix='Write each row as {"text": "...", "label": "..."}.')
    return source


def _find(given: Any, split: str) -> Source:
    if isinstance(given, Source):
        return given
    if isinstance(given, str | Path):
        return _named(str(given), split)
    if isinstance(given, dict) and given and all(hasattr(v, "column_names") for v in given.values()):
        if split not in given:
            raise UserError(f"it has no split '{split}'.", where="data set", fix=nearest(split, given))
        return HubSet(given[split], "data set")
    if hasattr(given, "itertuples") and hasattr(given, "isna"):
        return Frame(given)
    if hasattr(given, "column_names") and hasattr(given, "features") and hasattr(given, "__len__"):
        return HubSet(given, "data set")
    raise UserError(f"rows cannot be read from a {type(given).__name__}.", fix="Give a path, a pandas DataFrame or a Dataset.")


def _named(name: str, split: str) -> Source:
    path = Path(name).expanduser()
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in {*EXTENSIONS, *DELIMITERS})
        fix = f"Name one of its files: {', '.join(inside[:10])}." if inside else "There is no file of rows in it."
        raise UserError("it is a folder; a file is expected.", where=name, fix=fix)
    if path.is_file():
        if path.stat().st_size == 0:
            raise UserError("the file is empty.", where=name)
        return open_file(path, name)
    if path.exists():
        raise UserError("it is no regular file, and rows are read more than once.", where=name, fix="Save it to a file first.")
    beside = nearest_file(path) if name else ""
    if path.suffix.lower() not in {*EXTENSIONS, *DELIMITERS} and HUB_NAME.fullmatch(name):
        return from_hub(name, split, beside)
    raise UserError("no such file.", where=name or "data", fix=beside)
