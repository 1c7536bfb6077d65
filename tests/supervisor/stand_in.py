"""A process that a Crew can start in a worker's place: it speaks the channel, and behaves as its config says.

`python stand_in.py --channel FD --listen FD,FD`. The config message's `behaviour`, by place of start:

- `serves` answers every connection with a report of itself, and leaves when told to drain;
- `deaf` serves, but does not hear of drains;
- `fails` says why it cannot start; `dies` says nothing; `mute` lives on but never gets ready;
- `hangs up` is ready, then closes its channel and lives on; `babbles` sends what no channel carries.
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

TOLD: list[dict[str, Any]] = []
"""The messages that came down the channel after the configuration."""


def report() -> bytes:
    """What this process is, as JSON: its pid, its session, the descriptors that it was started with, what it heard."""
    known = {"pid": os.getpid(), "session": os.getsid(0), "inherited": INHERITED, "told": TOLD}
    body = json.dumps(known).encode()
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(report())
    await writer.drain()
    writer.close()


async def live(end: socket.socket, listening: list[socket.socket]) -> int:
    channel = await Channel.over(end)
    config = await channel.receive()
    behaviour = config["behaviour"]
    if behaviour == "dies":
        return 3
    if behaviour == "fails":
        await channel.send({"type": "failed", "why": "no free column in /state"})
        return 1
    if behaviour == "babbles":
        end.send(b"\x00\x00\x00\x03{}}")
    if behaviour == "mute":
        await asyncio.Event().wait()
    servers = [await asyncio.start_server(answer, sock=each) for each in listening]
    await channel.send({"type": "ready", "column": 0})
    if behaviour == "hangs up":
        channel.close()
        await asyncio.Event().wait()
    try:
        while True:
            TOLD.append(await channel.receive())
            if TOLD[-1]["type"] == "drain" and behaviour != "deaf":
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
