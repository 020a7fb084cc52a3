"""Bundles that were made to do harm, their manifests in order: each is refused with the reason; nothing runs or is written."""

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trainformer.bundle import Bundle
from trainformer.bundle.bounds import bounded
from trainformer.core.errors import UserError
from trainformer.core.files import MANIFEST, write_json, write_manifest
from trainformer.serve.copies import adopt
from trainformer.serve.versions import opened

Harm = Callable[[Path], None]
CODE = b"import os\nopen(os.environ['HURT'], 'w')\n"
DEEP = b'{"a":' * 100_000


class Payload:
    """Unpickled, it leaves a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ('touch "$HURT"',))


PICKLE = pickle.dumps(Payload())


def test_a_table_that_is_tied_counts_once(tmp_path: Path) -> None:
    """Stored once, registered three times: as the embedding, as the head's own, and as the head's in place of that."""

    def build() -> nn.Module:
        model = nn.Module()
        model.table = nn.Embedding(1100, 1000)
        model.head = nn.Linear(1000, 1100, bias=False)
        for _ in range(2):
            model.head.weight = model.table.weight
        return model

    save_file({"table.weight": torch.zeros(1100, 1000, dtype=torch.uint8)}, tmp_path / "model.safetensors")
    with bounded(tmp_path):
        build()
    with pytest.raises(UserError, match="describes a model of more than"), bounded(tmp_path):
        [build(), build()]


def put(name: str, data: bytes) -> Harm:
    def harm(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)

    return harm


def say(name: str, *more: Harm, **values: Any) -> Harm:
    """Other values in a JSON file, and what goes with them."""

    def harm(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        for each in more:
            each(folder)

    return harm


def weights(header: bytes, length: int | None = None) -> Harm:
    return put("model.safetensors", (len(header) if length is None else length).to_bytes(8, "little") + header)


CONFIG, FACTS, TOKENS = "config.json", "trainformer.json", "tokenizer_config.json"
OF_MODEL = {"auto_map": {"AutoConfig": "evil.Mine", "AutoModel": "evil.Mine"}}
OF_TOKENS = {"auto_map": {"AutoTokenizer": ["evil.Mine", "evil.Mine"]}}
FAR = b'{"x":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
HARMS: dict[str, tuple[Harm, str]] = {
    "pickled weights": (put("pytorch_model.bin", PICKLE), r"pytorch_model\.bin: it is a pickle"),
    "a pickle called weights": (put("model.safetensors", PICKLE), r"model\.safetensors: it holds no weights"),
    "a pickle called reference": (put("reference.safetensors", PICKLE), r"reference\.safetensors: it holds no weights"),
    "a pickle further in": (put("sub/optimizer.pt", PICKLE), r"optimizer\.pt: it is a pickle"),
    "a pickle as facts": (put(FACTS, PICKLE), "it cannot be read: UnicodeDecodeError"),
    "code of the model": (say(CONFIG, put("evil.py", CODE), **OF_MODEL), "its auto_map names code|it is code"),
    "code of a model nobody knows": (say(CONFIG, model_type="evil", **OF_MODEL), r"config\.json: its auto_map names code"),
    "code of the tokenizer": (say(TOKENS, **OF_TOKENS), r"tokenizer_config\.json: its auto_map names code"),
    "code as a method": (say(FACTS, put("evil.py", CODE), methods={"evil": {}}), r"evil\.py: it is code"),
    "code as a task": (say(FACTS, put("evil/task.py", CODE), task={"name": "evil.task"}), r"task\.py: it is code"),
    "a library": (put("libevil.so", b"\x7fELF"), r"libevil\.so: it is code"),
    "a module that is no task": (say(FACTS, task={"name": "os.path"}), r"no task 'os\.path'"),
    "a path as a kind": (say(FACTS, model={"kind": "../evil"}), "it cannot be read: TypeError"),
    "facts that are a list": (put(FACTS, b"[]"), "it cannot be read: TypeError"),
    "facts without end": (put(FACTS, DEEP), "it cannot be read: RecursionError"),
    "a description without end": (put(CONFIG, DEEP), r"config\.json: it cannot be read: RecursionError"),
    "a tokenizer without end": (put("tokenizer.json", DEEP), "it cannot be read: RecursionError"),
    "a header of an exabyte": (weights(b"{}", 2**60), r"model\.safetensors: it holds no weights"),
    "weights of four terabytes": (weights(FAR), r"model\.safetensors: it holds no weights"),
    "no weights": (put("model.safetensors", b""), r"model\.safetensors: it holds no weights"),
    "a model of a thousand million columns": (say(CONFIG, hidden_size=10**9), "cannot be read|describes a model of more"),
    "a model of two million layers": (say(CONFIG, num_hidden_layers=2_000_000), "it describes a model of more than"),
    "a vocabulary of ten million": (say(CONFIG, vocab_size=10**7), "it describes a model of more than"),
    "ten thousand million places": (say(CONFIG, max_position_embeddings=10**10), "cannot be read|describes a model of more"),
    "a head of nothing": (say(CONFIG, num_attention_heads=0), "it cannot be read: ZeroDivisionError"),
}  # fmt: skip


def _folder(name: str, folder: Path) -> None:
    listed = json.loads((folder / MANIFEST).read_text())
    write_json(folder / MANIFEST, {**listed, name: "0" * 64})


LISTED: dict[str, tuple[Harm, str]] = {
    "a name outside": (lambda f: _folder("../elsewhere", f), "lies outside the folder"),
    "a name with an end in it": (lambda f: _folder("a\0b", f), "lists it, but it is gone"),
    "a name without end": (lambda f: _folder("a" * 5000, f), "lists it, but it is gone"),
    "a manifest without end": (put(MANIFEST, DEEP), "it is not JSON"),
    "a pipe": (lambda f: ((f / CONFIG).unlink(), os.mkfifo(f / CONFIG))[0], r"config\.json.* it is gone"),
    "a changed byte": (put(CONFIG, b"{}"), r"config\.json.*SHA-256 differs"),
    "a link": (lambda f: ((f / CONFIG).unlink(), (f / CONFIG).symlink_to("/etc/hostname"))[0], "link"),
}


def test_there_are_twenty_five_with_a_manifest_in_order() -> None:
    assert len(HARMS) == 25


@pytest.mark.parametrize("name", [*HARMS, *LISTED])
def test_it_is_refused(name: str, make: Any, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what opens it and by the command line, which write nothing; in seconds, whatever a size in it says."""
    folder, hurt = make(), tmp_path / "hurt"
    monkeypatch.setenv("HURT", str(hurt))
    harm, words = {**HARMS, **LISTED}[name]
    harm(folder)
    if name in HARMS:
        write_manifest(folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    before, began = sorted(tmp_path.rglob("*")), time.monotonic()
    with pytest.raises(UserError, match=words):
        Bundle.open(folder)
    done = cli("predict", folder, "w1 w2", "--out", tmp_path / "answers.jsonl")
    assert done.code == 2 and "Traceback" not in done.err and done.out == ""
    assert sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts) == before and not hurt.exists()
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "name", [n for n in (*HARMS, *LISTED) if not n.startswith(("a model of", "a vocabulary", "ten", "a head"))]
)
def test_a_service_does_not_take_it(name: str, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs no process of the model to be seen; the others end that process as it starts."""
    folder, hurt = make(), tmp_path / "hurt"
    monkeypatch.setenv("HURT", str(hurt))
    harm, _ = {**HARMS, **LISTED}[name]
    harm(folder)
    if name in HARMS:
        write_manifest(folder)
    lane: Any = None
    with pytest.raises(UserError):
        opened(*adopt(folder, tmp_path / "state"), lane)
    assert not hurt.exists()


def test_what_code_a_checkpoint_names_is_left_behind(make: Any, encoder: Path, tmp_path: Path) -> None:
    """A checkpoint that the library knows by itself may name code; the bundle that is made of it does not, and opens."""
    import shutil

    from trainformer.core import registry
    from trainformer.core.roles import Backbone
    from trainformer.data.tokens import HubTokens

    named = Path(shutil.copytree(encoder, tmp_path / "named"))
    say(CONFIG, **OF_MODEL)(named)
    say(TOKENS, **OF_TOKENS)(named)
    bundle = Bundle.open(make())
    model, backbone, _ = registry.build(Backbone, "pretrained", {"name": str(named)}).load(bundle.task)
    (tmp_path / "out").mkdir()
    backbone.save(model, tmp_path / "out", bundle.task)
    HubTokens.load(str(named)).save(tmp_path / "out")
    for name in (CONFIG, TOKENS):
        assert "auto_map" not in json.loads((tmp_path / "out" / name).read_text())
