"""The pieces of texts, and how sequences are wrapped in special tokens: by the tokenizers library alone."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trainformer.core.errors import UserError

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"


class FastTokens:
    """A `tokenizers.Tokenizer`. Pieces and wrapping are apart, so that what is cut is known and counted."""

    def __init__(self, backend: Any, where: str, unknown: str | None = None):
        self.backend, self.where, self.unknown = backend, where, unknown
        backend.no_truncation()
        backend.no_padding()
        self.templates = {1: self._template("a"), 2: self._template("a", "a")}
        self.specials = {n: sum(isinstance(slot, int) for slot, _ in t) for n, t in self.templates.items()}

    @classmethod
    def of(cls, folder: Path) -> "FastTokens":
        """The tokenizer of a bundle. Raises UserError for one that cannot be read."""
        try:
            backend = Tokenizer.from_file(str(folder / FILE))
        except Exception as error:  # the library has no class of its own for its errors
            raise UserError(f"its tokenizer cannot be read: {error!s:.300}", where=str(folder)) from error
        unknown = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("unk_token")
        return cls(backend, str(folder), unknown["content"] if isinstance(unknown, dict) else unknown)

    def _template(self, *texts: str) -> list[tuple[int | str, int]]:
        """(special id, or "A"/"B" where a text stands; token type) in order, read off an encoding."""
        encoding = self.backend.encode(*texts, add_special_tokens=True)
        slots: list[tuple[int | str, int]] = []
        for token, kind, sequence in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):
            slot: int | str = token if sequence is None else "AB"[sequence]
            if not (isinstance(slot, str) and slots and slots[-1][0] == slot):
                slots.append((slot, kind))
        return slots

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without special tokens, nothing cut."""
        return [e.ids for e in self.backend.encode_batch(list(texts), add_special_tokens=False)]

    def wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        """The ids of one or two texts with their special tokens, and the type of each token."""
        ids: list[int] = []
        kinds: list[int] = []
        for slot, kind in self.templates[len(texts)]:
            piece = [slot] if isinstance(slot, int) else texts["AB".index(slot)]
            ids += piece
            kinds += [kind] * len(piece)
        return ids, kinds

    @cached_property
    def typed(self) -> bool:
        """Whether token types tell anything: a pair of BERT has 0 and 1, RoBERTa has none."""
        return any(kind for template in self.templates.values() for _, kind in template)

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int, int]]]:
        """For each piece of each text the word it was cut from, by number, and where it begins and ends in the text."""
        encoded = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [[(-1 if w is None else w, *span) for w, span in zip(e.word_ids, e.offsets, strict=True)] for e in encoded]

    @cached_property
    def unknown_id(self) -> int | None:
        """The token that stands for what the vocabulary does not know."""
        found: int | None = None if self.unknown is None else self.backend.token_to_id(self.unknown)
        return found
