"""A process that Workers can start in a worker's place: it speaks the channel, and does as it is told at its start.

`python stand_in.py --channel FD --listen FD,FD`. What it does is said by the settings that it starts with:

- `serves` answers every connection with a report of itself, says that it lives, and leaves when told to drain;
- `deaf` serves, but does not hear of drains;
- `fails` says why it cannot start, `crowded` that others have all columns; `dies` says nothing; `mute` lives on but
  never gets ready;
- `late` serves once it is told to load certificates, not before, and leaves when told to drain;
- `hangs up` is ready, then closes its channel and lives on; `babbles` sends what no channel carries.

It takes on each configuration that it is told to prepare, unless the settings, in JSON, name its pid: those in `refuse`
do not want it, those in `ignore` say nothing, and those in `die` end.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from typing import Any

from msgspec import to_builtins

from edgeproxy import messages
from edgeproxy.channel import Channel, ChannelClosed
from edgeproxy.messages import (
    Alive,
    Commit,
    Committed,
    Drain,
    Failed,
    LoadCertificates,
    Prepare,
    Prepared,
    PrepareFailed,
    Ready,
    Start,
    ToSupervisor,
    ToWorker,
)
from edgeproxy.tasks import Tasks

BEAT = 0.02
"""Seconds between two words that it lives."""

WorkerEnd = Channel[ToSupervisor, ToWorker]

PID = os.getpid()

TOLD: list[dict[str, Any]] = []
"""The messages that came down the channel after the configuration."""

PREPARED: set[int] = set()
SERVED: list[int] = []
"""The numbers of the configurations that it served, one after another."""


def report() -> bytes:
    """What this process is, as JSON: its pid, its session, the descriptors that it was started with, what it heard."""
    known = {"pid": PID, "session": os.getsid(0), "inherited": INHERITED, "told": TOLD, "served": SERVED}
    body = json.dumps(known).encode()
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(report())
    await writer.drain()
    writer.close()


async def beat(channel: WorkerEnd) -> None:
    try:
        while True:
            await channel.send(Alive())
            await asyncio.sleep(BEAT)
    except ChannelClosed:
        pass


async def hear(channel: WorkerEnd) -> ToWorker:
    """Do what the next message says; the message."""
    message = await channel.receive()
    TOLD.append(to_builtins(message))
    if isinstance(message, Prepare):
        does = json.loads(message.settings) if message.settings.startswith(b"{") else {}
        if PID in does.get("die", ()):
            os._exit(9)
        if PID in does.get("refuse", ()):
            await channel.send(PrepareFailed(message.number, "no row is left"))
        elif PID not in does.get("ignore", ()):
            PREPARED.add(message.number)
            await channel.send(Prepared(message.number))
    elif isinstance(message, Commit) and message.number in PREPARED:
        SERVED.append(message.number)
        await channel.send(Committed(message.number))
    return message


async def live(end: socket.socket, listening: list[socket.socket]) -> int:
    channel = await Channel.over(end, messages.WORKER)
    start = await channel.receive()
    assert isinstance(start, Start)
    behaviour = start.settings.decode()
    if behaviour == "dies":
        return 3
    if behaviour in ("fails", "crowded"):
        await channel.send(Failed("no free column in /state", behaviour == "crowded"))
        return 1
    if behaviour == "babbles":
        end.send(b"\x00\x00\x00\x03{}}")
    if behaviour == "mute":
        await asyncio.Event().wait()
    SERVED.append(start.number)
    while behaviour == "late" and not isinstance(message := await hear(channel), LoadCertificates):
        if isinstance(message, Drain):
            return 0
    servers = [await asyncio.start_server(answer, sock=each) for each in listening]
    await channel.send(Ready(0))
    Tasks().start("beat", beat(channel))
    if behaviour == "hangs up":
        channel.close()
        await asyncio.Event().wait()
    try:
        while not isinstance(await hear(channel), Drain) or behaviour == "deaf":
            pass
    except ChannelClosed:
        return 0
    for server in servers:
        server.close()
    return 0


if __name__ == "__main__":
    INHERITED = sorted(int(number) for number in os.listdir("/proc/self/fd") if int(number) > 2)
    INHERITED.pop()  # the listing's own
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parser = argparse.ArgumentParser()
    parser.add_argument("--channel", type=int)
    parser.add_argument("--listen")
    options = parser.parse_args()
    sys.exit(
        asyncio.run(
            live(
                socket.socket(fileno=options.channel),
                [socket.socket(fileno=int(number)) for number in options.listen.split(",")],
            )
        )
    )
