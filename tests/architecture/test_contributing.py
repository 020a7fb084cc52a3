"""The method that CONTRIBUTING.md shows is whole: saved as one file, it is found by name and does what it says."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from torch import nn

from trainformer import methods
from trainformer.core import registry
from trainformer.core.roles import Method, Model


def test_the_example_works_as_one_file(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert example
    (tmp_path / "lowest.py").write_text(example[1], encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])

    role = cast(type[Any], Method)
    assert "lowest" in registry.names(role)
    layers = [nn.Linear(2, 2) for _ in range(3)]
    body = SimpleNamespace(blocks=lambda: layers)
    registry.build(role, "lowest", {"blocks": 2}).extend(cast(Model, SimpleNamespace(body=body)))
    assert [layer.weight.requires_grad for layer in layers] == [False, False, True]
