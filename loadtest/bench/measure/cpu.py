"""CPU time of processes, to the nanosecond, from the kernel's scheduler."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple


class Spent(NamedTuple):
    """Nanoseconds since the start of a process: on a core, and ready but waiting for one."""

    ran: int
    waited: int

    def __add__(self, other: object) -> "Spent":
        if not isinstance(other, Spent):
            return NotImplemented
        return Spent(self.ran + other.ran, self.waited + other.waited)


NOTHING = Spent(0, 0)


def parse(schedstat: str) -> Spent:
    """`/proc/PID/task/TID/schedstat`: time on the CPU, time waited for it, slices (Linux, sched-stats.rst)."""
    ran, waited, _ = schedstat.split()
    return Spent(int(ran), int(waited))


def of_process(pid: int) -> Spent:
    """All threads together; raises FileNotFoundError or ProcessLookupError where it is gone."""
    total = NOTHING
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total += parse((thread / "schedstat").read_text())
    return total


def of_processes(pids: Iterable[int]) -> dict[int, Spent]:
    return {pid: of_process(pid) for pid in pids}


def between(before: Mapping[int, Spent], after: Mapping[int, Spent]) -> Spent:
    """What was spent between two readings; a process that only the later one knows began in between.

    Raises ValueError for one that ended in between: what it spent is unknown.
    """
    if gone := before.keys() - after.keys():
        raise ValueError(f"process {min(gone)} ended while it was measured")
    total = NOTHING
    for pid, now in after.items():
        then = before.get(pid, NOTHING)
        total += Spent(now.ran - then.ran, now.waited - then.waited)
    return total
