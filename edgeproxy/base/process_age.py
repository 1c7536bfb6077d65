"""The age of this process."""

import os
import time
from pathlib import Path


def read_process_age() -> float:
    """Return the seconds since this process began, imports included; 0 if that is unknown."""
    try:
        # proc(5): field 22 is the time of the start, in ticks since the boot.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
