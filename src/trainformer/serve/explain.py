"""Which words an answer hangs on: the model is asked again without each of them (Zeiler and Fergus 2013, arXiv:1311.2901)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

IDEOGRAPH = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(f"[{IDEOGRAPH}]|[^\\s{IDEOGRAPH}]+")
"""What stands between blanks; of Chinese and Japanese, which have none, each character."""


@dataclass(frozen=True, slots=True)
class Word:
    """A place in one of the texts of an example, 0 or 1; `start` and `end` count characters."""

    text: int
    start: int
    end: int


def words(texts: tuple[str, ...]) -> list[Word]:
    """The words of a text or pair, in order."""
    return [Word(i, *found.span()) for i, text in enumerate(texts) for found in WORD.finditer(text)]


def without(texts: tuple[str, ...], word: Word) -> tuple[str, ...]:
    """The same with one word left out."""
    cut = texts[word.text][: word.start] + texts[word.text][word.end :]
    return tuple(cut if i == word.text else text for i, text in enumerate(texts))


def explanation(found: Sequence[Word], answer: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How much each word adds: what is said of the text, less what is said without the word. `others` are in their order.

    `of`: the label whose probability is meant, which is the one that was said, else the likeliest; null where a number is said.
    """
    scores = answer["scores"]
    said = answer["label"] if isinstance(answer["label"], str) and answer["label"] in scores else None
    of = said if said is not None or not scores else max(scores, key=lambda label: scores[label])

    def value(each: dict[str, Any]) -> float:
        return float(each["label"] if of is None else each["scores"][of])

    listed = [
        {"text": word.text, "start": word.start, "end": word.end, "score": value(answer) - value(other)}
        for word, other in zip(found, others, strict=True)
    ]
    return {"of": of, "words": listed}
