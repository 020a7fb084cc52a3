"""Keeps freed memory in the process: a step frees and takes the same hundreds of megabytes, and fresh pages are slow to fill."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""
KEEP_BYTES = 2**31 - 1


def keep_memory() -> bool:
    """Tells glibc not to give large blocks back to the system; whether it was told (other C libraries have no such word)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, KEEP_BYTES) and libc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES))
