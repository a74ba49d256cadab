"""Memory that was freed goes back to the system, so that a long walk holds what it holds and no more.

glibc keeps freed blocks for itself: those of up to 32 MiB, once it has seen some of that size, come from a heap that
shrinks only at its end (``M_MMAP_THRESHOLD`` in mallopt(3)). A walk frees matrices of many sizes in every block, and
the holes between what stays add up. With other libraries of C there is nothing to do, and nothing is done.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

LARGE = 1 << 22  # bytes from which on a block is mapped alone, and unmapped when it is freed
M_MMAP_THRESHOLD = -3  # malloc.h


@cache
def _glibc() -> Any:
    """The C library, if it is glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if library is not None and hasattr(library, "gnu_get_libc_version") else None


def keep_heap_small() -> None:
    """From now on every block of LARGE bytes or more goes back to the system as soon as it is freed."""
    if library := _glibc():
        library.mallopt(M_MMAP_THRESHOLD, LARGE)


def release_freed() -> None:
    """Give back whatever is free at the moment."""
    if library := _glibc():
        library.malloc_trim(0)
