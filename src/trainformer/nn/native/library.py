"""The kernels as a library of this machine: compiled at first use, kept in the user's cache folder, loaded with ctypes."""

import contextlib
import ctypes
import functools
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainformer.core.files import digest, user_cache

SOURCE = Path(__file__).with_name("kernels.c")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-fPIC"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)
"""Nothing that changes the order of sums; a product and a sum may be rounded once."""
NEEDED = "avx512f"
WAIT_S = 120


class NoLibrary(Exception):
    """Why this machine has no kernels: said to the user, who can do without."""


def call(kernel: str, *arguments: Any) -> Any:
    """Runs a kernel on as many threads as PyTorch uses. Tensors are contiguous, None is a null pointer, an int is 64 bits."""
    return getattr(load(), kernel)(*map(_given, arguments), ctypes.c_int(torch.get_num_threads()))


def _given(value: Any) -> Any:
    if isinstance(value, Tensor):
        assert value.is_contiguous() and value.device.type == "cpu", "a kernel reads plain arrays"
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, int):
        return ctypes.c_int64(value)
    return ctypes.c_float(value) if isinstance(value, float) else value


@functools.cache
def load() -> ctypes.CDLL:
    """Raises NoLibrary with the reason. The first call on a machine takes about a second."""
    processor = _processor()
    if NEEDED not in processor.split():
        raise NoLibrary("this processor has no AVX-512, or is not seen to have it")
    threads = _threads_of_torch()
    source, tried = SOURCE.read_text(encoding="utf-8"), []
    for name in COMPILERS:
        compiler = shutil.which(name)
        if compiler is None:
            continue
        try:
            key = digest([source, _said(compiler, "--version"), FLAGS, processor, str(threads), torch.__version__])
            return _loaded(compiler, threads, (user_cache() / "native").resolve() / f"kernels-{key}.so")
        except (NoLibrary, OSError) as error:
            tried.append(str(error))
    raise NoLibrary("; ".join(dict.fromkeys(tried)) or f"there is no C compiler ({', '.join(COMPILERS)})")


@functools.cache
def able() -> bool:
    """Whether this machine has kernels, for what is the same without them and takes longer."""
    try:
        load()
    except NoLibrary:
        return False
    return True


def _threads_of_torch() -> Path:
    """The OpenMP library that PyTorch has loaded: with another one two sets of threads would fight for the cores."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text(encoding="utf-8").splitlines() if maps.is_file() else []
    loaded = {Path(line.split()[-1]) for line in lines if "/libgomp" in line}
    home = Path(torch.__file__).parent
    own = {path for path in loaded if {home, home.with_name("torch.libs")} & set(path.parents)} or loaded
    if len(own) == 1:
        return own.pop()
    raise NoLibrary("this build of PyTorch does not share its threads through one libgomp")


def _loaded(compiler: str, threads: Path, path: Path) -> ctypes.CDLL:
    """The library at a path; where there is none, or it is broken, or another user could have written it, it is made anew."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if weak := _open_to_others(path.parent):
        raise NoLibrary(f"other users can write to {weak}, so they could put a library of theirs there")
    if path.is_file() and not _open_to_others(path):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(str(path))
    _compile(compiler, threads, path)
    return ctypes.CDLL(str(path))


def _open_to_others(place: Path) -> Path | None:
    """What lets another user than the administrator put something else in a place: the place itself, or a folder above it."""
    about = place.lstat()
    if about.st_uid not in (0, os.geteuid()) or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return place
    return next((p for p in place.parents if p.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH), None)


def _compile(compiler: str, threads: Path, path: Path) -> None:
    """Writes beside, flushes to the disk, renames: two processes may do it at once."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        middle, end = f"{folder}/kernels.o", f"{folder}/kernels.so"
        _said(compiler, *FLAGS, "-c", str(SOURCE), "-o", middle)
        _said(compiler, "-shared", middle, str(threads), "-lm", "-Wl,-z,defs", "-o", end)
        with open(end, "rb") as whole:
            os.fsync(whole.fileno())
        os.chmod(end, 0o700)
        os.replace(end, path)


def _said(*command: str) -> str:
    """What a command prints. Raises NoLibrary with its first complaint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoLibrary(str(error)) from error
    if done.returncode:
        complaint = [line for line in done.stderr.splitlines() if "error" in line or "undefined" in line] or [done.stderr.strip()]
        raise NoLibrary(f"{Path(command[0]).name} failed: {complaint[0]:.200}")
    return done.stdout


def _processor() -> str:
    """What `-march=native` depends on: name and abilities, as Linux tells them; elsewhere nothing."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
