"""Whether this machine was fit for a load test: how much of it other work took meanwhile."""

import os
from pathlib import Path
from typing import NamedTuple

TICK = 1 / os.sysconf("SC_CLK_TCK")
BUSY_SHARE = 0.5
"""Of the cores: other work that takes more leaves too little to a run that needs a third of them."""
IDLE_SHARE = 0.1
"""Of the cores: where more is idle nothing waits for long, whoever works."""


class Counters(NamedTuple):
    """Seconds that all cores together have been busy and idle, and those in which something waited for one (0 where the
    kernel does not say)."""

    busy: float
    idle: float
    waiting: float


class Machine(NamedTuple):
    """What became of the cores during a run: shares of all of them."""

    cores: int
    idle: float
    others: float
    """Taken by what is neither the generator nor a worker of an edge."""
    waiting: float
    """Of the time: something was ready to run and had no core."""

    @property
    def is_unfit(self) -> bool:
        """Whether latencies of this run say more of other work than of what was to be tested."""
        return self.others > BUSY_SHARE and self.idle < IDLE_SHARE

    def __str__(self) -> str:
        used = self.others * self.cores
        return f"{self.cores} cores, {used:.1f} of them taken by other work, {100 * self.idle:.0f} % idle" + (
            f"; something waited for one {100 * self.waiting:.0f} % of the time" if self.waiting else ""
        )


def read_counters() -> Counters:
    """Read what the kernel has counted since it began."""
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
    """Tell what became of the cores in these seconds; `own`: CPU seconds of the generator and the edges' workers."""
    busy, idle = after.busy - before.busy, after.idle - before.idle
    everything = max(busy + idle, 1e-9)
    return Machine(
        os.cpu_count() or 1,
        idle / everything,
        max(busy - own, 0.0) / everything,
        min((after.waiting - before.waiting) / seconds, 1.0),
    )
