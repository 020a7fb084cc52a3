"""What a bundle says of itself, in trainformer.json: its folder, its format, its task, its adapters. No PyTorch is needed."""

import json
from pathlib import Path
from typing import Any

from trainformer.core import registry
from trainformer.core.errors import UserError, nearest
from trainformer.core.roles import Task

FACTS, ADAPTERS = "trainformer.json", "adapters"


def bundle_folder(folder: str | Path) -> Path:
    """The folder, if a bundle may be in it. Raises UserError for one that is not there, and one without facts."""
    path = Path(folder)
    if not path.is_dir():
        raise UserError("no such folder.", where=str(path))
    if not (path / FACTS).is_file():
        inner = path / "bundle" / FACTS
        fix = (
            f"Did you mean '{inner.parent}'?" if inner.is_file() else "A bundle is what `trainformer train` writes to RUN/bundle."
        )
        raise UserError(f"this folder is no bundle: it has no {FACTS}.", where=str(path), fix=fix)
    return path


def facts_in(folder: Path) -> dict[str, Any]:
    """The facts. Raises UserError for a format of a later version; others, as they come, for what are no facts."""
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    if facts["format"] != 1:
        raise UserError(f"format {facts['format']} is of a later version.", where=str(folder), fix="pip install -U trainformer")
    kind = facts["model"]["kind"]
    if not all(part.isidentifier() for part in kind.split(".")):
        raise TypeError(f"{kind!r:.60} is no kind of model")
    return facts


def open_task(facts: dict[str, Any]) -> Task:
    """The task from facts."""
    return registry.build(Task, facts["task"]["name"], {k: v for k, v in facts["task"].items() if k != "name"})


def names(bundle: Path) -> list[str]:
    """The adapters of a bundle."""
    return sorted(p.name for p in (bundle / ADAPTERS).glob("*") if (p / FACTS).is_file())


def facts_of(bundle: Path, name: str | None) -> tuple[str, dict[str, Any]]:
    """Name and facts of an adapter; without a name of the only one. Raises UserError for one that is not there."""
    there = names(bundle)
    if not there:
        what = "it has no adapter: its run trained more than a fifth of the model, or nothing in a frozen one."
        raise UserError(what, where=str(bundle), fix="Train with lora, adapter, prefix or one of their kind.")
    if name is None and len(there) > 1:
        raise UserError("it has several adapters.", where=str(bundle), fix=f"Choose one with --adapter: {', '.join(there)}.")
    chosen = name or there[0]
    if chosen not in there:
        raise UserError(f"no adapter '{chosen}' in it.", where=str(bundle), fix=nearest(chosen, there))
    return chosen, json.loads((bundle / ADAPTERS / chosen / FACTS).read_text(encoding="utf-8"))
