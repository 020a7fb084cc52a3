"""From files to encoded rows: read, look over, split, learn the labels, tokenise once."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainformer.core.batch import Encoded, Example
from trainformer.core.config import Config
from trainformer.core.errors import UserError, nearest
from trainformer.core.files import digest
from trainformer.core.roles import Task
from trainformer.data.cache import TokenCache, cache_root, cached
from trainformer.data.columns import Columns, choose, example
from trainformer.data.plan import Rows
from trainformer.data.read import Source, open_source
from trainformer.data.split import split
from trainformer.data.survey import Survey, survey
from trainformer.data.tokens import HubTokens

CHUNK_ROWS = 1000


@dataclass
class Slice:
    """The rows of one split: where they stand in their file, and their tokens."""

    name: str
    source: Source
    columns: Columns
    survey: Survey
    chosen: Tensor
    """Row numbers in the file, int64, sorted."""
    cache: TokenCache | None = None

    @property
    def rows(self) -> Rows:
        assert self.cache is not None, "a slice is encoded before it is read"
        return Rows(self.cache, self.chosen)

    def column(self, name: str) -> list[Any]:
        """The values of a column in this part's rows, in order. Raises UserError if the source or a row has none of that name."""
        if name not in self.source.columns:
            raise UserError(f"no column '{name}'.", where=self.source.name, fix=nearest(name, self.source.columns))
        wanted, values = set(self.chosen.tolist()), []
        for row in (row for number, row in enumerate(self.source) if number in wanted):
            if row.values.get(name) is None:
                raise UserError(f"this row has no '{name}'.", where=row.where, fix="Give the row a value or remove it.")
            values.append(row.values[name])
        return values

    def places(self, rows: list[int]) -> str:
        """The rows of the slice, given by their numbers in it, as their file and lines: for messages, one more reading."""
        assert self.cache is not None, "a slice is encoded before its rows are named"
        wanted = {int(self.cache.rows[self.chosen[r]]) for r in rows}
        found = [row for number, row in enumerate(self.source) if number in wanted]
        return f"{found[0].file} line {', '.join(str(row.line) for row in found)}"

    def examples(self, task: Task, labelled: bool = True, most: int | None = None) -> Iterator[Example]:
        """The rows as the task understands them, read again from the file, in order."""
        wanted = iter(self.chosen[:most].tolist())
        place = next(wanted, None)
        for number, row in enumerate(self.source):
            if place is None:
                return
            if number == place:
                yield example(row, self.columns, task, number, labelled)
                place = next(wanted, None)


@dataclass
class Prepared:
    """All splits, and what was chosen for the user."""

    slices: dict[str, Slice]
    said: list[str] = field(default_factory=list)
    tokenizer: str = ""
    """What tells the tokenizer of `encode` from another."""
    vocabulary: int = 0
    """How many tokens that tokenizer has."""

    @property
    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of each file that was read."""
        return {s.source.name: s.source.fingerprint for s in self.slices.values()}

    @property
    def files(self) -> dict[str, dict[str, str]]:
        """The name and the SHA-256 of what each split was read from."""
        return {name: {"name": s.source.name, "sha256": s.source.fingerprint} for name, s in self.slices.items()}

    def require_unchanged(self) -> None:
        """Raises UserError that names a file that has changed since it was opened."""
        for part in self.slices.values():
            part.source.require_unchanged()


def read(config: Config, frames: dict[str, Any], labelled: bool = True) -> Prepared:
    """Opens and looks over every file, and splits what was not given apart. `frames` stand in for files, by split.

    With `labelled` rows that cannot be understood are refused: UserError names the first.
    """
    settings, task = config.data, config.task
    given = {name: frames.get(name, getattr(settings, name)) for name in ("train", "validation", "test")}
    if given["train"] is None:
        raise UserError("no training rows given.", where="--data", fix="trainformer train --data FILE --out RUN")
    said: list[str] = []
    slices: dict[str, Slice] = {}
    columns: Columns | None = None
    for name, what in given.items():
        if what is None:
            continue
        source = open_source(what, name)
        _ = source.fingerprint  # of what is read from here on
        asked = settings if columns is None else settings.model_copy(update=vars(columns))
        columns, words = choose(source, asked, task.pair, not task.unlabelled)
        said += [w for w in words if w not in said]
        found = survey(source, columns, task, not task.unlabelled)
        slices[name] = Slice(name, source, columns, found, torch.arange(found.rows))
    if labelled:
        _refuse_bad_rows(slices.values())
    _split(slices, config, said)
    return Prepared(slices, said)


def _split(slices: dict[str, Slice], config: Config, said: list[str]) -> None:
    shares = {name: 0.0 if name in slices else getattr(config.data, f"{name}_share") for name in ("validation", "test")}
    if "validation" not in slices and not shares["validation"]:
        raise UserError(
            "no validation rows: the best epoch is chosen on them.", where="data.validation_share", fix="Give --validation."
        )
    if not any(shares.values()):
        return
    whole = slices["train"]
    numeric = whole.survey.numeric
    parts = split(whole.survey, shares["validation"], shares["test"], config.train.seed, stratify=not numeric)
    for name in ("train", *(n for n, share in shares.items() if share)):
        slices[name] = Slice(name, whole.source, whole.columns, whole.survey, parts[name])
        if name != "train":
            kept = "stratified, " * (not numeric) + "duplicates kept together"
            said.append(f"{name}: {len(parts[name])} rows held out of {whole.source.name} ({kept}; --{name} gives a file)")


def _refuse_bad_rows(slices: Iterable[Slice]) -> None:
    for part in slices:
        errors = [f for f in part.survey.findings if f.severity == "error"]
        if errors:
            first, count = errors[0], sum(f.count for f in errors if f.code in ("row", "more_rows"))
            where = first.where[0] if first.where else part.source.name
            more = f" ({count} rows of {part.source.name} cannot be used.)" if count > 1 else ""
            raise UserError(f"{first.message}{more}", where=where, fix=first.fix)


def learn(prepared: Prepared, task: Task) -> None:
    """Shows the task its training rows: labels, class weights and scale come from them alone."""
    for item in prepared.slices["train"].examples(task):
        task.observe(item)
    task.settle()


def encode(prepared: Prepared, config: Config, tokens: HubTokens, limit: int, labelled: bool = True) -> None:
    """Tokenises every file once; the same file, tokenizer and settings find it done."""
    prepared.tokenizer, prepared.vocabulary = tokens.fingerprint, tokens.vocabulary
    root = Path(config.data.cache) if config.data.cache else cache_root()
    done: dict[str, TokenCache] = {}
    for part in prepared.slices.values():
        key = {
            "file": part.source.fingerprint,
            "columns": vars(part.columns),
            "tokenizer": tokens.fingerprint,
            "task": [type(config.task).key, config.task.settings()],
            "limit": limit,
            "labelled": labelled,
        }
        name = digest(key)
        if name not in done:
            done[name] = cached(root, key, _encoded(part, config.task, tokens, limit, labelled), tokens.typed)
        part.cache = done[name]
    prepared.require_unchanged()


def _encoded(part: Slice, task: Task, tokens: HubTokens, limit: int, labelled: bool) -> Iterator[tuple[Encoded, int]]:
    """Every row of the file with the number of its unknown tokens; rows that cannot be understood are empty texts."""
    whole = (
        example(row, part.columns, task, number, labelled) if part.survey.ok[number] else _blank(part, task, number)
        for number, row in enumerate(part.source)
    )
    for chunk, pieces in _tokenised(whole, tokens):
        wide = len(chunk[0].texts)
        for i, item in enumerate(chunk):
            own = pieces[i * wide : (i + 1) * wide]
            unknown = sum(p.count(tokens.unknown_id) for p in own) if tokens.unknown_id is not None else 0
            yield _placed(item, own, tokens, limit, part, task), unknown
    part.source.require_unchanged()  # or the cache would hold other rows than its name says


def _tokenised(whole: Iterator[Example], tokens: HubTokens) -> Iterator[tuple[list[Example], list[list[int]]]]:
    """Chunks of examples with the tokens of their texts; while one is tokenised, the next is read and the one before encoded."""
    before: tuple[list[Example], Future[list[list[int]]]] | None = None
    with ThreadPoolExecutor(1) as beside:
        while chunk := list(islice(whole, CHUNK_ROWS)):
            coming = beside.submit(tokens.pieces, [text for e in chunk for text in e.texts])
            if before is not None:
                yield before[0], before[1].result()
            before = chunk, coming
        if before is not None:
            yield before[0], before[1].result()


def _placed(item: Example, own: list[list[int]], tokens: HubTokens, limit: int, part: Slice, task: Task) -> Encoded:
    """What the task makes of an example's tokens; what it refuses is told with the row's place."""
    try:
        return task.encode(item, own, tokens, limit)
    except UserError as error:
        if error.where:
            raise
        raise UserError(error.what, where=part.survey.where(torch.tensor([item.row]))[0], fix=error.fix) from error


def _blank(part: Slice, task: Task, number: int) -> Example:
    texts = ("", "") if part.columns.text_b else ("",)
    return task.parse(texts, ..., number, 0.0)
