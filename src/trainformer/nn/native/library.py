"""The kernels as a library of this machine: compiled at first use, kept in the user's cache folder, loaded with ctypes."""

import ctypes
import functools
import os
import platform
import shutil
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
    *("-std=gnu11", "-O3", "-march=native", "-fopenmp", "-fPIC"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    *(["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []),
)
"""Nothing that changes the order of sums; a product and a sum may be rounded once."""
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
    threads = _threads_of_torch()
    source, tried = SOURCE.read_bytes(), []
    for name in COMPILERS:
        compiler = shutil.which(name)
        if compiler is None:
            continue
        key = digest([source.decode(), _said(compiler, "--version"), FLAGS, _processor(), str(threads), torch.__version__])
        path = user_cache() / "native" / f"kernels-{key}.so"
        try:
            if not path.is_file():
                _compile(compiler, threads, path)
            library = ctypes.CDLL(str(path))
        except (NoLibrary, OSError) as error:
            tried.append(f"{name}: {error}")
            continue
        library.sum_of_squares.restype = ctypes.c_double
        return library
    raise NoLibrary("; ".join(tried) or f"there is no C compiler ({', '.join(COMPILERS)})")


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


def _compile(compiler: str, threads: Path, path: Path) -> None:
    """Writes beside and renames, so that a library that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        middle, end = f"{folder}/kernels.o", f"{folder}/kernels.so"
        _said(compiler, *FLAGS, "-c", str(SOURCE), "-o", middle)
        _said(compiler, "-shared", middle, str(threads), "-lm", "-Wl,-z,defs", "-o", end)
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


def _processor() -> list[str]:
    """What `-march=native` depends on."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return [platform.machine(), platform.processor()]
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    wanted = ("model name", "flags", "Features", "CPU part")
    return [platform.machine(), *sorted({line for line in lines if line.startswith(wanted)})]
