"""Which clients a worker holds: looked up from outside, while the worker stands still."""

import os
import signal
from collections.abc import Collection
from pathlib import Path

from loadtest.testbed.waiting import until


def stop(pid: int) -> None:
    """SIGSTOP, and wait until it stands still; raises ProcessLookupError where it is gone."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: state(pid) in "TZX", f"{pid} stands still", seconds=5)


def state(pid: int) -> str:
    """The letter of proc(5); X where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def clients(pid: int, listening: Collection[int]) -> frozenset[int]:
    """The ports of the clients whose connections this process holds, of those that came to these ports."""
    held = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(os.readlink(each))
        except OSError:
            continue
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        parts = line.split()
        ours, theirs = (int(parts[at].partition(":")[2], 16) for at in (1, 2))
        if ours in listening and f"socket:[{parts[9]}]" in held:
            found.add(theirs)
    return frozenset(found - {0})
