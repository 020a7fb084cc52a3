"""Adapters in the file format of the `peft` library: written from a bundle, and read to start from."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainformer.bundle import adapters
from trainformer.bundle.facts import facts_of
from trainformer.core.errors import UserError
from trainformer.core.files import check_manifest, refuse_existing, write_folder, write_json
from trainformer.core.roles import Backbone, Model, Task
from trainformer.models.encoder import Encoder
from trainformer.models.heads import SequenceHead
from trainformer.models.weights import extra_layer, library_names, listed, maps_to_library
from trainformer.nn import peft_layers

CONFIG, WEIGHTS, ORIGIN, PREFIX = "adapter_config.json", "adapter_model.safetensors", "trainformer.json", "base_model.model."
KINDS = ("lora", "adalora", "ia3")
WHY_NOT = {"prefix": ": peft moves the places of the words by the prefix, which changes what encoders with learned places say"}


def export(bundle: Path, out: Path, adapter: str | None, base: str | None) -> list[str]:
    """Writes adapter_config.json and adapter_model.safetensors, the head with them; what to say of it.

    Where the library's model needs one more layer for our pooling, that model is written too, to `base/`.
    """
    refuse_existing(out)
    check_manifest(bundle)
    _, facts = facts_of(bundle, adapter)
    kinds = [name for name in facts["methods"] if name in KINDS]
    others = [
        name for name in facts["methods"] if name not in KINDS and name in (*WHY_NOT, "prompt", "adapter", "bitfit", "freeze")
    ]
    if others or not kinds:
        said = "; ".join(f"'{n}' has no peft file that says the same{WHY_NOT.get(n, '')}" for n in others)
        raise UserError(said or "its methods are none that peft has.", where=str(bundle), fix=f"There is: {', '.join(KINDS)}.")
    task, model, backbone, facts = adapters.rebuilt(bundle, adapter, base)
    head, body = model.head, model.body
    assert isinstance(head, SequenceHead) and isinstance(body, Encoder)
    config = body.encoder.config
    if not maps_to_library(config, head.pooling):
        raise UserError(f"the library has no head of '{config.model_type}' with {head.pooling} pooling.", where=str(bundle))
    own_base = extra_layer(config, head.pooling)
    name = str(backbone.settings()["name"])

    def fill(beside: Path) -> None:
        tensors = {k: t for k, t in _peft_names(model).items() if t.requires_grad}
        save_file({k: t.detach().contiguous() for k, t in tensors.items()}, beside / WEIGHTS, metadata={"format": "pt"})
        write_json(beside / CONFIG, _config(model, "base" if own_base else name))
        write_json(beside / ORIGIN, facts["base"])
        if own_base:
            _save_base(model, backbone, task, beside / "base")

    write_folder(out, fill)
    shown = f"{out / 'base'}, which averages the tokens in one more layer" if own_base else name
    return [f"peft adapter: {out}", f"its base: {shown}"]


def _peft_names(model: Model) -> dict[str, Tensor]:
    """Each parameter by its name in a peft file."""
    names, found = library_names(model), dict(model.named_parameters())
    short = {ours: names[ours].replace("magnitude_vector.default.weight", "magnitude_vector") for ours in found}
    return {PREFIX + short[ours].replace(".default", ""): p for ours, p in found.items()}


def _config(model: Model, base: str) -> dict[str, Any]:
    body, head = model.body, model.head
    assert isinstance(body, Encoder) and isinstance(head, SequenceHead)
    inside = {n.removeprefix("encoder.") for n, _ in peft_layers.wrapped(body)}
    targets = sorted(f"{body.encoder.base_model_prefix}.{n}" for n in inside)
    values = peft_layers.config_of(body)
    if values.get("feedforward_modules"):
        chosen = peft_layers.fitting(values["feedforward_modules"], inside)
        values["feedforward_modules"] = sorted(f"{body.encoder.base_model_prefix}.{n}" for n in chosen)
    weighty = [p for p, s in zip(head.paths, head.steps, strict=True) if any(True for _ in s.parameters())]
    words = {"base_model_name_or_path": base, "task_type": "SEQ_CLS", "inference_mode": True}
    return values | words | {"target_modules": targets, "modules_to_save": weighty}


def _save_base(model: Model, backbone: Backbone, task: Task, folder: Path) -> None:
    """The base with our head as the library opens it, without the change."""
    folder.mkdir()
    peft_layers.unwrap(model.body)
    with torch.no_grad():
        backbone.save(model, folder, task)


def start(model: Model, folder: Path, where: str) -> str:
    """Puts the tensors of a peft folder into a model that has such layers already; says whether the head was taken.

    The head is taken if all its weights are there and fit. Raises UserError for tensors that have no place in the model
    or are missing, and for a base whose hash is known and differs.
    """
    given = load_file(folder / WEIGHTS)
    body = model.body
    assert isinstance(body, Encoder)
    prefix = f"{PREFIX}{body.encoder.base_model_prefix}."
    bare = not any(k.startswith(prefix) for k in given)
    wanted = {k: p for k, p in _peft_names(model).items() if p.requires_grad}
    head = {k: p for k, p in wanted.items() if any(p is q for q in model.head.parameters())}
    inside = {(k.replace(prefix, PREFIX, 1) if bare else k): p for k, p in wanted.items() if k not in head}
    strange = sorted((set(inside) - set(given)) | (set(given) - set(inside) - set(head)))
    other = [k for k, p in inside.items() if k in given and given[k].shape != p.shape]
    if strange or other:
        what = (
            f"it is an adapter for another base: {listed(strange or other)} {'has no place' if strange else 'has another shape'}."
        )
        raise UserError(what, where=where, fix="Name the model that it was trained on with --model.")
    if (folder / ORIGIN).is_file():
        origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
        adapters.require_base(model, (), origin["sha256"], where)
    took = all(k in given and given[k].shape == p.shape for k, p in head.items())
    with torch.no_grad():
        for key, parameter in (inside | head if took else inside).items():
            parameter.copy_(given[key])
    return "taken" if took else "new"


def settings_of(folder: Path, where: str) -> dict[str, Any]:
    """The configuration of a peft folder. Raises UserError for a folder that is none, or whose weights are a pickle."""
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        what = f"this folder is no peft adapter: it has no {CONFIG} with {WEIGHTS}."
        raise UserError(what, where=where, fix="`trainformer export BUNDLE --to peft --out DIR` writes one.")
    values: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return values


def targets_in(folder: Path, model: Model) -> list[str]:
    """Names of the linear layers of a body that an adapter's tensors belong to."""
    names = {
        k.removeprefix(PREFIX).rpartition(".lora_")[0].split(".", 1)[-1] for k in load_file(folder / WEIGHTS) if ".lora_" in k
    }
    linear = [n for n, m in model.body.named_modules() if isinstance(m, nn.Linear)]
    return [n for n in linear if any(n == f"encoder.{x}" or n.endswith(f".{x}") for x in names)]
