"""The well-behaved client: requests at fixed moments over kept connections, and as many over new ones.

The schedule is open-loop: a request begins when it is due, whether or not earlier ones are answered, and its wait is
counted from that moment. A kept connection that still waits is no reason to wait: the client opens another one.
"""

import asyncio
import multiprocessing
import os
import ssl
import time
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing.connection import Connection

import uvloop

from loadtest.neighbours.neighbour import Polite

TIMEOUT_SECONDS = 10.0
"""The longest wait for a connection or an answer. After it the request has failed."""
_FORK = multiprocessing.get_context("fork")
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Door:
    """A listener as the client reaches it, and its request there."""

    address: tuple[str, int]
    polite: Polite
    tls: ssl.SSLContext | None = None

    def request(self, *, keep: bool) -> bytes:
        """Return the bytes of a request."""
        polite = self.polite
        method, length = ("POST", f"Content-Length: {len(polite.body)}\r\n") if polite.body else ("GET", "")
        close = "" if keep else "Connection: close\r\n"
        lines = f"{method} {polite.path} HTTP/1.1\r\nHost: localhost\r\n{polite.fields}{length}{close}"
        return f"{lines}\r\n{polite.body}".encode()


@dataclass
class Observations:
    """Waits in seconds of the requests that were answered, and what went wrong with the others, as texts."""

    waits: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def schedule(begin: float, seconds: float, rate: float) -> Iterator[float]:
    """Return the times at which requests of a steady rate are due, from `begin` on."""
    return (begin + number / rate for number in range(int(seconds * rate)))


class Client:
    """A process that measures for `seconds`; `result` waits for it."""

    def __init__(self, door: Door, seconds: float, rate: float, core: int) -> None:
        self._reader, writer = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(target=_run, args=(door, seconds, rate, core, writer), daemon=True)
        self._process.start()
        writer.close()

    def result(self) -> Observations:
        """Return the observations. Raises EOFError if the process died."""
        try:
            observations: Observations = self._reader.recv()
        finally:
            self._process.join()
        return observations


def first_request(door: Door) -> float | None:
    """Return the seconds that one request over a new connection takes now, or None if it fails."""
    began = time.monotonic()
    try:
        uvloop.run(_ask_over_new_connection(door))
    except (OSError, EOFError, ValueError):
        return None
    return time.monotonic() - began


def run_first(pid: int) -> None:
    """Let a process run before all ordinary ones of its core, if the user may do so; 0 is the process itself.

    Neighbours and services share the client's core. Its waits for the CPU are no waits for the peer.
    """
    with suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))


def _run(door: Door, seconds: float, rate: float, core: int, writer: Connection) -> None:
    os.sched_setaffinity(0, {core})
    run_first(0)
    writer.send(uvloop.run(_measure(door, seconds, rate)))


async def _measure(door: Door, seconds: float, rate: float) -> Observations:
    seen = Observations()
    idle: list[_Connection] = []
    begin = time.monotonic() + 0.1
    moments = schedule(begin, seconds, 2 * rate)
    async with asyncio.TaskGroup() as requests:
        for due, is_new in zip(moments, cycle((False, True)), strict=False):
            await asyncio.sleep(due - time.monotonic())
            requests.create_task(
                _count(_ask_over_new_connection(door) if is_new else _ask_over_kept_connection(door, idle), due, seen)
            )
    for _, writer in idle:
        writer.close()
    return seen


async def _count(exchange: Awaitable[object], due: float, seen: Observations) -> None:
    try:
        await exchange
    except (OSError, EOFError, ValueError) as error:  # TimeoutError is an OSError.
        seen.errors.append(f"{error!r} after {time.monotonic() - due:.2f} s")
    else:
        seen.waits.append(time.monotonic() - due)


async def _ask_over_new_connection(door: Door) -> None:
    connection = await _connect(door)
    try:
        await _ask(connection, door, keep=False)
    finally:
        connection[1].close()


async def _ask_over_kept_connection(door: Door, idle: list[_Connection]) -> None:
    """Send a request over an idle connection, or over a new one if none is idle, and keep the connection."""
    while idle and idle[-1][0].at_eof():  # A server may close an idle connection.
        idle.pop()[1].close()
    connection = idle.pop() if idle else await _connect(door)
    try:
        stays = await _ask(connection, door, keep=True)
    except BaseException:
        connection[1].close()
        raise
    if stays:
        idle.append(connection)
    else:
        connection[1].close()


async def _connect(door: Door) -> _Connection:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        return await asyncio.open_connection(
            *door.address, ssl=door.tls, server_hostname="localhost" if door.tls else None
        )


async def _ask(connection: _Connection, door: Door, *, keep: bool) -> bool:
    """Send a request, and return whether the connection stays open. Raises ValueError if the answer is not 200."""
    reader, writer = connection
    writer.write(door.request(keep=keep))
    async with asyncio.timeout(TIMEOUT_SECONDS):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if head.split(b" ", 2)[1] != b"200":
            raise ValueError(head.split(b"\r\n", 1)[0].decode())
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
    return b"connection: close" not in head
