"""A worker that does nothing but decide: `python -m tests.limits.hammer STATE RECORD PAUSE`.

It joins the state directory, says `ready`, and for each line `SUBJECT LIMIT WINDOW UNTIL` on its standard input asks
that window as fast as it can, or every PAUSE seconds, until UNTIL (monotonic) has come. What is let
through goes into the file RECORD at once, so that it outlives kill -9: a word with how many, then each one's edge time.
"""

import mmap
import os
import sys
from pathlib import Path
from time import monotonic, sleep

from edgeproxy.counters.store import Store
from edgeproxy.limits.policies import Policies
from edgeproxy.limits.rule import Rule

MOST = 200_000
"""Requests that a record has room for."""


class Record:
    """What one worker has let through."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.posix_fallocate(fd, 0, 8 * (MOST + 1))
        view = memoryview(mmap.mmap(fd, 8 * (MOST + 1)))
        os.close(fd)
        self._count = view[:8].cast("Q")
        self._times = view[8:].cast("d")

    def add(self, now: float) -> None:
        """One more."""
        count = self._count[0]
        self._times[count] = now
        self._count[0] = count + 1

    def times(self) -> list[float]:
        """When each was let through."""
        return self._times[: self._count[0]].tolist()


def main(state: Path, path: Path, pause: float) -> None:
    record = Record(path)
    store = Store.join(state)
    policies = Policies(store.people)
    print("ready", store.column, flush=True)
    for line in sys.stdin:
        subject, limit, window, until = line.split()
        policy = policies.of(Rule("basic", int(limit), float(window)), subject.encode())
        offset = store.offset
        end = float(until)
        swept = 0.0
        while (now := monotonic()) < end:
            if policy.left(now + offset) > 0:
                policy.charge()
                record.add(now + offset)
            if now - swept > 0.2:
                swept = now
                store.columns_changed()
            if pause:
                sleep(pause)
        print("done", flush=True)
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
