"""The whole state of a run on disk: safetensors and JSON, hashed, written beside and renamed, two kept."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainformer.core.errors import UserError
from trainformer.core.files import check_manifest, remove_folder, sweep, write_folder, write_json
from trainformer.core.tensors import write_tensors

KEPT = 2


@dataclass
class State:
    """Everything that an exact resume needs."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Weights under "model.", optimiser under "optimizer.", methods under "method.NAME."."""
    plain: dict[str, Any] = field(default_factory=dict)
    """Step, best score, history, callbacks."""
    path: Path | None = None
    """Where it was read from."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below a prefix, without it."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def _named(folder: Path, kind: str) -> list[Path]:
    """Folders of a kind, oldest first."""
    return sorted(p for p in folder.glob(f"{kind}-*") if p.is_dir())


def save(folder: Path, step: int, state: State, before: Sequence[Path] = ()) -> Path:
    """Writes `step-N` whole, then removes all but it, the last of those `before` it that are whole, and what both need.

    A second checkpoint of a step (before and after its evaluation) has a name of its own: none is ever replaced.
    """
    sweep(folder)
    twins = [p for p in _named(folder, "step") if _number(p) == step]
    again = f".{1 + int(twins[-1].suffix[1:] or 0):04d}" if twins else ""
    path = folder / f"step-{step:08d}{again}"

    def fill(beside: Path) -> None:
        write_tensors(beside / "state.safetensors", state.tensors)
        write_json(beside / "state.json", state.plain)

    write_folder(path, fill)
    kept = [*before, path][-KEPT:]
    needed = {json.loads((p / "state.json").read_text(encoding="utf-8"))["best_step"] for p in kept}
    unneeded = [b for b in _named(folder, "best") if _number(b) not in needed]
    for old in [*(p for p in _named(folder, "step") if p not in kept), *unneeded]:
        remove_folder(old)
    return path


def save_best(folder: Path, step: int, weights: dict[str, Tensor]) -> None:
    """The weights to ship so far, as `best-N`; the one before stays until a checkpoint names this one."""
    write_folder(folder / f"best-{step:08d}", lambda beside: write_tensors(beside / "model.safetensors", weights))


def load_best(folder: Path, step: int) -> dict[str, Tensor]:
    """The weights that scored best. Raises UserError if a byte of them has changed."""
    path = folder / f"best-{step:08d}"
    check_manifest(path)
    return load_file(path / "model.safetensors")


def latest(folder: Path) -> tuple[State, list[str]] | None:
    """The newest whole checkpoint, and what to say of newer ones that are not; None if there is none at all.

    Raises UserError if there are checkpoints and none is whole.
    """
    said: list[str] = []
    for path in reversed(_named(folder, "step")):
        try:
            check_manifest(path)
            plain = json.loads((path / "state.json").read_text(encoding="utf-8"))
            if plain["best_step"] is not None:
                check_manifest(folder / f"best-{plain['best_step']:08d}")
            return State(load_file(path / "state.safetensors"), plain, path), said
        except (UserError, OSError) as error:
            said.append(f"checkpoint {path.name} is damaged and was passed over: {error}")
    if said:
        raise UserError(f"no checkpoint is whole. {' '.join(said)}", where=str(folder), fix="Start anew with another --out.")
    return None


def _number(path: Path) -> int:
    """The step in a name: 12 of `step-00000012.0001`."""
    return int(path.name.rpartition("-")[2].partition(".")[0])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's averages as flat tensors: "3.exp_avg"."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, entries in state.items() for name, value in entries.items() if value is not None}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
