"""What a run began with, in RUN/begun.json: it goes on exactly on the same machine, versions, threads, numbers and rows."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from trainformer.core import changes
from trainformer.core.changes import flat
from trainformer.core.config import Config, TrainSettings
from trainformer.core.errors import UserError
from trainformer.core.files import write_json

FILE = "begun.json"


def facts(engine: Any, files: dict[str, dict[str, str]]) -> dict[str, Any]:
    """What the bits of a run depend on besides its settings; `files` are the names and SHA-256 of the splits' sources."""
    gpu = f" ({torch.cuda.get_device_name(engine.device)})" if engine.device.type == "cuda" else ""
    return {
        "machine": {"processor": _processor(), "system": platform.platform(), "device": f"{engine.device.type}{gpu}"},
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("trainformer", "torch", "transformers")}},
        "threads": torch.get_num_threads(),
        "kernels": engine.native,
        "chosen": {"precision": "bfloat16" if engine.half else "float32", "micro_tokens": engine.plan.micro_tokens},
        "files": files,
    }


def read(folder: Path) -> dict[str, Any]:
    """What was recorded; nothing if no run began there."""
    path = folder / FILE
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def write(folder: Path, found: dict[str, Any]) -> None:
    """Records it, once."""
    if not (folder / FILE).exists():
        write_json(folder / FILE, found)


def kept(train: TrainSettings, folder: Path) -> TrainSettings:
    """The settings with what a run that goes on chose when it began: numbers and micro-batches, which it measured."""
    return train.model_copy(update=read(folder).get("chosen", {}))


def differences(folder: Path, now: dict[str, Any]) -> list[str]:
    """What to say of a run that goes on elsewhere than it began."""
    before = read(folder)
    if not before:
        return []
    one, other = flat({k: before[k] for k in before if k != "files"}), flat({k: now[k] for k in now if k != "files"})
    changed = [f"{name} was {one.get(name)}, is {other.get(name)}" for name in other if one.get(name) != other.get(name)]
    return [f"going on, but not exactly: {'; '.join(changed)}"] if changed else []


def refuse_change(folder: Path, config: Config, files: dict[str, dict[str, str]]) -> None:
    """Raises UserError if the run was begun with other settings or other rows than those it shall go on with."""
    changes.refuse_change(folder / "config.yaml", config)
    for split, source in read(folder).get("files", {}).items():
        if source["sha256"] != files.get(split, {}).get("sha256"):
            what = f"the {split} rows are not those that the run began with (SHA-256 differs)."
            raise UserError(what, where=source["name"], fix="Put the old file back to go on, or start another run.")


def _processor() -> str:
    """The name of the processor as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
