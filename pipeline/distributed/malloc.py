"""Memory that a process frees is kept for its next array."""

from __future__ import annotations

import ctypes

# Names and numbers of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_MMAP_BYTES = 256 * 2**20
_TRIM_BYTES = 512 * 2**20


def keep_freed_memory() -> bool:
    """Let the C library reuse large blocks instead of returning each to the kernel; whether it could be told so.

    A decoder makes and drops arrays of megabytes. By default glibc maps each anew, and its pages are faulted in and
    zeroed again: half of the time of resampling. Costs up to 512 MB of freed memory that stays with the process.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # not glibc
        return False
    # Before 2.35 glibc took no more than half of an arena's heap, 32 MiB.
    mapped = mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES) or mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
    return bool(mapped and mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES))
