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
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing.connection import Connection

import uvloop

_TIMEOUT_SECONDS = 10.0
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Door:
    """A listener as the client knows it, and the path that it asks for there."""

    address: tuple[str, int]
    path: str
    tls: ssl.SSLContext | None = None
    source: str | None = None


@dataclass
class Observations:
    """Waits in seconds of the requests that were answered, and what went wrong with the others, as texts."""

    waits: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def schedule(begin: float, seconds: float, rate: float) -> Iterator[float]:
    """The moments of a steady rate, from `begin` on."""
    return (begin + number / rate for number in range(int(seconds * rate)))


class Polite:
    """A process that measures for `seconds`; `result` waits for it."""

    def __init__(self, door: Door, seconds: float, rate: float, core: int) -> None:
        self._reader, writer = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(target=_run, args=(door, seconds, rate, core, writer), daemon=True)
        self._process.start()
        writer.close()

    def result(self) -> Observations:
        """What it has seen; raises EOFError where it died."""
        try:
            observations: Observations = self._reader.recv()
        finally:
            self._process.join()
        return observations


def first_request(door: Door) -> float | None:
    """Seconds that one request over a new connection takes now, or None if it fails."""
    began = time.monotonic()
    try:
        uvloop.run(_ask_anew(door))
    except (OSError, EOFError, ValueError, TimeoutError):
        return None
    return time.monotonic() - began


def _run(door: Door, seconds: float, rate: float, core: int, writer: Connection) -> None:
    os.sched_setaffinity(0, {core})
    writer.send(uvloop.run(_measure(door, seconds, rate)))


async def _measure(door: Door, seconds: float, rate: float) -> Observations:
    seen = Observations()
    idle: list[_Connection] = []
    begin = time.monotonic() + 0.1
    moments = schedule(begin, seconds, 2 * rate)
    async with asyncio.TaskGroup() as requests:
        for due, anew in zip(moments, cycle((False, True)), strict=False):
            await asyncio.sleep(due - time.monotonic())
            requests.create_task(_count(_ask_anew(door) if anew else _ask_kept(door, idle), due, seen))
    for _, writer in idle:
        writer.close()
    return seen


async def _count(exchange: Awaitable[None], due: float, seen: Observations) -> None:
    try:
        await exchange
    except (OSError, EOFError, ValueError, TimeoutError) as error:
        seen.errors.append(f"{error!r} after {time.monotonic() - due:.2f} s")
    else:
        seen.waits.append(time.monotonic() - due)


async def _ask_kept(door: Door, idle: list[_Connection]) -> None:
    """Ask over a connection that is idle, or over a new one where all wait for answers, and keep it."""
    connection = idle.pop() if idle else await _connect(door)
    try:
        await _ask(connection, door, keep=True)
    except BaseException:
        connection[1].close()
        raise
    idle.append(connection)


async def _ask_anew(door: Door) -> None:
    connection = await _connect(door)
    try:
        await _ask(connection, door, keep=False)
    finally:
        connection[1].close()


async def _connect(door: Door) -> _Connection:
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        return await asyncio.open_connection(
            *door.address,
            ssl=door.tls,
            server_hostname="localhost" if door.tls else None,
            local_addr=(door.source, 0) if door.source else None,
        )


async def _ask(connection: _Connection, door: Door, *, keep: bool) -> None:
    """One exchange; raises ValueError for any status but 200."""
    reader, writer = connection
    close = "" if keep else "Connection: close\r\n"
    writer.write(f"GET {door.path} HTTP/1.1\r\nHost: a\r\n{close}\r\n".encode())
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if head.split(b" ", 2)[1] != b"200":
            raise ValueError(head.split(b"\r\n", 1)[0].decode())
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
