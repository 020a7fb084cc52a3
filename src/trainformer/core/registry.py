"""A component is found by its file's name. There is no list to edit: `methods/sam.py` is the method `sam`."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from trainformer.core.errors import UserError, nearest
from trainformer.core.roles import Backbone, Callback, Method, Task

C = TypeVar("C", Task, Method, Callback, Backbone)
FOLDERS: dict[type, str] = {Task: "tasks", Method: "methods", Callback: "callbacks", Backbone: "models"}


def names(role: type) -> list[str]:
    """The names that can be used for a role, sorted."""
    return sorted(name for name, _ in classes(role))


def classes(role: type[C]) -> Iterator[tuple[str, type[C]]]:
    """Every component of a role, by name; a file without one (a part of a component) is passed over."""
    package = importlib.import_module(f"trainformer.{FOLDERS[role]}")
    for module in pkgutil.iter_modules(package.__path__):
        found = _in_module(role, f"{package.__name__}.{module.name}")
        if found is not None:
            yield module.name, found


def find(role: type[C], name: str) -> type[C]:
    """The class behind a name: a file of the package, or `my_package.my_method` from outside.

    Raises UserError for a word that is neither, with the nearest one that is.
    """
    folder = FOLDERS[role]
    module = name if "." in name else f"trainformer.{folder}.{name}"
    try:
        found = _in_module(role, module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        found = None
    if found is None:
        raise UserError(f"no {role.__name__.lower()} '{name}'.", fix=nearest(name, names(role)))
    return found


def _in_module(role: type[C], module: str) -> type[C] | None:
    loaded = importlib.import_module(module)
    own = [c for c in vars(loaded).values() if isinstance(c, type) and issubclass(c, role) and c.__module__ == loaded.__name__]
    public = [c for c in own if not c.__name__.startswith("_")]
    if not public:
        return None
    assert len(public) == 1, f"{module} defines {len(public)} components; one file, one component"
    public[0].key = module.removeprefix(f"trainformer.{FOLDERS[role]}.")
    return public[0]


def kind_of(role: type[C], settings: Any, default: str) -> str:
    """The component that settings without a kind mean: a backbone that knows their `name`, else the usual one.

    A name that is no folder may be a slip: then it is the backbone that has all of the settings.
    """
    name = settings.get("name")
    if not name or not issubclass(role, Backbone):
        return default
    backbones = list(classes(Backbone))
    known = [kind for kind, found in backbones if found.knows(name)]
    fitting = [kind for kind, found in backbones if set(settings) <= set(found.model_fields)]
    if known or default in fitting or not fitting or Path(str(name)).is_dir():
        return (known or [default])[0]
    return fitting[0]


def build(role: type[C], name: str, settings: dict[str, Any] | None) -> C:
    """A component by name with its settings checked."""
    return find(role, name)(**(settings or {}))
