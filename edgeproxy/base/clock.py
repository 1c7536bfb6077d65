"""The clocks of the edge, each in one place, so that tests can replace them.

There are two: `monotonic` for durations and deadlines, and *edge time*, seconds since 2025-01-01T00:00:00Z, which
numbers cells. Edge time is `monotonic() + offset`. The supervisor publishes the offset (docs/design/limits.md#clock).
So a step of the wall clock has no effect until the supervisor publishes it.
"""

import time
from pathlib import Path
from time import monotonic

EPOCH = 1735689600
"""The Unix second of the beginning of edge time: 2025-01-01T00:00:00Z."""


def wall_offset() -> float:
    """Return the offset in seconds that makes edge time equal to this host's wall clock now."""
    return time.time() - EPOCH - monotonic()


def boot_id() -> str:
    """Return the kernel's random id of this boot. Monotonic times of different boots cannot be compared."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
