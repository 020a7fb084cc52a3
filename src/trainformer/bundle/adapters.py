"""Adapters: what a run trained on a frozen base, kept beside the folded weights; several of one base in one bundle."""

import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainformer.bundle.facts import ADAPTERS, FACTS, facts_of, names, open_task
from trainformer.core import registry
from trainformer.core.config import read_yaml
from trainformer.core.errors import UserError
from trainformer.core.files import MANIFEST, check_manifest, refuse_existing, write_folder, write_json
from trainformer.core.roles import Backbone, Method, Model, Task
from trainformer.nn.few_rows import FewRows
from trainformer.nn.surgery import ADDED, own_parameters

BASE, WEIGHTS, CONFIG = "base.safetensors", "weights.safetensors", "config.yaml"
MOST_SHARE = 0.2
"""Where more than this share of the weights was trained, a bundle keeps no adapter: it would be a second model."""


@dataclass(frozen=True)
class Adapter:
    """Trained tensors by our names, methods not yet folded, and the SHA-256 of all that stayed frozen."""

    tensors: dict[str, Tensor]
    base_sha256: str


Kept = tuple[Adapter, dict[str, dict[str, Any]], str]
"""An adapter, the methods that it needs with their settings, and the base's name."""


def taken(model: Model) -> Adapter | None:
    """The adapter of a model before its methods fold; None where too much was trained to call it one."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad or n.startswith(f"body.{ADDED}.")}
    much = sum(p.numel() for p in trained.values()) > MOST_SHARE * sum(p.numel() for p in model.parameters())
    if much or any(isinstance(m, FewRows) for m in model.modules()):  # a trained table of embeddings is much, too
        return None
    tensors = {n: p.detach().cpu().clone().contiguous() for n, p in trained.items()}
    return Adapter(tensors, frozen_sha256(model, tensors))


def frozen_sha256(model: Model, trained: Iterable[str]) -> str:
    """The SHA-256 of the body's own weights but for those of these names, whatever wraps them."""
    left = {plain(name) for name in trained}
    digest = hashlib.sha256()
    for name, value in sorted((plain(f"body.{n}"), p) for n, p in own_parameters(model.body).items()):
        if name not in left:
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def plain(name: str) -> str:
    """The name of a weight without what wraps its layer."""
    return name.replace(".base_layer.", ".")


def write_adapter(bundle: Path, name: str, adapter: Adapter, facts: dict[str, Any]) -> None:
    """Adds `adapters/NAME/` to a bundle that is being written; its configuration is the bundle's."""
    folder = bundle / ADAPTERS / name
    folder.mkdir(parents=True)
    save_file(adapter.tensors, folder / WEIGHTS)
    (folder / WEIGHTS).chmod((bundle / "config.json").stat().st_mode)
    shutil.copyfile(bundle / "config.json", folder / "config.json")
    write_json(folder / FACTS, facts)


def kept(adapter: Adapter | None, methods: Mapping[str, Method], backbone: Backbone) -> Kept | None:
    """What a bundle keeps of a run's adapter, if it has one."""
    return None if adapter is None else (adapter, structural(methods), base_name(backbone))


def stays(methods: Mapping[str, Method]) -> dict[str, dict[str, Any]]:
    """The methods that are part of what ships, with their settings."""
    return {n: m.settings() for n, m in methods.items() if m.stays}


def structural(methods: Mapping[str, Method]) -> dict[str, dict[str, Any]]:
    """The methods that change a model's structure or choose what is trained, with their settings."""
    return {n: m.settings() for n, m in methods.items() if type(m).extend is not Method.extend}


def base_name(backbone: Backbone) -> str:
    """What a bundle calls the model that its run began with: a hub name as it is, of a folder the last part alone."""
    name = str(backbone.settings()["name"])
    return Path(name).name if Path(name).exists() else name


def open_parts(facts: dict[str, Any]) -> tuple[Task, Backbone, dict[str, Method]]:
    """Task, backbone and methods from facts."""
    model = {k: v for k, v in facts["model"].items() if k != "kind"}
    methods = {n: registry.build(Method, n, s) for n, s in facts["methods"].items()}
    return open_task(facts), registry.build(Backbone, facts["model"]["kind"], model), methods


def open_adapter(bundle: Path, name: str) -> tuple[Task, Model, dict[str, Any]]:
    """The base of a bundle of several adapters with one of them folded in."""
    name, facts = facts_of(bundle, name)
    folder = bundle / ADAPTERS / name
    task, backbone, methods = open_parts(facts)
    weights = load_file(bundle / BASE) | load_file(folder / WEIGHTS)
    model = backbone.open(folder, task, list(methods.values()), weights)
    for method in methods.values():
        method.fold(model)
    return task, model, facts


def rebuilt(bundle: Path, name: str | None, base: str | None) -> tuple[Task, Model, Backbone, dict[str, Any]]:
    """The base, read from where it came from, with the methods in it and the adapter's weights, not folded.

    Raises UserError if the base's weights are not those that the adapter was trained on.
    """
    chosen, facts = facts_of(bundle, name)
    task, backbone, methods = open_parts(facts)
    torch.manual_seed(0)
    model, named = _base(task, backbone, base or _named_by_run(bundle, facts["base"]["name"]))
    weights = load_file(bundle / ADAPTERS / chosen / WEIGHTS)
    require_base(model, weights, facts["base"]["sha256"], f"{bundle.name}, adapter '{chosen}'")
    for method in methods.values():
        method.extend(model)
    model.load_state_dict(weights, strict=False)
    return task, model.eval(), named, facts


def _named_by_run(bundle: Path, name: str) -> str:
    """The folder of a base, as the run that a bundle still lies in names it; else the name that the bundle keeps."""
    config = bundle.parent / CONFIG
    told = str(read_yaml(config).get("model", {}).get("name")) if config.is_file() else name
    return told if Path(told).name == name and Path(told).is_dir() else name


def _base(task: Task, backbone: Backbone, name: str) -> tuple[Model, Backbone]:
    """The model that a run began with, by its name."""
    try:
        model, settled, _ = backbone.model_copy(update={"name": name}).load(task)
    except UserError as error:
        raise UserError(error.what, where=error.where, fix="Say where the base is: --base FOLDER or a hub name.") from error
    return model, settled


def require_base(model: Model, trained: Iterable[str], sha256: str, where: str) -> None:
    """Raises UserError if the weights of a model are not those that an adapter was trained on."""
    if frozen_sha256(model, trained) != sha256:
        what = "it was trained on another base: the SHA-256 of the base's weights differs."
        raise UserError(what, where=where, fix="Name the model that it was trained on.")


def named(words: Iterable[str]) -> dict[str, Path]:
    """Folders by name from words like `en=run1/bundle`. Raises UserError for others, and for a name that comes twice."""
    parts = [word.partition("=") for word in words]
    found = {name: Path(path) for name, equals, path in parts if equals and path and re.fullmatch(r"[\w-]+", name)}
    if len(found) != len(parts):
        what = "each is written NAME=BUNDLE, the name of letters, digits and dashes, and none twice."
        raise UserError(what, where="gather", fix="As: en=run1/bundle fr=run2/bundle")
    return found


def gather(bundles: Mapping[str, Path], base: str | None, out: Path) -> None:
    """Writes one bundle with the adapters of several, under new names; the first is what it answers with by default.

    Raises UserError if one has no adapter, was trained on another base, or reads texts with another tokenizer.
    """
    refuse_existing(out)
    first = next(iter(bundles.values()))
    for folder in bundles.values():
        check_manifest(folder)
        if (folder / "tokenizer.json").read_bytes() != (first / "tokenizer.json").read_bytes():
            raise UserError("its tokenizer is another.", where=str(folder), fix=f"All must be that of {first}.")
    body: dict[str, Tensor] = {}
    for folder in bundles.values():
        _, facts = facts_of(folder, None)
        task, backbone, _ = open_parts(facts)
        model, _ = _base(task, backbone, base or _named_by_run(folder, facts["base"]["name"]))
        trained = load_file(folder / ADAPTERS / names(folder)[0] / WEIGHTS)
        require_base(model, trained, facts["base"]["sha256"], str(folder))
        body = body or {f"body.{n}": v.contiguous() for n, v in model.body.state_dict().items()}

    def fill(beside: Path) -> None:
        shutil.copytree(first, beside, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, ADAPTERS))
        save_file(body, beside / BASE)
        for name, folder in bundles.items():
            shutil.copytree(folder / ADAPTERS / names(folder)[0], beside / ADAPTERS / name)

    write_folder(out, fill)
