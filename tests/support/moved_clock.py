"""A command of edgeproxy whose wall clock is ahead by the offset in a file, and whose jobs pause briefly: `python -m
tests.support.moved_clock FILE collector -c …`. A quarter then passes in minutes. With `IDLE` in its environment
jobs do nothing, so that their rounds over all customers cost nothing. Only the job that books credits works.

A collector starts as a fork of a special fork server, which has moved its clock before it imports the product.
"""

import mmap
import os
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.base.log import RateLimitedLog

OFFSET = struct.Struct("<d")
IDLE = "EDGEPROXY_TEST_IDLE"
"""The variable that stops the jobs of a collector."""


def write_offset(file: Path, seconds: float) -> None:
    """Set the clocks that follow this file ahead by this many seconds."""
    if file.exists():
        with file.open("r+b") as stream, mmap.mmap(stream.fileno(), OFFSET.size) as memory:
            OFFSET.pack_into(memory, 0, seconds)
    else:
        file.write_bytes(OFFSET.pack(seconds))


_followed: list[mmap.mmap] = []
"""The map of the offset, once this process follows a file."""


def read_offset() -> float:
    """Return the seconds that the clock of this process is ahead."""
    return float(OFFSET.unpack_from(_followed[0], 0)[0]) if _followed else 0.0


def move_clock() -> None:
    """Set the clock of this process and its forks ahead by `read_offset`."""
    read, read_ns = time.time, time.time_ns
    time.time = lambda: read() + read_offset()  # type: ignore[assignment]
    time.time_ns = lambda: read_ns() + int(read_offset() * 1e9)  # type: ignore[assignment]


def follow_offset(file: Path) -> None:
    """Make the moved clock follow a file."""
    with file.open("rb") as stream:
        _followed[:] = [mmap.mmap(stream.fileno(), OFFSET.size, access=mmap.ACCESS_READ)]


def shorten_rests() -> None:
    """Shorten the pauses of billing jobs from minutes or hours to seconds, retry calls at once, and export usage
    by day.
    """
    from edgeproxy.collector.billing.jobs import credits, period_close
    from edgeproxy.collector.billing.meter_export import slices
    from edgeproxy.collector.billing.stripe import client
    from edgeproxy.collector.jobs import billing, maintenance

    maintenance.ROUND_SECONDS = 5.0
    period_close.LOOK_SECONDS = 0.2
    credits.LOOK_SECONDS = 1.0
    client.LIVE_RATE = client.TEST_RATE = client.ENDPOINT_RATE = client.EVENT_RATE = 10_000.0
    slices.LENGTHS = [slices.DAY]  # A month of them is soon cut.
    for name in ("POLL", "BALANCE", "UNPAID", "DOUBTS", "COMPARE", "SEND", "CUT", "BALANCES", "ERASED"):
        setattr(billing, f"{name}_SECONDS", 2.0)
    billing.STAND_BY_SECONDS = billing.EVENTS_SECONDS = billing.LOOK_SECONDS = 0.5


def stop_jobs() -> None:
    """Let all jobs succeed at once without work, except the booking of credits."""
    from edgeproxy.collector.database import periodic

    work = periodic._run_once

    async def run_once(job: periodic.Job, limited_log: "RateLimitedLog") -> tuple[periodic.JobResult, object]:
        return await work(job, limited_log) if job.name == "credits" else (periodic.JobResult.SUCCEEDED, None)

    periodic._run_once = run_once


def main() -> None:
    """Run the command, with a clock that follows a file."""
    follow_offset(Path(sys.argv.pop(1)))
    if IDLE in os.environ:
        stop_jobs()
    else:
        shorten_rests()
    from edgeproxy.cli import main

    main()


if __name__ == "__main__":
    move_clock()  # Before anything is imported that keeps the clock as a default.
    main()
