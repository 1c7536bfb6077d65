"""The clients that a worker holds, found from outside while the worker is stopped."""

import os
import signal
from collections.abc import Collection
from pathlib import Path

from loadtest.testbed.waiting import until


def stop(pid: int) -> None:
    """Send SIGSTOP and wait until the process has stopped; raises ProcessLookupError if it has ended."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: state(pid) in "TZX", f"{pid} stands still", seconds=5)


def state(pid: int) -> str:
    """Return the state letter of proc(5); X if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def clients(pid: int, listening: Collection[int]) -> frozenset[int]:
    """Return the client ports of this process's connections to these listening ports."""
    held = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(os.readlink(path))
        except OSError:
            continue
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        parts = line.split()
        ours, theirs = (int(parts[at].partition(":")[2], 16) for at in (1, 2))
        if ours in listening and f"socket:[{parts[9]}]" in held:
            found.add(theirs)
    return frozenset(found - {0})
