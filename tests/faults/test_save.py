"""A save that fails or ends at any operation, and bytes that change: the loader gives the old one or the new one, whole."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainformer.core.errors import UserError
from trainformer.core.tensors import write_tensors
from trainformer.engine import checkpoint

Disk = Callable[..., Any]
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES, "crash": None}


def state(step: int) -> checkpoint.State:
    """A state of which each part tells its step."""
    tensors = {"model.w": torch.full((10, 20), float(step)), "optimizer.0.step": torch.tensor(float(step))}
    return checkpoint.State(tensors, {"best_step": step, "step": step, "callbacks": {}})


def evaluated(folder: Path, step: int, before: list[Path]) -> list[Path]:
    """What an evaluation saves: best weights, then the state that names them."""
    checkpoint.save_best(folder, step, {"w": torch.full((10, 20), float(step))})
    return [*before, checkpoint.save(folder, step, state(step), before)]


def whole(folder: Path) -> int:
    """The step of the newest checkpoint, all parts of which are of that step."""
    found = checkpoint.latest(folder)
    assert found is not None
    step = int(found[0].plain["step"])
    assert found[0].tensors.keys() == state(step).tensors.keys()
    assert all(found[0].tensors[name].equal(value) for name, value in state(step).tensors.items())
    assert checkpoint.load_best(folder, found[0].plain["best_step"])["w"].unique().tolist() == [float(step)]
    return step


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_every_operation_of_a_save_may_fail(disk: Disk, tmp_path: Path, error: int | None) -> None:
    old = evaluated(tmp_path / "old", 8, evaluated(tmp_path / "old", 4, []))
    shutil.copytree(tmp_path / "old", tmp_path / "counted")
    moved = lambda folder: [folder / p.name for p in old]  # noqa: E731
    with disk() as shim:
        evaluated(tmp_path / "counted", 12, moved(tmp_path / "counted"))
    assert set(shim.names) == {"mkdir", "open", "write", "fsync", "chmod", "rename", "replace", "unlink", "rmdir"}
    assert whole(tmp_path / "counted") == 12
    names = sorted(p.name for p in (tmp_path / "counted").iterdir())
    assert names == ["best-00000008", "best-00000012", "step-00000008", "step-00000012"]
    given = []
    for at in range(1, len(shim.names) + 1):
        folder = Path(shutil.copytree(tmp_path / "old", tmp_path / f"at-{at}"))
        failed = ""
        with disk(at, error):
            try:
                evaluated(folder, 12, moved(folder))
            except UserError as refused:
                failed = str(refused)
            except BaseException as ended:
                assert type(ended).__name__ == "Crash" and error is None
                failed = "crash"
        given.append(whole(folder))
        assert failed or given[-1] == 12, "what failed is said, or did no harm"
        again = [folder / f"step-{given[-1]:08d}"]
        with disk():
            evaluated(folder, 16, again)
        left = sorted(p.name for p in folder.iterdir())
        assert left == [f"{kind}-{step:08d}" for kind in ("best", "step") for step in (given[-1], 16)]
        shutil.rmtree(folder)
    assert set(given) == {8, 12} and len(given) > 50
    if error is None:
        assert given == sorted(given), "first the old one, from one operation on the new one"


def damaged(files: list[Path], how: str) -> list[tuple[Path, bytes]]:
    """Each file with what it becomes when a bit of a byte flips (16 places) or it is cut (8 places)."""
    found = []
    for path in files:
        content = path.read_bytes()
        for part in range(16 if how == "bit" else 8):
            at = part * (len(content) - 1) // 15
            flipped = bytearray(content)
            flipped[at] ^= 1 << part % 8
            found.append((path, bytes(flipped) if how == "bit" else content[: part * len(content) // 8]))
    return found


@pytest.mark.parametrize("how", ["bit", "cut"])
def test_a_changed_byte_is_found_and_the_checkpoint_before_is_used(tmp_path: Path, how: str) -> None:
    evaluated(tmp_path, 8, evaluated(tmp_path, 4, []))
    files = [p for name in ("step-00000008", "best-00000008") for p in (tmp_path / name).iterdir()]
    assert len(files) == 5
    for path, content in damaged(files, how):
        before = path.read_bytes()
        path.write_bytes(content)
        found = checkpoint.latest(tmp_path)
        assert found is not None and found[0].plain["step"] == 4, path
        assert len(found[1]) == 1 and found[1][0].startswith("checkpoint step-00000008 is damaged and was passed over: ")
        assert str(path) in found[1][0] or str(path.parent) in found[1][0], "the file is named"
        path.write_bytes(before)
    assert whole(tmp_path) == 8


def test_what_is_written_is_what_the_library_reads(tmp_path: Path) -> None:
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
    tensors = {f"é{i}": (torch.randn(3, 5) * 9).to(kind) for i, kind in enumerate(kinds)}
    tensors |= {"none": torch.empty(0, 4), "one": torch.tensor(7), "turned": torch.arange(12.0).view(3, 4).T}
    write_tensors(tmp_path / "a.safetensors", tensors)
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    assert all(found[k].dtype == v.dtype and found[k].equal(v) for k, v in tensors.items())
