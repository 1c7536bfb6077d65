"""A worker that only decides, with any algorithm: `python -m tests.edge.limits.hammer STATE RECORD`.

It prints `idle`, joins the state directory at the first line on its standard input, and prints `ready`. Each further
line is a Task as JSON. The worker then decides on requests under its limit as fast as it can, until the task's end or
another line. Then it prints `done` and the seconds that it really spent on decisions. It writes admitted requests into
the file RECORD at once, so that the record survives kill -9.
"""

import mmap
import os
import select
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import orjson

from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rule import Rule

MOST = 200_000
"""Requests that a record has room for."""
SWEEP = 0.2
"""Seconds between two refreshes of the columns."""
TURN = 0.005
"""Seconds between two decisions, above which the process counts as waiting for the processor."""


class Record:
    """The times of the requests that one worker has admitted, in a file."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.posix_fallocate(fd, 0, 8 * (MOST + 1))
        view = memoryview(mmap.mmap(fd, 8 * (MOST + 1)))
        os.close(fd)
        self._count = view[:8].cast("Q")
        self._times = view[8:].cast("d")

    def add(self, now: float) -> None:
        """Add an admitted request."""
        count = self._count[0]
        self._times[count] = now
        self._count[0] = count + 1

    def times(self) -> list[float]:
        """Return the time of each admitted request."""
        return self._times[: self._count[0]].tolist()


@dataclass(frozen=True)
class Task:
    """A limit to decide under, and the end of the task (monotonic time)."""

    subject: str
    algorithm: str
    limit: int
    window: float
    depth: int
    cost: int
    until: float

    def rule(self) -> Rule:
        """Return the rule of the limit."""
        return Rule("basic", self.limit, self.window, algorithm=self.algorithm, depth=self.depth)


def carry_out(task: Task, store: Store, policies: Policies, record: Record) -> float:
    """Decide until the end of the task. Return the seconds spent on decisions."""
    policy = policies.get_policy(task.rule(), task.subject.encode(), task.cost)
    offset, cost, until = store.offset, task.cost, task.until
    swept = asked = 0.0
    before = monotonic()
    while (now := monotonic()) < until:
        if now - before < TURN:
            asked += now - before
        before = now
        if policy.left(now + offset) >= cost:
            policy.charge(cost)
            record.add(now + offset)
        if now - swept > SWEEP:
            swept = now
            store.refresh_columns()
            if select.select([sys.stdin], [], [], 0)[0]:
                break
    return asked


def main(state: Path, path: Path) -> None:
    record = Record(path)
    print("idle", flush=True)
    if not sys.stdin.readline():
        return
    store = Store.join(state)
    policies = Policies(store.customers)
    print("ready", flush=True)
    for line in sys.stdin:
        print("done", carry_out(Task(**orjson.loads(line)), store, policies, record), flush=True)
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
