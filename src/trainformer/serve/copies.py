"""Copies of bundles: what is served stays as it was, whatever happens to the folder that it came from."""

import hashlib
import shutil
import tempfile
from pathlib import Path

from trainformer.bundle.refusing import inspect
from trainformer.core.errors import UserError
from trainformer.core.files import MANIFEST, check_manifest


def adopt(source: Path, state: Path) -> tuple[str, Path]:
    """Id and folder of a copy of a bundle below `state`: its own files, since a link would change with the source.

    Raises UserError, and copies nothing, for a folder that is no bundle, has been changed, or holds what could do harm.
    """
    if not source.is_dir():
        raise UserError("no such folder.", where=str(source))
    links = [p for p in source.rglob("*") if p.is_symlink()]
    if links:
        raise UserError("it is a link; a bundle holds files alone.", where=str(links[0]), fix="Copy the file itself.")
    inspect(source)
    versions = state / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".", dir=versions))
    try:
        shutil.copytree(source, beside, dirs_exist_ok=True)
        inspect(beside)  # the source may have been replaced meanwhile: what counts is what was copied
        id_ = hashlib.sha256((beside / MANIFEST).read_bytes()).hexdigest()[:12]
        target = versions / id_
        if target.exists():
            check_manifest(target)
        else:
            beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return id_, target


def kept(state: Path) -> set[Path]:
    """The copies below `state`."""
    return set((state / "versions").glob("[!.]*"))
