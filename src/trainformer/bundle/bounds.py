"""A bundle from elsewhere may not describe a model that is larger than its weights."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils.weak import WeakIdKeyDictionary

from trainformer.core.errors import UserError
from trainformer.core.files import RESTORE

SPARE = 1_000_000
"""A model may have as many numbers that are not stored; and each of those that are stored twice, which is what tying does."""


@contextmanager
def bounded(folder: Path) -> Iterator[None]:
    """Inside, this thread builds no model that is much larger than the weights of a folder, whatever its description says."""
    stored = sum(_numbers(path) for path in folder.rglob("*.safetensors"))
    built, mine = 0, threading.get_ident()
    seen = WeakIdKeyDictionary()

    def see(_: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal built
        if parameter is None or threading.get_ident() != mine or parameter in seen:
            return  # a table that is tied to the head is registered twice, and is there once
        seen[parameter] = True
        built += parameter.numel()
        if built > 2 * stored + SPARE:
            what = f"it describes a model of more than {built:,} numbers, and {stored:,} are stored in it."
            raise UserError(what, where=str(folder), fix=RESTORE)

    handle = register_module_parameter_registration_hook(see)
    try:
        yield
    finally:
        handle.remove()


def _numbers(path: Path) -> int:
    """How many numbers a file of weights holds, by its header."""
    with safe_open(path, "pt") as f:
        return sum(math.prod(f.get_slice(name).get_shape()) for name in f.keys())  # noqa: SIM118 (it is no mapping)
