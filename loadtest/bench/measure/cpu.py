"""CPU time of processes, to the nanosecond, from the kernel's scheduler."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple


class Spent(NamedTuple):
    """Nanoseconds of a process since its start: on a core, and ready but waiting for a core.

    `user` and `system` are ticks of a hundredth of a second. They divide `ran` between the process's own code and
    the kernel.
    """

    ran: int
    waited: int
    user: int = 0
    system: int = 0

    def __add__(self, other: object) -> "Spent":
        if not isinstance(other, Spent):
            return NotImplemented
        return Spent(*(one + another for one, another in zip(self, other, strict=True)))

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(*(one - another for one, another in zip(self, other, strict=True)))

    @property
    def system_share(self) -> float:
        """The kernel's part of the CPU time; 0 if there was no tick."""
        return self.system / (self.user + self.system) if self.user + self.system else 0.0


NOTHING = Spent(0, 0)


def parse(schedstat: str) -> Spent:
    """`/proc/PID/task/TID/schedstat`: time on the CPU, time waited for it, slices (Linux, sched-stats.rst)."""
    ran, waited, _ = schedstat.split()
    return Spent(int(ran), int(waited))


def of_process(pid: int) -> Spent:
    """Return the sum of all threads. Raises FileNotFoundError or ProcessLookupError if the process has ended."""
    total = NOTHING
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # A thread may end between the two calls.
            total += parse((thread / "schedstat").read_text())
    # proc(5): the 14th and 15th field. The name before them may contain any character.
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return total._replace(user=int(user), system=int(system))


def of_processes(pids: Iterable[int]) -> dict[int, Spent]:
    return {pid: of_process(pid) for pid in pids}


def between(before: Mapping[int, Spent], after: Mapping[int, Spent]) -> Spent:
    """Return the CPU time between two readings. A process only in the later one started in between.

    Raises ValueError if a process ended in between, because its CPU time is unknown.
    """
    if gone := before.keys() - after.keys():
        raise ValueError(f"process {min(gone)} ended while it was measured")
    total = NOTHING
    for pid, now in after.items():
        total += now - before.get(pid, NOTHING)
    return total
