"""Writes a bundle: a folder that the transformers library can open too, with no pickle in it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainformer.bundle import reference
from trainformer.bundle.adapters import Kept, write_adapter
from trainformer.bundle.facts import FACTS
from trainformer.bundle.reference import Reference
from trainformer.core.files import write_folder, write_json
from trainformer.core.roles import Backbone, Decision, Model, Task
from trainformer.data.columns import Columns
from trainformer.data.tokens import HubTokens


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle."""

    task: Task
    backbone: Backbone
    model: Model
    tokens: HubTokens
    decision: Decision
    columns: Columns
    max_tokens: int
    facts: dict[str, Any]
    """Data fingerprint, versions, scores."""
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Methods that stay, with their settings."""
    pages: dict[str, str] = field(default_factory=dict)
    """Model card and report, by file name."""
    adapter: Kept | None = None
    """What was trained on a frozen base."""
    reference: Reference | None = None
    """What the training data looked like, for who watches a service."""


def _no_places(backbone: Backbone) -> dict[str, None]:
    """What of the settings is a place on the machine that trained."""
    return {name: None for name in ("name", "tokenizer") if name in type(backbone).model_fields}


def write(folder: Path, contents: Contents) -> None:
    """The folder appears whole or not at all; its manifest holds the SHA-256 of every file."""

    def fill(beside: Path) -> None:
        contents.backbone.save(contents.model, beside, contents.task)
        contents.tokens.save(beside)
        facts = {
            "format": 1,
            "task": {"name": type(contents.task).key, **contents.task.settings()},
            "model": {"kind": type(contents.backbone).key, **contents.backbone.settings(), **_no_places(contents.backbone)},
            "methods": contents.methods,
            "decision": asdict(contents.decision),
            "columns": asdict(contents.columns),
            "max_tokens": contents.max_tokens,
            "opens_in_transformers": contents.backbone.opens_in_library(contents.model),
            **contents.facts,
        }
        write_json(beside / FACTS, facts)
        if contents.adapter is not None:
            adapter, methods, base = contents.adapter
            origin = {"name": base, "sha256": adapter.base_sha256}
            write_adapter(beside, "-".join(methods), adapter, {**facts, "methods": methods, "base": origin})
        if contents.reference is not None:
            reference.write(beside, contents.reference)
        for name, text in contents.pages.items():
            (beside / name).write_text(text, encoding="utf-8")

    write_folder(folder, fill)
