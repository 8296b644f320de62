"""How the frontend's C library treats freed memory.

glibc gives the memory of a large body back to the kernel when it is freed, and has it mapped and zeroed page by page
for the next: 256 page faults per MiB and buffer, a third of the frontend's time for an echo of 1 MiB (2,000 -> 1,300 us
of CPU a request). So buffers up to :data:`REUSED` are made from the heap, of which up to :data:`KEPT` stay when they
are free. Workers get the same by their environment. ``MALLOC_TRIM_THRESHOLD_`` and ``MALLOC_MMAP_THRESHOLD_`` of the
server's own environment come first.
"""

from __future__ import annotations

import ctypes
import os
import sys

REUSED = 32 << 20  # bytes; glibc takes no more
KEPT = 128 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


def keep_freed_memory() -> bool:
    """Keep freed memory for the next large body. False where the C library has no such choice, or it was made."""
    if sys.platform != "linux" or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, REUSED) and mallopt(_M_TRIM_THRESHOLD, KEPT))
