"""A process that a Crew can start in a worker's place: it speaks the channel, and behaves as its config says.

`python stand_in.py --channel FD --listen FD,FD`. The config message's `behaviour`, by place of start:

- `serves` answers every connection with a report of itself, says that it lives, and leaves when told to drain;
- `deaf` serves, but does not hear of drains;
- `fails` says why it cannot start, `crowded` that others have all columns; `dies` says nothing; `mute` lives on but
  never gets ready;
- `late` serves once it is told to `go`, not before, and leaves when told to drain;
- `hangs up` is ready, then closes its channel and lives on; `babbles` sends what no channel carries.

It takes on each configuration that it is told to `prepare`, unless that message names its pid: those in `refuse` do
not want it, those in `ignore` say nothing, and those in `die` end.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from typing import Any

from edgeproxy.channel import Channel, ChannelClosed
from edgeproxy.tasks import Tasks

BEAT = 0.02
"""Seconds between two words that it lives."""

TOLD: list[dict[str, Any]] = []
"""The messages that came down the channel after the configuration."""

PREPARED: set[int | None] = set()
SERVED: list[int] = []
"""The numbers of the configurations that it served, one after another."""


def report() -> bytes:
    """What this process is, as JSON: its pid, its session, the descriptors that it was started with, what it heard."""
    known = {"pid": os.getpid(), "session": os.getsid(0), "inherited": INHERITED, "told": TOLD, "served": SERVED}
    body = json.dumps(known).encode()
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(report())
    await writer.drain()
    writer.close()


async def beat(channel: Channel) -> None:
    try:
        while True:
            await channel.send({"type": "alive"})
            await asyncio.sleep(BEAT)
    except ChannelClosed:
        pass


async def hear(channel: Channel) -> str:
    """Do what the next message says; its type."""
    message = await channel.receive()
    TOLD.append(message)
    kind, number, pid = str(message["type"]), message.get("number"), os.getpid()
    if kind == "prepare":
        if pid in message.get("die", ()):
            os._exit(9)
        if pid in message.get("refuse", ()):
            await channel.send({"type": "refused", "number": number, "why": "no row is left"})
        elif pid not in message.get("ignore", ()):
            PREPARED.add(number)
            await channel.send({"type": "prepared", "number": number})
    elif kind == "commit" and number in PREPARED:
        SERVED.append(number)
        await channel.send({"type": "committed", "number": number})
    return kind


async def live(end: socket.socket, listening: list[socket.socket]) -> int:
    channel = await Channel.over(end)
    config = await channel.receive()
    behaviour = config["behaviour"]
    if behaviour == "dies":
        return 3
    if behaviour in ("fails", "crowded"):
        crowded = {"crowded": True} if behaviour == "crowded" else {}
        await channel.send({"type": "failed", "why": "no free column in /state", **crowded})
        return 1
    if behaviour == "babbles":
        end.send(b"\x00\x00\x00\x03{}}")
    if behaviour == "mute":
        await asyncio.Event().wait()
    SERVED.append(config.get("number", 1))
    while behaviour == "late" and (kind := await hear(channel)) != "go":
        if kind == "drain":
            return 0
    servers = [await asyncio.start_server(answer, sock=each) for each in listening]
    await channel.send({"type": "ready", "column": 0})
    Tasks().start("beat", beat(channel))
    if behaviour == "hangs up":
        channel.close()
        await asyncio.Event().wait()
    try:
        while True:
            if await hear(channel) == "drain" and behaviour != "deaf":
                break
    except ChannelClosed:
        return 0
    for server in servers:
        server.close()
    await channel.send({"type": "left"})
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
