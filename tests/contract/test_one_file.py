"""Adding a method is adding one file: no list anywhere is edited."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trainformer
from trainformer.core import registry
from trainformer.core.errors import UserError
from trainformer.core.roles import Method

ONE_FILE = '''"""Doubles each loss."""

from pydantic import Field

from trainformer.core.roles import Loss, Method


class Louder(Method):
    """Multiply each loss by a factor."""

    factor: float = Field(2.0, gt=0)
    """What each loss is multiplied by."""

    def wrap_loss(self, loss: Loss) -> Loss:
        return lambda model, batch: self.factor * loss(model, batch)
'''


def test_a_method_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("")
    (tmp_path / "my_package" / "my_method.py").write_text(ONE_FILE)
    monkeypatch.syspath_prepend(tmp_path)
    found = registry.find(Method, "my_package.my_method")  # type: ignore[type-abstract]
    assert found.key == "my_package.my_method"
    assert found.summary() == "Multiply each loss by a factor."
    assert registry.build(Method, "my_package.my_method", {"factor": 3}).settings() == {"factor": 3.0}


def test_a_package_that_is_not_there_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"no method 'no_such_package\.method'"):
        registry.find(Method, "no_such_package.method")  # type: ignore[type-abstract]


def test_a_misspelt_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no method 'rdropp'\. Did you mean 'rdrop'\?"):
        registry.find(Method, "rdropp")  # type: ignore[type-abstract]


def test_a_file_among_the_methods(tmp_path: Path) -> None:
    package = tmp_path / "trainformer"
    shutil.copytree(Path(trainformer.__path__[0]), package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "methods" / "louder.py").write_text(ONE_FILE)
    words = "from trainformer.core import registry, roles; print(*registry.names(roles.Method))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", words], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert set(done.stdout.split()) == {*registry.names(Method), "louder"}
