"""The clocks of the edge, each in one place, so that tests can replace them.

Two clocks: `monotonic` for spans and deadlines, and *edge time*, seconds since 2025-01-01T00:00:00Z, in which cells are
numbered. Edge time is `monotonic() + offset`, where the supervisor publishes the offset (docs/design/limits.md#clock):
a step of the wall clock changes nothing until the supervisor says so.
"""

import time
from pathlib import Path
from time import monotonic

EPOCH = 1735689600
"""Unix seconds at which edge time begins: 2025-01-01T00:00:00Z."""


def wall_offset() -> float:
    """Return the offset that makes edge time agree with this host's wall clock now, in seconds."""
    return time.time() - EPOCH - monotonic()


def boot_id() -> str:
    """Return the kernel's random id of this boot; monotonic times of two boots cannot be compared."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
