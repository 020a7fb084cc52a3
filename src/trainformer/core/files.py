"""Files that are either whole or not there: atomic writing, hashing, and room on the disk."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainformer.core.errors import UserError

MANIFEST = "manifest.json"
LEFT = re.compile(r"\..+\.([a-z0-9_]{8}(\.old)?|gone|\d+)")
"""Names of what is not yet, or no longer, there: `.config.yaml.PID`, `.bundle.RANDOM`, `.bundle.RANDOM.old`, `.step-1.gone`."""


def user_cache() -> Path:
    """The folder of this user's caches: $TRAINFORMER_CACHE, else one in $XDG_CACHE_HOME or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TRAINFORMER_CACHE", f"{home}/trainformer")).expanduser()


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits; constant memory."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest(value: Any) -> str:
    """A short name for a JSON value: equal values give equal names, on every machine."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def write_bytes(path: Path, pieces: Iterable[Any]) -> None:
    """A file of pieces of memory, one behind the other, on the disk when this ends. Raises OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while len(rest):
                rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Writes beside, flushes to the disk, renames: a reader sees the old file or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_bytes(beside, [text.encode()])
        beside.replace(path)
        sync(path.parent)
    except OSError as error:
        with suppress(OSError):  # the error that is told is the first one
            beside.unlink(missing_ok=True)
        raise disk_error(error, path) from error


def write_json(path: Path, value: Any) -> None:
    """Pretty JSON, atomically. NaN is refused: it is not JSON."""
    write_text(path, _pretty(value))


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_lines(path: Path, values: Iterable[Any]) -> int:
    """Writes JSON lines one by one, in constant memory, to a file that appears when it is whole; how many there are."""
    beside, count = path.with_name(f".{path.name}.part"), 0
    try:
        with beside.open("w", encoding="utf-8") as f:
            for value in values:
                f.write(json.dumps(value, ensure_ascii=False) + "\n")
                count += 1
        beside.rename(path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        beside.unlink(missing_ok=True)
    return count


def refuse_existing(out: Path) -> None:
    """Nothing is written over."""
    if out.exists():
        raise UserError("it exists; nothing is written over.", where=f"--out {out}", fix="Choose another name.")


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Lets `fill` write into a folder beside, adds a manifest of hashes, and renames it to `path`.

    An older folder at `path` is replaced only after the new one is whole and on the disk.
    """
    beside, old = path, path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        old = beside.with_name(beside.name + ".old")
        fill(beside)
        write_manifest(beside)
        beside.chmod(0o755)
        sync(beside)
        if path.exists():
            path.rename(old)
        beside.rename(path)
        sync(path.parent)
    except Exception as error:  # libraries in Rust have errors of their own for a full disk
        raise disk_error(error, path) from error
    finally:
        if beside != path:
            shutil.rmtree(beside, ignore_errors=True)
            if old.exists() and not path.exists():
                old.rename(path)
            shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Takes a folder away: its name first, so that what is half gone has no name that a reader knows."""
    hidden = path.with_name(f".{path.name}.gone")
    try:
        path.rename(hidden)
        shutil.rmtree(hidden)
    except OSError as error:
        raise disk_error(error, path) from error


def sweep(folder: Path) -> None:
    """Takes away what writes that were killed have left in a folder: hidden files and folders of the names given here."""
    for left in [p for p in folder.glob(".*") if LEFT.fullmatch(p.name)]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def write_manifest(folder: Path) -> None:
    """`manifest.json`: the SHA-256 of every file of the folder, by its name; all are on the disk before it names them."""
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    for name in names:
        sync(folder / name)
    write_json(folder / MANIFEST, {name: sha256(folder / name) for name in names})


def check_manifest(folder: Path) -> None:
    """Refuses a folder of which a byte has changed since it was written, naming the file."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"no {MANIFEST} in it, so nothing vouches for its files.", where=str(folder))
    try:
        text = path.read_text(encoding="utf-8")
        listed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError("it is not JSON: the manifest was changed or cut.", where=str(path), fix=RESTORE) from error
    if not isinstance(listed, dict) or text != _pretty(listed):
        raise UserError("it is not as it was written: the manifest was changed.", where=str(path), fix=RESTORE)
    link = next((p for p in folder.rglob("*") if p.is_symlink()), None)
    if link is not None:
        what = "it is a symbolic link, which may lead out of the folder."
        raise UserError(what, where=str(link), fix=f"Copy what it leads to: cp -rL {folder.name} NEW")
    for name, expected in listed.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"it lists '{name:.80}', which lies outside the folder.", where=str(path), fix=RESTORE)
        if not _there(folder / name):
            raise UserError(f"{MANIFEST} lists it, but it is gone.", where=str(folder / name), fix=RESTORE)
        if sha256(folder / name) != expected:
            raise UserError(f"its bytes are not those of {MANIFEST} (SHA-256 differs).", where=str(folder / name), fix=RESTORE)
    extra = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - set(listed) - {MANIFEST}
    if extra:
        raise UserError(f"{MANIFEST} does not list it.", where=str(folder / min(extra)), fix="Remove it.")


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


RESTORE = "Copy the folder again from where it was made."


def require_room(folder: Path, needed_bytes: int) -> None:
    """Refuses work that the disk has no room for, before it starts."""
    at = next(p for p in [folder, *folder.absolute().parents] if p.exists())
    free = shutil.disk_usage(at).free
    if free < needed_bytes:
        raise UserError(
            f"no space: about {needed_bytes / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free.",
            where=str(folder),
            fix="Free some, or choose another disk for --out.",
        )


def disk_error(error: Exception, path: Path) -> Exception:
    """The user's words for an error of the disk, a UserError; others stay what they are."""
    words = {errno.ENOSPC: "no space left on the disk", errno.EDQUOT: "over the disk quota", errno.EROFS: "read-only"}
    words |= {errno.EACCES: "no permission to write", errno.ENOTDIR: "a part of the path is a file"}
    words |= {errno.EIO: "the disk reports an input/output error"}
    spelt = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else int(spelt[1]) if spelt else None
    if number not in words:
        return error
    return UserError(f"{words[number]}. Nothing half-written is left.", where=str(path), fix="Choose another --out.")


def total_bytes(paths: Iterable[Path]) -> int:
    """Bytes of all the files below the paths."""
    return sum(f.stat().st_size for p in paths for f in ([p] if p.is_file() else p.rglob("*")) if f.is_file())
