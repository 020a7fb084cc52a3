"""A model's tokenizer as the transformers library opens it: its special tokens by their roles."""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from threading import RLock
from typing import Any

import transformers

from trainformer.core.errors import UserError
from trainformer.data.fast_tokens import FastTokens

MASKS = ("<mask>", "[MASK]")
"""How masks are written; the first is what a tokenizer without one gets."""
_alone = RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """The library's notices and bars off: what matters in them is checked and said by us.

    For one thread at a time: while the library opens a model, functions of its own and of PyTorch are replaced for all.
    """
    logs = transformers.utils.logging
    with _alone:
        level, bar = logs.get_verbosity(), logs.is_progress_bar_enabled()
        logs.set_verbosity_error()
        logs.disable_progress_bar()
        try:
            with warnings.catch_warnings(action="ignore"):
                yield
        finally:
            logs.set_verbosity(level)
            if bar:
                logs.enable_progress_bar()


class HubTokens(FastTokens):
    """The fast tokenizer of a checkpoint, with what the transformers library knows of its special tokens."""

    def __init__(self, tokenizer: Any, where: str):
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError("its tokenizer has no fast form (tokenizer.json).", where=where)
        super().__init__(backend, where)
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, name: str, revision: str | None = None) -> "HubTokens":
        """Raises UserError if there is no tokenizer that can be read."""
        try:
            how = dict(revision=revision, use_fast=True, trust_remote_code=False)
            with quiet():
                found: Any = transformers.AutoTokenizer.from_pretrained(name, **how)
            if len(found) <= len(found.all_special_ids):
                raise UserError("it has no tokenizer: no vocabulary is beside it.", where=name)
            return cls(found, name)
        except (OSError, ValueError, KeyError, ImportError) as error:
            if isinstance(error, UserError):
                raise
            first = (str(error).strip().splitlines() or [""])[0][:300]
            raise UserError(f"its tokenizer cannot be read: {first}", where=name) from error

    @cached_property
    def vocabulary(self) -> int:
        """How many tokens there are, special ones included."""
        return 1 + max(self.tokenizer.get_vocab().values())

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """What stands for no part of a text."""
        added = self.backend.get_added_tokens_decoder()
        return frozenset(self.tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}

    @cached_property
    def mask(self) -> int | None:
        """The token that stands for a hidden one."""
        found: int | None = self.tokenizer.mask_token_id
        return found

    def add_mask(self) -> None:
        """A token for what is hidden, for a tokenizer that has none: one that it has under a usual name, or one more."""
        known = self.tokenizer.get_vocab()
        self.tokenizer.add_special_tokens({"mask_token": next((name for name in MASKS if name in known), MASKS[0])})
        for stale in ("vocabulary", "special_ids", "mask", "fingerprint"):
            self.__dict__.pop(stale, None)

    @cached_property
    def begin(self) -> int | None:
        return _first(self.tokenizer.bos_token_id, self.tokenizer.cls_token_id, self.tokenizer.pad_token_id)

    @cached_property
    def end(self) -> int | None:
        return _first(self.tokenizer.eos_token_id, self.tokenizer.sep_token_id)

    @cached_property
    def pad(self) -> int | None:
        return _first(self.tokenizer.pad_token_id)

    @cached_property
    def sentinels(self) -> tuple[int, ...]:
        """What marks the gaps of a text, as T5's tokenizers write it: <extra_id_0>, <extra_id_1> and so on."""
        known = self.tokenizer.get_vocab()
        return tuple(known[name] for name in takewhile(known.__contains__, map("<extra_id_{}>".format, count())))

    def text(self, ids: Sequence[int]) -> str:
        """The text of some ids, without special tokens."""
        found: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return found

    @cached_property
    def unknown_id(self) -> int | None:
        found: int | None = self.tokenizer.unk_token_id
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Changes with anything that changes the ids of a text."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and its configuration, as the library reads them."""
        self.tokenizer.init_kwargs.pop("auto_map", None)  # a bundle names no code
        self.tokenizer.save_pretrained(folder)


def _first(*ids: int | None) -> int | None:
    return next((i for i in ids if i is not None), None)


def write_tokenizer(backend: Any, roles: dict[str, str], typed: bool, folder: Path) -> None:
    """Writes a `tokenizers.Tokenizer` as the library reads it: `roles` name its special tokens, `typed` a pair's token types."""
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if typed else ["input_ids", "attention_mask"]
    whole = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_input_names=inputs, clean_up_tokenization_spaces=False, **roles
    )
    whole.save_pretrained(folder)
