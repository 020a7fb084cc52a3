"""One pass over a source before anything is tokenised: a fingerprint of each row, its label, and what is wrong with it.

A row costs 29 bytes in memory (three hashes of 8 bytes, a line number of 4, a mark) and 160 bytes in temporary files, which find
near duplicates (near.py); grouping takes about 95 bytes a row more, for a moment. Texts are not kept.
"""

import hashlib
import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from trainformer.core.batch import Example, Row
from trainformer.core.errors import UserError
from trainformer.core.roles import Task
from trainformer.data import near
from trainformer.data.columns import Columns, example
from trainformer.data.damage import DAMAGE, FIXES, damage
from trainformer.data.finding import MAX_PLACES, Finding, Severity, Tally
from trainformer.data.formats import Source

CHUNK_ROWS = 1000
MAX_LABELS = 10_000
"""Distinct labels that are kept by name; rows with others are counted only."""


@dataclass
class Survey:
    """What is known of each of the N rows of a source, in order; rows count from 0.

    `text_hash` and `loose_hash` (int64 "N") are of the text as it stands and without case, width, punctuation and digits;
    `label_hash` is 0 where a row has no label; `lines` (int32 "N") are lines of the file. `labels` are the names behind
    a label hash (several for a row of several labels). `ok` is false for a row that could not be understood.
    """

    file: str
    text_hash: Tensor
    loose_hash: Tensor
    label_hash: Tensor
    lines: Tensor
    ok: Tensor
    labels: dict[int, tuple[str, ...]]
    numeric: bool
    findings: list[Finding]
    signatures: near.Signatures = field(repr=False)

    @property
    def rows(self) -> int:
        return len(self.text_hash)

    @cached_property
    def near_group(self) -> Tensor:
        """int64 "N": the smallest row among the (near) duplicates of each row."""
        return groups([self])[0]

    def label_counts(self, rows: Tensor | None = None) -> dict[str, int]:
        """Rows with each label, the most frequent first; empty where targets are numbers."""
        if self.numeric:
            return {}
        hashes, counts = torch.unique(self.label_hash if rows is None else self.label_hash[rows], return_counts=True)
        named: dict[str, int] = {}
        for key, count in zip(hashes.tolist(), counts.tolist(), strict=True):
            for name in self.labels.get(key, ()):
                named[name] = named.get(name, 0) + count
        return dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))

    def where(self, rows: Tensor) -> list[str]:
        """The first places among some rows: "reviews.csv line 12"."""
        first = torch.sort(rows).values[:MAX_PLACES]
        return [f"{self.file} line {line}" for line in self.lines[first].tolist()]


def survey(source: Source, columns: Columns, task: Task, labelled: bool = True) -> Survey:
    """Reads a source once. A row that is refused becomes a finding; a file that cannot be read on raises UserError."""
    reader = _Reader(columns, task, labelled)
    for number, row in enumerate(source):
        reader.add(number, row)
    return reader.finish(source.name)


def groups(surveys: list[Survey]) -> list[Tensor]:
    """For each survey int64 "N": equal numbers are (near) duplicates, also across sources. The number is the smallest
    row of the group, counted through all the surveys in order."""
    found = near.group(torch.cat([s.loose_hash for s in surveys]), [s.signatures for s in surveys])
    return list(torch.split(found, [s.rows for s in surveys]))


class _Reader:
    """The pass: what is kept of the rows seen so far."""

    def __init__(self, columns: Columns, task: Task, labelled: bool):
        self.columns, self.task, self.labelled = columns, task, labelled
        self.text, self.loose, self.label, self.lines, self.ok = array("q"), array("q"), array("q"), array("i"), bytearray()
        self.signatures = near.Signatures(1 if columns.text_b is None else 2)
        self.waiting: list[list[str]] = []
        self.tally, self.refused, self.kinds = Tally(), _Refused(), Tally()
        self.labels = _Labels()
        self.weight = 0.0

    def add(self, number: int, row: Row) -> None:
        try:
            found = example(row, self.columns, self.task, number, self.labelled)
        except UserError as error:
            self.refused.add(error)
            self._keep([f"\0{row.where}"], 0, row.line, ok=False)
            return
        self._look(found, row)
        target = self.labels.hash(found.target) if self.labelled else 0
        self._keep(list(found.texts), target, row.line, ok=True)
        self.weight += found.weight

    def _keep(self, texts: list[str], label: int, line: int, ok: bool) -> None:
        stripped = [near.loose(t) for t in texts] if ok else texts * self.signatures.texts_a_row
        self.text.append(_hash(texts))
        self.loose.append(_hash(stripped))
        self.label.append(label)
        self.lines.append(line)
        self.ok.append(ok)
        self.waiting.append([t[: near.MAX_CHARS] for t in stripped])
        if len(self.waiting) == CHUNK_ROWS:
            self._flush()

    def _flush(self) -> None:
        self.signatures.add(self.waiting)
        self.waiting = []

    def _look(self, found: Example, row: Row) -> None:
        """Counts what is odd about a row that was understood."""
        if any(not t or t.isspace() for t in found.texts):
            self.tally.add("empty_text", row.where)
        for sign in dict.fromkeys(sign for text in found.texts for sign in damage(text)):
            self.tally.add(sign, row.where)
        if self.labelled and self.columns.label is not None:
            self.kinds.add(_kind(row.values[self.columns.label]), row.where)

    def finish(self, name: str) -> Survey:
        self._flush()
        text, loose, label = (torch.frombuffer(a, dtype=torch.int64) for a in (self.text, self.loose, self.label))
        lines, ok = torch.frombuffer(self.lines, dtype=torch.int32), torch.frombuffer(self.ok, dtype=torch.bool)
        names, findings = self.labels.names, self._findings(len(ok))
        return Survey(name, text, loose, label, lines, ok, names, self.labels.numeric, findings, self.signatures)

    def _findings(self, rows: int) -> list[Finding]:
        found = self.refused.findings(rows)
        blank = self.tally.counts.get("empty_text", 0)
        severity: Severity = "error" if blank == rows else "warning"
        found += self.tally.finding("empty_text", severity, "texts that are empty or white space alone", rows, "Remove the rows.")
        for sign, words in DAMAGE.items():
            found += self.tally.finding(sign, "warning", words, rows, FIXES[sign])
        if self.weight == 0 and self.columns.weight is not None and blank < rows:
            found.append(Finding("no_weight", "error", "the weights of all rows are 0.", rows, 1.0, [], "Give some rows weight."))
        if self.labels.more:
            what = f"more than {MAX_LABELS:,} different labels; only the first are counted by name."
            found.append(Finding("many_labels", "warning", what, 0, 0.0, [], "--label chooses another column."))
        return found + self._mixed(rows)

    def _mixed(self, rows: int) -> list[Finding]:
        """Labels of more than one type, as 1 and "1": the rarer ones are named."""
        counts = self.kinds.counts
        if len(counts) < 2:
            return []
        usual = max(counts, key=lambda kind: counts[kind])
        rare = [kind for kind in counts if kind != usual]
        count = sum(counts[kind] for kind in rare)
        places = [place for kind in rare for place in self.kinds.places[kind]][:MAX_PLACES]
        what = f"labels are of mixed types: {', '.join(f'{counts[k]} {k}' for k in [usual, *rare])}."
        fix = 'They are read by how they are written (1 and "1" are the same label); write all in one way.'
        return [Finding("mixed_label_types", "warning", what, count, count / rows, places, fix)]


class _Refused:
    """Rows that could not be understood: the first ones by their message, all of them counted."""

    def __init__(self) -> None:
        self.count, self.first = 0, list[UserError]()

    def add(self, error: UserError) -> None:
        self.count += 1
        if len(self.first) < MAX_PLACES:
            self.first.append(error)

    def findings(self, rows: int) -> list[Finding]:
        found = [Finding("row", "error", e.what, 1, 1 / rows, [e.where], e.fix) for e in self.first]
        if self.count > len(found):
            rest = self.count - len(found)
            found.append(Finding("more_rows", "error", f"more rows that cannot be used: {rest}.", rest, rest / rows))
        return found


class _Labels:
    """Hashes of targets, and the names behind them. A target of floats is a number and has no name."""

    def __init__(self) -> None:
        self.names: dict[int, tuple[str, ...]] = {}
        self.numeric = self.more = False
        self._known: dict[Any, int] = {}

    def hash(self, target: Any) -> int:
        key = tuple(target) if isinstance(target, list | set | frozenset) else target
        if isinstance(key, float):
            self.numeric = True
            return _hash([repr(key)])
        if key not in self._known:
            names = tuple(str(k) for k in key) if isinstance(key, tuple) else (str(key),)
            made = _hash([json.dumps(names)])
            if len(self._known) == MAX_LABELS:
                self.more = True
                return made
            self._known[key], self.names[made] = made, names
        return self._known[key]


def _kind(label: Any) -> str:
    kinds = {str: "strings", bool: "true or false", int: "whole numbers", float: "fractions", list: "lists"}
    return kinds.get(type(label), type(label).__name__)


def _hash(texts: Iterable[str]) -> int:
    """64 bits of the texts, the same on every machine, never 0."""
    raw = "\x1f".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little", signed=True) or 1
