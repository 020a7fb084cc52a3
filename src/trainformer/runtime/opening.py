"""The one way to open a bundle that is asked: a graph by what needs no PyTorch, every other model by PyTorch."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainformer.bundle.facts import bundle_folder, facts_in
from trainformer.bundle.refusing import inspect, reading
from trainformer.core import registry
from trainformer.core.errors import UserError, of_training
from trainformer.core.roles import Task
from trainformer.data.encode import reads_alone
from trainformer.runtime.light import SESSIONS, Light

if TYPE_CHECKING:
    from trainformer.bundle.reading import Bundle


def opened(folder: str | Path, adapter: str | None = None, threads: int | None = None) -> "Bundle | Light":
    """A bundle of which every byte is checked against its manifest; `adapter` chooses one of several.

    `threads` (none: one a core) are those that its model runs on. Raises UserError for a folder that is no bundle, a changed
    file, a format of a later version, what could do harm, and a model that needs PyTorch where there is none.
    """
    path = bundle_folder(folder)
    inspect(path)
    with needing_pytorch(path):
        with reading(path):
            facts = facts_in(path)
            if answers_alone(facts):
                return Light.inspected(path, facts, adapter, threads)
        return _by_pytorch(path, adapter, threads)


def answers_alone(facts: dict[str, Any]) -> bool:
    """Whether a bundle's model is a graph, and its task reads texts and scores answers without PyTorch."""
    return facts["model"]["kind"] in SESSIONS and reads_alone(registry.find(Task, facts["task"]["name"]))


def require_pytorch(facts: dict[str, Any]) -> None:
    """Raises ModuleNotFoundError where a bundle needs PyTorch and there is none; it is not loaded to find out."""
    if not answers_alone(facts) and find_spec("torch") is None:
        raise ModuleNotFoundError("no PyTorch", name="torch")


@contextmanager
def needing_pytorch(where: Path) -> Iterator[None]:
    """Inside, that PyTorch or what belongs to it is not there is said as what a bundle needs."""
    try:
        yield
    except ModuleNotFoundError as error:
        if of_training(error) is None:
            raise
        fix = "pip install 'trainformer[train]', or compress it where PyTorch is: trainformer compress --to int8"
        raise UserError(f"this bundle needs PyTorch: there is no '{error.name}'.", where=str(where), fix=fix) from error


def _by_pytorch(path: Path, adapter: str | None, threads: int | None) -> "Bundle":
    import torch

    from trainformer.bundle.reading import Bundle

    if threads is not None:
        torch.set_num_threads(threads)
    return Bundle.inspected(path, adapter=adapter)
