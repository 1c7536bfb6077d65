"""The clocks that the edge reads, each in one place, so that tests and later the hub can say what time it is.

Two clocks: `monotonic` for spans and deadlines, and *edge time*, seconds since 2025-01-01T00:00:00Z, in which
cells are numbered. Edge time is `monotonic() + offset`, where the offset is published by the supervisor
(docs/design/limits.md#clock): a step of the wall clock changes nothing until the supervisor says so.
"""

import time
from pathlib import Path
from time import monotonic

EPOCH = 1735689600
"""Unix seconds at which edge time begins: 2025-01-01T00:00:00Z."""


def wall_offset() -> float:
    """The offset that makes edge time agree with this host's wall clock at this moment, in seconds."""
    return time.time() - EPOCH - monotonic()


def boot_id() -> str:
    """The kernel's random id of this boot; monotonic time means nothing across two of them."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
