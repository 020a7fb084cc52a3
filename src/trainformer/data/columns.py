"""Which columns of a file are the text and the label: as named by the user, or found by their usual names and said aloud."""

import math
from dataclasses import dataclass
from itertools import islice
from typing import Any

from trainformer.core.config import DataSettings
from trainformer.core.errors import UserError, nearest
from trainformer.core.roles import Task
from trainformer.core.rows import Example, Row
from trainformer.data.formats import Source

# fmt: off
TEXT_NAMES = [
    "text", "content", "sentence", "review", "comment", "message", "question", "query", "utterance", "body",
    "document", "post", "tweet", "headline", "title", "summary", "description", "abstract", "prompt", "input", "文本",
    "内容", "正文", "句子", "评论", "评价", "问题", "标题",
]
LABEL_NAMES = [
    "label", "labels", "class", "classes", "category", "categories", "target", "sentiment", "intent", "topic",
    "polarity", "emotion", "stars", "rating", "score", "y", "标签", "类别", "分类", "情感", "意图", "评分", "分数",
]
PAIR_NAMES = [
    ("text_a", "text_b"), ("text1", "text2"), ("text_1", "text_2"), ("text", "text_b"), ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b"), ("premise", "hypothesis"), ("question1", "question2"),
    ("question", "answer"), ("question", "context"), ("question", "sentence"), ("context", "response"),
    ("query", "document"), ("query", "passage"), ("query", "response"), ("query", "answer"), ("query", "title"),
    ("query", "text"), ("source", "target"), ("anchor", "positive"), ("句子1", "句子2"), ("问题", "回答"),
]
# fmt: on
LOOK_ROWS = 50
"""Rows that are looked at to tell columns of strings from others."""
FLAGS = {"text": "--text", "text_b": "--text-b", "label": "--label", "weight": "--set data.weight="}


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read; those not needed are None."""

    text: str
    text_b: str | None = None
    label: str | None = None
    weight: str | None = None


def choose(source: Source, settings: DataSettings, pair: bool, labelled: bool) -> tuple[Columns, list[str]]:
    """The columns to read, and a sentence to say for each that was found and not named.

    Raises UserError for an unknown column, one column in two roles, or where more than one could be meant.
    """
    if settings.text_b is not None and not pair:
        raise UserError("the task reads one text.", where="--text-b", fix="Use --task text_pair, or leave --text-b out.")
    named = {role: getattr(settings, role) for role in FLAGS if role != "label" or labelled}
    for role, column in named.items():
        _refuse_unknown(source, role, column)
    found = {role: column for role, column in named.items() if column is not None}
    _refuse_twice(source, found)
    said: list[str] = []
    finder = _Finder(source, found, said)
    if pair:
        finder.pair()
    if labelled:
        finder.label()
    finder.texts(["text", "text_b"] if pair else ["text"])
    return Columns(**finder.found), said


def _refuse_unknown(source: Source, role: str, column: str | None) -> None:
    if column is not None and column not in source.columns:
        raise UserError(f"no column '{column}' ({FLAGS[role]}).", where=source.name, fix=nearest(column, source.columns))


def _refuse_twice(source: Source, found: dict[str, str]) -> None:
    roles = list(found)
    for i, role in enumerate(roles):
        other = next((r for r in roles[:i] if found[r] == found[role]), None)
        if other is not None:
            what = f"the column '{found[role]}' is given twice ({FLAGS[other]} and {FLAGS[role]})."
            raise UserError(what, where=source.name, fix=f"There is: {', '.join(source.columns):.300}.")


class _Finder:
    """Fills the roles that were not named; each guess adds a sentence to `said`."""

    def __init__(self, source: Source, found: dict[str, str], said: list[str]):
        self.source, self.found, self.said = source, found, said

    @property
    def free(self) -> list[str]:
        return [c for c in self.source.columns if c not in self.found.values()]

    def take(self, role: str, column: str, how: str) -> None:
        self.found[role] = column
        self.said.append(f"{role}: column '{column}' ({how}; {FLAGS[role]} chooses another)")

    def pair(self) -> None:
        """Both texts, or the second that goes with the first, by usual pairs of names."""
        by_name = {_folded(c): c for c in [*self.found.values(), *self.free]}
        for first, second in PAIR_NAMES:
            columns = {"text": by_name.get(first), "text_b": by_name.get(second)}
            open_roles = [role for role in columns if role not in self.found]
            fits = all(columns[role] == self.found[role] for role in columns if role in self.found)
            if open_roles and fits and all(columns[role] in self.free for role in open_roles):
                for role in open_roles:
                    self.take(role, str(columns[role]), "found by its name")
                return

    def label(self) -> None:
        """The label by its usual name, else the only column that is left beside the texts."""
        if "label" in self.found:
            return
        column = _first(LABEL_NAMES, self.free)
        if column is not None:
            return self.take("label", column, "found by its name")
        text = None if "text" in self.found else _first(TEXT_NAMES, self.free)
        left = [c for c in self.free if c != text]
        if len(left) != 1:
            raise self.ambiguous("label", "the label")
        self.take("label", left[0], "the only column left")

    def texts(self, roles: list[str]) -> None:
        """Texts by their usual names, else the only columns of strings."""
        for role in roles:
            if role in self.found:
                continue
            column = _first(TEXT_NAMES, self.free) if len(roles) == 1 else None
            if column is not None:
                self.take(role, column, "found by its name")
                continue
            strings = self.strings()
            missing = [r for r in roles if r not in self.found]
            if len(strings) != len(missing) or len(missing) > 1:
                raise self.ambiguous(role, "the texts" if len(roles) > 1 else "the text")
            self.take(role, strings[0], "the only column of strings left")

    def strings(self) -> list[str]:
        """Columns left that hold a string or null in each of the first rows."""
        rows = list(islice(self.source, LOOK_ROWS))
        label = _first(LABEL_NAMES, self.free)
        seen = {c: [row.values.get(c) for row in rows] for c in self.free if c != label}
        return [c for c, values in seen.items() if any(values) and all(v is None or isinstance(v, str) for v in values)]

    def ambiguous(self, role: str, what: str) -> UserError:
        flags = f"{FLAGS['text']} and {FLAGS['text_b']}" if what == "the texts" else FLAGS[role]
        fix = f"Say it with {flags}. There is: {', '.join(self.source.columns):.300}."
        return UserError(f"it is not clear which column is {what}.", where=self.source.name, fix=fix)


def _folded(column: str) -> str:
    return column.strip().lower().replace(" ", "_").replace("-", "_")


def _first(usual: list[str], columns: list[str]) -> str | None:
    by_name = {_folded(c): c for c in reversed(columns)}
    return next((by_name[n] for n in usual if n in by_name), None)


def example(row: Row, columns: Columns, task: Task, number: int, labelled: bool = True) -> Example:
    """What the task makes of a row; `number` counts rows from 0.

    Raises UserError with the row's place for a text that is no string, a weight that is no number >= 0, and for
    what the task refuses. An empty text passes: the pre-flight check reports it.
    """
    names = [columns.text] if columns.text_b is None else [columns.text, columns.text_b]
    texts = tuple(text_of(row, name) for name in names)
    label = _value(row, columns.label) if labelled and columns.label is not None else ...
    if label is None:
        raise UserError(f"the label '{columns.label}' is null.", where=row.where, fix="Give the row a label or remove it.")
    if isinstance(label, str):
        refuse_surrogates(label, row, str(columns.label))
    weight = 1.0 if columns.weight is None else _weight(row, columns.weight)
    try:
        return task.parse(texts, label, row=number, weight=weight)
    except UserError as error:
        if error.where:
            raise
        raise UserError(error.what, where=row.where, fix=error.fix) from error


def _value(row: Row, column: str) -> Any:
    if column not in row.values:
        raise UserError(f"this row has no '{column}'.", where=row.where, fix=nearest(column, row.values))
    return row.values[column]


def text_of(row: Row, column: str) -> str:
    """The text in a column. Raises UserError with the row's place for what is none."""
    value = _value(row, column)
    if not isinstance(value, str):
        shown = "null" if value is None else f"{type(value).__name__} ({value!r:.40})"
        fix = "Give it a text or remove the row." if value is None else 'Write it as a string, "in quotes".'
        raise UserError(f"the text '{column}' is {shown}, not a string.", where=row.where, fix=fix)
    refuse_surrogates(value, row, column)
    return value


def refuse_surrogates(value: str, row: Row, column: str) -> None:
    """JSON can spell half of a character (\\ud83d), which no file or tokenizer can hold."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(value[error.start])
        what = f"'{column}' holds half of a character (\\u{half:04x}) at place {error.start + 1}."
        raise UserError(what, where=row.where, fix="The text was cut inside an emoji or the like: take the half out.") from error


def _weight(row: Row, column: str) -> float:
    value = _value(row, column)
    try:
        weight = math.nan if isinstance(value, bool | None) else float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise UserError(f"the weight '{column}' is {value!r:.40}.", where=row.where, fix="It must be a number, 0 or more.")
    return weight
