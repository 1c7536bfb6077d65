"""The allocator of glibc, which keeps freed memory for the process."""

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

WORKER_ALLOCATION = {"MALLOC_TRIM_THRESHOLD_": 16 << 20, "MALLOC_MMAP_THRESHOLD_": 2 << 20}
"""Settings of the allocator in a worker, in bytes, unless the environment has its own. Without them glibc returns the
memory of each larger piece of a body to the kernel, and requests it again for the next.
"""
CONFIGURATION_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": 128 << 10}
"""Settings of the allocator while a process reads configurations: a large block has pages of its own, and freeing it
returns them. Otherwise blocks of successive configurations share pages, and reloads of many customers leave tens of
megabytes.
"""
OPTIONS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}
"""Options of mallopt(3) by the variables that set them at the beginning of a process."""

_libc = ctypes.CDLL(None)
_trim = getattr(_libc, "malloc_trim", None)
"""malloc_trim(3). Only glibc has it."""
_mallopt = getattr(_libc, "mallopt", None)
"""mallopt(3). Only glibc has it."""


def return_freed_memory() -> None:
    """Return freed memory to the system. It takes some milliseconds, so call it after work that freed a lot."""
    if _trim is not None:
        _trim(0)


def tune_allocation(sizes: Mapping[str, int]) -> None:
    """Apply these settings, in bytes, unless the environment has its own."""
    for name, size in sizes.items():
        if _mallopt is not None and name not in os.environ:
            _mallopt(OPTIONS[name], size)


@contextmanager
def separate_large_blocks() -> Iterator[None]:
    """Give large blocks of a worker's configuration memory of their own."""
    tune_allocation(CONFIGURATION_ALLOCATION)
    try:
        yield
    finally:
        tune_allocation(WORKER_ALLOCATION)
