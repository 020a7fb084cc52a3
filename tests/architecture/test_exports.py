"""The public names, exactly: a name that is added or lost shows here, in review."""

import types

import trainformer

PUBLIC = {"Bundle", "check", "train", "__version__"}


def test_the_public_names_are_these() -> None:
    assert set(trainformer.__all__) == PUBLIC
    assert all(hasattr(trainformer, name) for name in PUBLIC)


def test_nothing_else_looks_public() -> None:
    seen = {name for name in dir(trainformer) if not name.startswith("_")}
    extra = {name for name in seen - PUBLIC if not isinstance(getattr(trainformer, name), types.ModuleType)}
    assert extra == set()


def test_the_version_is_that_of_the_project(project: dict[str, dict[str, str]]) -> None:
    assert trainformer.__version__ == project["project"]["version"]
