"""Which checkpoint is meant, and what is said where none is."""

from pathlib import Path
from typing import Any

import pytest

from trainformer.core.errors import UserError
from trainformer.models import locate as module
from trainformer.models.locate import locate


def test_a_folder(checkpoint: Any, tmp_path: Path) -> None:
    folder = checkpoint("bert")
    assert locate(str(folder)) == (str(folder), [])
    with pytest.raises(UserError, match=rf"it has no config\.json\. Did you mean '{folder}'"):
        locate(str(tmp_path))
    with pytest.raises(UserError, match="not a file"):
        locate(str(folder / "config.json"))
    with pytest.raises(UserError, match=r"no such folder.*Did you mean 'bert-bare'"):
        locate(str(tmp_path / "bert-bear"))


@pytest.mark.parametrize("name", ["someone/encodr", "encodr"])
def test_a_hub_name_offline(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "reachable", lambda: False)
    (tmp_path / "models--someone--encoder").mkdir()
    with pytest.raises(UserError, match=r"the hub cannot be reached.*someone/encoder"):
        locate(name)
    assert locate("someone/encoder") == ("someone/encoder", [])


def test_the_default_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "default_model", lambda: "/models/default")
    found, said = locate(None)
    assert found == "/models/default" and "all-MiniLM-L6-v2" in said[0]
    monkeypatch.setattr(module, "default_model", lambda: None)
    with pytest.raises(UserError, match=r"no model given.*pip install"):
        locate(None)
