"""Check whether this machine was fit for a load test: how much CPU other work used meanwhile."""

import os
from pathlib import Path
from typing import NamedTuple

TICK = 1 / os.sysconf("SC_CLK_TCK")
BUSY_SHARE = 0.5
"""A share of the cores. If other work uses more, too little is left for a run, which needs a third of them."""
IDLE_SHARE = 0.1
"""A share of the cores. If more is idle, no process waits for long, whatever else runs."""


class Counters(NamedTuple):
    """Busy and idle seconds of all cores together, and seconds that processes waited for a core.

    The wait is 0 if the kernel does not report it.
    """

    busy: float
    idle: float
    waiting: float


class Machine(NamedTuple):
    """The use of the cores during a run, as shares of all cores."""

    cores: int
    idle: float
    others: float
    """The share of all processes except the generator and the workers of edges."""
    waiting: float
    """The share of time that a process was ready to run and had no core."""

    @property
    def is_unfit(self) -> bool:
        """Return whether the latencies of this run reflect other work more than the tested edges."""
        return self.others > BUSY_SHARE and self.idle < IDLE_SHARE

    def __str__(self) -> str:
        used = self.others * self.cores
        return f"{self.cores} cores, {used:.1f} of them taken by other work, {100 * self.idle:.0f} % idle" + (
            f"; something waited for one {100 * self.waiting:.0f} % of the time" if self.waiting else ""
        )


def read_counters() -> Counters:
    """Read the kernel's counters since its start."""
    fields = [int(field) * TICK for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, idle, iowait, irq, softirq, steal = fields[:8]
    return Counters(user + nice + system + irq + softirq + steal, idle + iowait, _read_pressure())


def _read_pressure() -> float:
    try:
        some = Path("/proc/pressure/cpu").read_text().split("\n", 1)[0]
        return int(some.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError):
        return 0.0


def compare_counters(before: Counters, after: Counters, seconds: float, own: float) -> Machine:
    """Return the use of the cores in these seconds; `own` is the CPU seconds of the generator and the edges'
    workers.
    """
    busy, idle = after.busy - before.busy, after.idle - before.idle
    everything = max(busy + idle, 1e-9)
    return Machine(
        os.cpu_count() or 1,
        idle / everything,
        max(busy - own, 0.0) / everything,
        min((after.waiting - before.waiting) / seconds, 1.0),
    )
