"""Lets a process keep the memory that it frees, for its next array."""

from __future__ import annotations

import ctypes

# Names and numbers of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_MMAP_BYTES = 256 * 2**20
_TRIM_BYTES = 512 * 2**20


def keep_freed_memory() -> bool:
    """Let the C library reuse large blocks instead of returning them to the kernel. Returns whether it can.

    A decoder allocates and frees arrays of megabytes. By default glibc maps each array anew, and the kernel zeroes its
    pages again, which takes half of the time of resampling. Up to 512 MB of freed memory stays with the process.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # not glibc
        return False
    # Before version 2.35, glibc accepted no more than 32 MiB, half of an arena's heap.
    mapped = mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES) or mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
    return bool(mapped and mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES))
