"""Fake Redis servers: the test decides the answer to each command."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import hiredis

from edgeproxy.hub import calls
from edgeproxy.hub.functions import LIBRARY

Answers = Callable[[list[bytes]], bytes | None]
"""Returns the answer to a command, given its words; None for Redis's own answer."""
NAMES = {LIBRARY.functions[name].encode(): name.encode() for name in calls.SCRIPTS}
"""The scripts by the names of their functions."""


def clock(now: float | None = None) -> bytes:
    """Return the hub's clock as the end of an answer, two of its elements."""
    seconds, rest = divmod(int((time.time() if now is None else now) * 1e6), 1_000_000)
    return bulk(b"%d" % seconds) + bulk(b"%d" % rest)


def bulk(text: bytes) -> bytes:
    """Return a string as part of an answer."""
    return b"$%d\r\n%b\r\n" % (len(text), text)


def well(command: list[bytes]) -> bytes:
    """Return the answer of a healthy Redis: a hub of one host, without counts."""
    name = b" ".join(command[:2]).upper()
    if name.startswith(b"HELLO"):
        return b"%1\r\n" + bulk(b"proto") + b":3\r\n"
    if name == b"FUNCTION LOAD":
        return bulk(LIBRARY.name.encode())
    if name.startswith(b"FCALL"):
        script = NAMES[command[1]].decode()
        edge_time = bulk(command[8]) if script == calls.RATE else b""
        said = {
            calls.HEARTBEAT: b"*4\r\n:1\r\n:0\r\n",
            calls.RATE: b"*9\r\n:1\r\n:1\r\n:0\r\n*0\r\n*0\r\n" + bulk(b"0") + edge_time,
            calls.PERIOD: b"*3\r\n:0\r\n",
            calls.GAUGE: b"*4\r\n:0\r\n:1\r\n",
        }[script]
        return said + clock()
    return b"+OK\r\n"


@asynccontextmanager
async def fake(answers: Answers) -> AsyncIterator[str]:
    """Run such a server; yield its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        try:
            while data := await reader.read(65536):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    said = answers(command)
                    writer.write(well(command) if said is None else said)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()


def to(script: str, said: bytes) -> Answers:
    """Return answers with a special answer for this script only."""
    return lambda command: said if NAMES.get(command[1]) == script.encode() else None
