"""Let the C library keep what a training step frees: the next step asks for it again.

glibc hands large freed blocks back to the system, and the system clears every page before it gives
it out again. A step of 16 ConvNets frees and asks for some hundred megabytes. What that costs:
``steepest bench population mnist --members 16``, with and without ``STEEPEST_MALLOC=system``
(docs/populations.md has the figures).
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt(3), from glibc's malloc.h
_LARGEST = 256 << 20  # bytes of a block that comes from the heap
_SPARE = 1 << 30  # bytes at the heap's end that stay with the process
_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


@cache
def keep_freed_memory() -> str:
    """Raise glibc's thresholds for the whole process, once; what was done, in words.

    Blocks of up to 256 MiB come from the heap, and up to 1 GiB of it stays with the process when
    they are free. The environment decides otherwise with ``STEEPEST_MALLOC=system``, or by setting
    glibc's own thresholds.

    >>> keep_freed_memory() == keep_freed_memory()
    True
    """
    if sys.platform != "linux":
        return "left alone: thresholds are glibc's"
    if os.environ.get("STEEPEST_MALLOC") == "system":
        return "left alone: STEEPEST_MALLOC=system"
    if any(name in os.environ for name in _OWN) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return "left alone: the environment sets them"
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version") or not hasattr(library, "mallopt"):
        return "left alone: the C library is not glibc"
    done = library.mallopt(_MMAP_THRESHOLD, _LARGEST) and library.mallopt(_TRIM_THRESHOLD, _SPARE)
    return "raised to 256 MiB and 1 GiB" if done else "left alone: mallopt refused"
