"""What a bundle from elsewhere may not hold: code, pickles, weights that are none."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainformer.core import stored
from trainformer.core.errors import UserError
from trainformer.core.files import RESTORE, check_manifest

PICKLES = {".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}
NUMBERS = {"openvino_model.bin"}
"""Numbers without a form of their own, which a description beside them tells: nothing takes them for a pickle."""
CODE = {".dll", ".dylib", ".exe", ".pth", ".py", ".pyc", ".pyd", ".sh", ".so"}
DESCRIPTIONS = ("config.json", "tokenizer_config.json")


def inspect(folder: Path) -> None:
    """Looks at every file of a bundle before anything is built. Raises UserError for what does harm, or could."""
    check_manifest(folder)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        suffix = path.suffix.lower()
        pickle = suffix in PICKLES and path.name not in NUMBERS
        kind = "a pickle, which may run code when it is read" if pickle else "code" if suffix in CODE else ""
        if kind:
            raise UserError(f"it is {kind}; a bundle holds data alone.", where=str(path), fix="Take a bundle without it.")
        if path.name in DESCRIPTIONS:
            _refuse_remote_code(path)
        if path.suffix == ".safetensors":
            _refuse_no_weights(path)


def _refuse_remote_code(path: Path) -> None:
    with reading(path):
        named = "auto_map" in json.loads(path.read_text(encoding="utf-8"))
    if named:
        what = "its auto_map names code that would run when the model is opened."
        raise UserError(what, where=str(path), fix="Take a model that the transformers library knows by itself.")


def _refuse_no_weights(path: Path) -> None:
    try:
        stored.header(path)
    except ValueError as error:
        raise UserError(f"it holds no weights: {error}.", where=str(path), fix=RESTORE) from error


@contextmanager
def reading(where: Path) -> Iterator[None]:
    """Inside, what goes wrong while a stranger's files are read is said as a refusal of them."""
    try:
        yield
    except (UserError, ImportError, MemoryError, PermissionError):
        raise  # not the bundle's doing
    except Exception as error:  # any: a number in the place of a name fails wherever a library first uses it
        first = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"it cannot be read: {type(error).__name__}: {first:.200}", where=str(where), fix=RESTORE) from error
