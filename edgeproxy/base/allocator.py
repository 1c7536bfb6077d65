"""The allocator of glibc, which keeps freed memory for the process."""

import ctypes

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""malloc_trim(3). Only glibc has it."""


def return_freed_memory() -> None:
    """Return freed memory to the system. It takes some milliseconds, so call it after work that freed a lot."""
    if _trim is not None:
        _trim(0)
