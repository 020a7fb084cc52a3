"""Which pieces of a text belong to one word: as the tokenizer split it before it made pieces, and in Chinese by a dictionary."""

from collections.abc import Sequence

from trainformer.core.errors import MissingExtra
from trainformer.data.vocabulary_report import is_han

Span = tuple[int, int, int]
"""Of a piece: the number of the word that the tokenizer cut it from, and where in the text it begins and ends."""


def word_numbers(text: str, spans: Sequence[Span], chinese: bool = False) -> list[int]:
    """The number of the word of each piece, from 0; pieces of one word have one number.

    Han characters have no spaces: each piece of them is a word or, with `chinese`, the words are those of jieba's dictionary
    (whole-word masking for Chinese: Cui et al. 2019, arXiv:1906.08101). Raises MissingExtra without rjieba.
    """
    begins = _beginnings(text) if chinese and any(map(is_han, text)) else None
    numbers: list[int] = []
    now, last, after_han, covered = -1, -1, False, 0
    for word, start, end in spans:
        while start < end - 1 and text[start].isspace():  # a piece may hold the space before it
            start += 1
        han = start < len(text) and is_han(text[start])
        fresh = start >= covered  # else it is one more byte of the same character
        new = fresh and (begins is None or start in begins) if han else word != last or after_han
        now += new or now < 0
        numbers.append(now)
        last, after_han, covered = word, han, max(covered, end)
    return numbers


def _beginnings(text: str) -> set[int]:
    """Where the words of a text begin."""
    try:
        import rjieba
    except ImportError as error:
        raise MissingExtra("rjieba", "chinese") from error
    places, here = set(), 0
    for word in rjieba.cut(text):
        places.add(here)
        here += len(word)
    return places
