"""How well a tokenizer fits texts: tokens a character, the share that it does not know, what comes back when it is decoded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

CHUNK_TEXTS = 1000
HAN_SHARE = 0.5
"""A text is Chinese if more than this share of its letters are Han characters."""


@dataclass
class Fit:
    """Sums over texts. `unknown` tokens, `unknown_characters` behind them, `whole` texts that are equal when decoded."""

    texts: int = 0
    characters: int = 0
    utf8_bytes: int = 0
    tokens: int = 0
    unknown: int = 0
    unknown_characters: int = 0
    whole: int = 0

    def add(self, other: "Fit") -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def row(self, column: str, script: str) -> dict[str, Any]:
        """One line of a report; shares are 0..1."""
        return {
            "column": column,
            "script": script,
            "texts": self.texts,
            "characters": self.characters,
            "tokens": self.tokens,
            "tokens_a_character": self.tokens / max(1, self.characters),
            "bytes_a_token": self.utf8_bytes / max(1, self.tokens),
            "unknown_share": self.unknown / max(1, self.tokens),
            "unknown_characters_share": self.unknown_characters / max(1, self.characters),
            "decoded_share": self.whole / max(1, self.texts),
        }


def report(backend: Any, unknown: int | None, columns: dict[str, Iterable[str]]) -> list[dict[str, Any]]:
    """A line for each column and, where its texts are of more than one script, for each script in it; then for all.

    `unknown` is the id of the unknown token. A text is of the script "Han" or "other" by most of its letters.
    """
    lines, every = [], Fit()
    for column, texts in columns.items():
        found = _fits(backend, unknown, texts)
        whole = Fit()
        for fit in found.values():
            whole.add(fit)
        every.add(whole)
        one = next(iter(found)) if len(found) == 1 else "all"
        lines.append(whole.row(column, one))
        if len(found) > 1:
            lines += [found[script].row(column, script) for script in sorted(found)]
    return lines if len(columns) == 1 else [*lines, every.row("all columns", "all")]


def _fits(backend: Any, unknown: int | None, texts: Iterable[str]) -> dict[str, Fit]:
    found: dict[str, Fit] = {}
    for chunk in _chunks(texts):
        encoded = backend.encode_batch(chunk, add_special_tokens=False)
        decoded = backend.decode_batch([e.ids for e in encoded], skip_special_tokens=False)
        for text, one, back in zip(chunk, encoded, decoded, strict=True):
            spans = [span for span, piece in zip(one.offsets, one.ids, strict=True) if piece == unknown]
            lost = sum(end - start for start, end in spans)
            fit = Fit(1, len(text), len(text.encode()), len(one.ids), len(spans), lost, int(back == text))
            found.setdefault(script(text), Fit()).add(fit)
    return found


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    whole = iter(texts)
    while chunk := list(islice(whole, CHUNK_TEXTS)):
        yield chunk


def script(text: str) -> str:
    """ "Han" or "other", by most of the letters of a text.

    >>> script("你好, world"), script("你好世界 ok")
    ('other', 'Han')
    """
    letters = [c for c in text if c.isalpha()]
    return "Han" if sum(is_han(c) for c in letters) > HAN_SHARE * len(letters) else "other"


def is_han(character: str) -> bool:
    """Whether a character is a Chinese one."""
    code = ord(character)
    return 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x323AF
