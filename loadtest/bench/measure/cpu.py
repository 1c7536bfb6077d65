"""CPU time of processes, to the nanosecond, from the kernel's scheduler."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple


class Spent(NamedTuple):
    """Nanoseconds since the start of a process: on a core, and ready but waiting for one.

    `user` and `system` are ticks of a hundredth of a second, by which what it ran is shared between its own code and
    the kernel's.
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
        """The part of what it ran that was the kernel's; 0 where no tick was seen."""
        return self.system / (self.user + self.system) if self.user + self.system else 0.0


NOTHING = Spent(0, 0)


def parse(schedstat: str) -> Spent:
    """`/proc/PID/task/TID/schedstat`: time on the CPU, time waited for it, slices (Linux, sched-stats.rst)."""
    ran, waited, _ = schedstat.split()
    return Spent(int(ran), int(waited))


def of_process(pid: int) -> Spent:
    """All threads together; raises FileNotFoundError or ProcessLookupError where it is gone."""
    total = NOTHING
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # A thread may end between the two.
            total += parse((thread / "schedstat").read_text())
    # proc(5): the 14th and 15th field, behind the name, in which anything may be.
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return total._replace(user=int(user), system=int(system))


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
        total += now - before.get(pid, NOTHING)
    return total
