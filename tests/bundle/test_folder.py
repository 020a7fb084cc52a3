"""A bundle as a folder: what is written is what is read, and nothing else is accepted."""

import json
import pickle
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from trainformer.bundle import Bundle
from trainformer.core.errors import UserError

FILES = [
    "README.md",
    "config.json",
    "manifest.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "trainformer.json",
]


@pytest.mark.parametrize("pooling", [None, "cls", "mean", "max"])
@pytest.mark.parametrize("packing", ["auto", "packed", "padded"])
def test_reopened_it_gives_the_same_bits(pooling: str | None, packing: str, make: Any, texts: list[str]) -> None:
    folder = make(pooling=pooling, packing=packing)
    bundle = Bundle.open(folder)
    assert bundle.model.body.packed == (packing != "padded")
    first = bundle.logits(texts)
    assert torch.equal(first, Bundle.open(folder).logits(texts))
    bundle.model = make.model.eval()
    assert torch.equal(first, bundle.logits(texts))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_changed_byte_is_refused(name: str, place: float, make: Any) -> None:
    folder = make()
    assert sorted(p.name for p in folder.iterdir()) == FILES
    data = bytearray((folder / name).read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        Bundle.open(folder)


@pytest.mark.parametrize("old", ["\n", " ", '"', "0"])
def test_any_change_of_the_manifest_is_refused(old: str, make: Any) -> None:
    path = make() / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace(old, {"\n": "\n\n", " ": "  ", '"': " ", "0": "1"}[old], 1))
    with pytest.raises(UserError, match=r"manifest\.json"):
        Bundle.open(path.parent)


def test_files_too_few_and_too_many(make: Any) -> None:
    folder = make()
    (folder / "extra.py").write_text("")
    with pytest.raises(UserError, match=r"extra\.py.*Remove it"):
        Bundle.open(folder)
    (folder / "extra.py").unlink()
    (folder / "README.md").unlink()
    with pytest.raises(UserError, match=r"README\.md.*gone"):
        Bundle.open(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"no manifest\.json"):
        Bundle.open(folder)


def test_what_is_no_bundle(make: Any, tmp_path: Path, encoder: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"it has no trainformer\.json"):
        Bundle.open(encoder)
    run = tmp_path / "run"
    run.mkdir()
    shutil.move(make(), run / "bundle")
    with pytest.raises(UserError, match=r"Did you mean '.*run/bundle'"):
        Bundle.open(run)


def test_every_file_may_be_read_by_the_same_people(make: Any) -> None:
    """safetensors writes for the owner alone; a bundle is there to be shared."""
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in make().iterdir()}
    assert len(set(modes.values())) == 1 and modes["config.json"] & stat.S_IRUSR, modes


def test_no_pickle_and_no_path_of_this_machine(make: Any, encoder: Path) -> None:
    for path in make().iterdir():
        data = path.read_bytes()
        assert str(encoder.parent).encode() not in data, path.name
        with pytest.raises((pickle.UnpicklingError, ValueError, KeyError, IndexError, EOFError, AttributeError, TypeError)):
            pickle.loads(data)


def test_a_later_format_is_refused(make: Any) -> None:
    from trainformer.core.files import write_manifest

    folder = make()
    facts = json.loads((folder / "trainformer.json").read_text())
    (folder / "trainformer.json").write_text(json.dumps(facts | {"format": 2}))
    write_manifest(folder)
    with pytest.raises(UserError, match=r"format 2 is of a later version.*pip install -U"):
        Bundle.open(folder)


def test_opening_draws_nothing(make: Any) -> None:
    """Weights that are read are not drawn first: it takes long for a large model, and moves the caller's randomness."""
    folder = make()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Bundle.open(folder)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("setting", "word"), [("pooling", "median"), ("packing", "sideways")])
def test_unknown_choices_are_refused(setting: str, word: str, make: Any) -> None:
    with pytest.raises(ValueError, match=word):
        make(**{setting: word})


def test_a_bundle_can_be_trained_on(make: Any, texts: list[str]) -> None:
    """As the checkpoint of another run: with the same labels it starts where it was, whatever its pooling."""
    from trainformer.core import registry
    from trainformer.core.roles import Backbone, Task

    for pooling in ("cls", "mean"):
        folder = make(pooling=pooling)
        bundle = Bundle.open(folder)
        before = bundle.logits(texts)
        task = registry.build(Task, "text_classification", {"labels": ["so-so", "good", "bad"]})
        model, _, said = registry.build(Backbone, "pretrained", {"name": str(folder)}).load(task)
        assert said[0].startswith("head: kept")
        bundle.model = model.eval()
        torch.testing.assert_close(bundle.logits(texts)[:, [2, 1, 0]], before, atol=1e-5, rtol=0)
    model, _, said = registry.build(Backbone, "pretrained", {"name": str(make(pooling="max"))}).load(task)
    assert said[0].startswith("head: new")  # the library has no head for it
