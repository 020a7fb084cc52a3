"""Methods that cannot do what they are told to say so before any training, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

TOGETHER = "the methods '{}' and '{}' cannot be used together: {}"
WRONG: dict[str, tuple[list[str], str, str]] = {
    "unknown target": (["lora"], "lora.targets=[qery]", "lora.targets: nothing in the model is called 'qery'. Did you mean "
                       "'query'? The model has: dense, key, query, value."),
    "no layer": (["adalora"], "adalora.targets=[kye]", "adalora.targets: nothing in the model is called 'kye'. "
                 "Did you mean 'key'? The model has: dense, key, query, value."),
    "unknown bias": (["bitfit"], "bitfit.targets=[qeury]", "bitfit.targets: nothing in the model is called 'qeury'. Did you"),
    "no time to cut": (["adalora"], "adalora.end=0.1", "adalora.end: there is no time to cut ranks."),
    "rank beyond the layer": (["lora"], "lora.rank=33", "lora.rank: rank 33 is more than the layer "),
    "adalora beyond the layer": (["adalora"], "adalora.rank=22", "adalora.rank: rank 33 is more than the layer "),
    "long prefix": (["prefix"], "prefix.length=65", "prefix.length: 65 is more than the model reads tokens: 64."),
    "long prompt": (["prompt"], "prompt.length=60", "method: only 4 of the model's tokens are left for a text."),
    "too many layers": (["freeze"], "freeze.layers=3", "freeze.layers: 3 layers are more than the model has. At most 2."),
    "unknown name": (["freeze"], "freeze.names=[intermediat]", "freeze.names: nothing in the model is called 'intermediat'."),
    "clash": (["freeze", "prefix"], "", TOGETHER.format("freeze", "prefix", "what it adds works inside the layers")),
    "one matrix twice": (["lora", "ia3"], "", TOGETHER.format("lora", "ia3", "both change the same matrices")),
    "wide bottleneck": (["adapter"], "adapter.width=33", "adapter.width: a bottleneck of 33 is wider than the model: 32."),
    "no adapter to start from": (["lora"], "lora.start=nowhere", "lora.start: this folder is no peft adapter"),
    "unknown scaled layer": (["ia3"], "ia3.targets=[keys]", "ia3.targets: nothing in the model is called 'keys'. Did you mean"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_it_is_refused_before_training(case: str, cli: Cli, write: Cli, rows: Cli, tiny_model: Path, tmp_path: Path) -> None:
    methods, setting, message = WRONG[case]
    if {"lora", "adalora", "ia3"} & set(methods):
        pytest.importorskip("peft")
    words = [w for m in methods for w in ("--method", m)] + [w for s in [setting] if s for w in ("--set", f"method.{s}")]
    done = cli("train", "--data", write("rows.jsonl", rows(40)), "--model", tiny_model, "--out", tmp_path / "out", *words)
    assert done.code == 2 and message in done.err.splitlines()[-1], done.err
    assert "Traceback" not in done.err and not (tmp_path / "out").exists()


def test_a_peft_folder_of_another_kind_is_refused(cli: Cli, write: Cli, rows: Cli, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "PREFIX_TUNING"}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    done = cli("train", "--data", write("rows.jsonl", rows(40)), "--model", tiny_model, "--out", tmp_path / "out",
               "--method", "lora", "--set", f"method.lora.start={folder}")  # fmt: skip
    assert done.code == 2 and "lora.start: an adapter of kind PREFIX_TUNING is not read." in done.err
