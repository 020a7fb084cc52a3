"""What a user did wrong, said so that it can be mended: where, what, how, and the nearest right word."""

import signal
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class UserError(ValueError):
    """Bad input. The command line prints it without a traceback and ends with exit code 2.

    It is a ValueError so that pydantic keeps the place of a setting that raises it.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = ""):
        self.what, self.where, self.fix = what, where, fix
        super().__init__(" ".join(part for part in (where and f"{where}:", what, fix) if part))


class Interrupted(Exception):
    """Ctrl-C or SIGTERM: the checkpoint of its step is in `folder`, the run's. `code` is the exit code that shells expect."""

    def __init__(self, number: int, step: int, folder: Path):
        self.code, self.step, self.folder = 128 + number, step, folder
        super().__init__(f"stopped by {signal.Signals(number).name} at step {step}; its checkpoint is kept.")


class MissingExtra(UserError):
    """An optional package that the user asked for is not installed."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"this needs the package '{package}'.", fix=f"pip install 'trainformer[{extra}]'")


OF_TRAINING = ("torch", "transformers", "safetensors", "sklearn", "jinja2")
"""What `pip install 'trainformer[train]'` brings and nothing that only answers may need."""


def of_training(error: ModuleNotFoundError) -> UserError | None:
    """What to say of a module that is not there, if it is one that only training needs."""
    name = (error.name or "").split(".")[0]
    if name not in OF_TRAINING:
        return None
    return UserError(f"this needs PyTorch and what belongs to it: there is no '{name}'.", fix="pip install 'trainformer[train]'")


def nearest(word: object, words: Iterable[object]) -> str:
    """' Did you mean X?' for the word that is closest, else all of the words if they are few, else nothing."""
    known = [str(w) for w in words]
    folded = {w.lower(): w for w in reversed(known)}
    close = get_close_matches(str(word).lower(), folded, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{folded[close[0]]}'?"
    return f"There is: {', '.join(known)}." if 0 < len(known) <= 30 else ""
