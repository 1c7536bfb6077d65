"""An edge or a collector that is killed at a step: `python -m loadtest.testbed.step_kill STEP COMMAND …`.

STEP is `before NAME N` or `after NAME N`: the process kills itself when it reaches this point for the Nth time, and
prints that before. `torn write N` kills it in the middle of a write. `-` is never. COMMAND is one of edgeproxy's,
with arguments.

    EDGEPROXY_TEST_CLOCK    a file of eight bytes, a double: the error of this process's clock in seconds
    EDGEPROXY_TEST_FULL     the disk has no room for the spool while a file of this name exists
"""

import errno
import inspect
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from loadtest.testbed.fork_server import STEPPING
from loadtest.testbed.slow_edge import edge_command

CLOCK, FULL = "EDGEPROXY_TEST_CLOCK", "EDGEPROXY_TEST_FULL"
OFFSET = struct.Struct("<d")

EDGE_STEPS = ("look", "write", "sync", "mark", "end", "send", "acknowledge", "save")
COLLECTOR_STEPS = ("settle", "work", "commit", "answer")
NEVER = "-"
SOON = 0.3
"""The longest pause in seconds before a retry here, however often it failed before."""


def boundaries(steps: tuple[str, ...]) -> list[str]:
    """Return the points at which a process can be killed: before and after each step, and in the middle of a write."""
    found = [f"{when} {step}" for step in steps for when in ("before", "after")]
    return found + ["torn write"] * ("write" in steps)


def stepping(step: str, command: str) -> tuple[str, ...]:
    """Return the command of an edge or a collector that is killed at a step."""
    if command == "edge":
        return edge_command(STEPPING[2], step, command, "-c")
    return (*STEPPING, step, command, "-c")


def said(step: str) -> str:
    """Return the text that the process prints before it dies at a step."""
    return f"killed {step}"


class Step:
    """The point of death."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._where, _, number = step.rpartition(" ")
        self._left = int(number) if self._where else 0

    def comes(self, where: str) -> bool:
        """Record that the process reaches a point; return whether it must die there."""
        if where != self._where:
            return False
        self._left -= 1
        return self._left == 0

    def at(self, where: str) -> None:
        """Record that the process reaches a point, and die there if it must."""
        if self.comes(where):
            self.die()

    def die(self) -> None:
        """Die now."""
        os.write(2, f"{said(self._step)}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: Any, function: str, name: str) -> None:
        """Add the points `before NAME` and `after NAME` to a function or a coroutine."""
        real: Callable[..., Any] = getattr(owner, function)
        if inspect.iscoroutinefunction(real):

            async def stepped(*given: Any, **named: Any) -> Any:
                self.at(f"before {name}")
                result = await real(*given, **named)
                self.at(f"after {name}")
                return result

            setattr(owner, function, stepped)
            return

        def plain(*given: Any, **named: Any) -> Any:
            self.at(f"before {name}")
            result = real(*given, **named)
            self.at(f"after {name}")
            return result

        setattr(owner, function, plain)


def set_clock() -> None:
    """Set the error of this process's clock, if one is given."""
    path = os.environ.get(CLOCK)
    if path is None:
        return
    with open(path, "rb") as file:
        offset = mmap.mmap(file.fileno(), OFFSET.size, prot=mmap.PROT_READ)
    real = time.time
    time.time = lambda: real() + OFFSET.unpack_from(offset)[0]


def step_edge(step: Step) -> None:
    """Add the points of an edge's supervisor."""
    from edgeproxy.edge.counters.control import Control
    from edgeproxy.edge.counters.tallies import TallyTable
    from edgeproxy.edge.usage import ship
    from edgeproxy.edge.usage.chains import Chains
    from edgeproxy.edge.usage.segment import Disk
    from edgeproxy.edge.usage.spool import Spool
    from edgeproxy.edge.usage.transport import HttpTransport

    ship.RETRY_SECONDS_MAX = SOON
    ship.Shipper.__init__.__kwdefaults__["clock"] = time.time  # type: ignore[index]  # imported before the clock was set, in a copy
    full = Path(os.environ.get(FULL, "/nowhere"))
    write, sync = Disk.write, Disk.sync

    def torn(disk: Disk, fd: int, data: bytes, offset: int) -> None:
        if step.comes("torn write"):
            os.pwrite(fd, data[: len(data) * 2 // 3], offset)
            step.die()
        if full.exists():
            os.pwrite(fd, data[: len(data) // 3], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(disk, fd, data, offset)

    def failing(disk: Disk, fd: int) -> None:
        if full.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(disk, fd)

    Disk.write, Disk.sync = torn, failing  # type: ignore[method-assign, assignment]
    step.wrap(Disk, "write", "write")
    step.wrap(Disk, "sync", "sync")
    step.wrap(Chains, "find_growth", "look")
    step.wrap(Chains, "record_sealed", "end")
    step.wrap(TallyTable, "mark", "mark")
    step.wrap(HttpTransport, "__call__", "send")
    step.wrap(Spool, "acknowledge", "acknowledge")
    step.wrap(Spool, "save", "save")
    step.wrap(Control, "write_heartbeat", "serve")


def step_collector(step: Step) -> None:
    """Add the points of a collector."""
    from sqlalchemy.ext.asyncio import AsyncConnection

    from edgeproxy.collector.api import edges
    from edgeproxy.collector.database.database import Database
    from edgeproxy.collector.ledger.batch_writer import BatchWriter

    class Stepped(Database):
        @asynccontextmanager
        async def writing(self) -> AsyncIterator[AsyncConnection]:
            async with super().writing() as connection:
                yield connection
                step.at("before commit")
            step.at("after commit")

    from edgeproxy.collector import main

    main.Database = Stepped  # type: ignore[attr-defined]
    step.wrap(BatchWriter, "settle_batch", "settle")
    step.wrap(BatchWriter, "_write_group", "work")
    step.wrap(edges, "answer_outcome", "answer")


def main() -> None:
    """Run the command."""
    set_clock()
    step, command = Step(sys.argv[1]), sys.argv[2]
    del sys.argv[1]
    {"edge": step_edge, "collector": step_collector}[command](step)
    from edgeproxy.cli import main as edgeproxy

    edgeproxy()


if __name__ == "__main__":
    main()
