"""A process that Workers can start instead of a worker. It speaks the channel's protocol and behaves as configured.

`python stand_in.py --channel FD --memory FD --listen FD,FD`. The settings of its start name its behaviour:

- `serves` answers every connection with a report about itself, sends heartbeats, and ends on a drain;
- `reports` serves, and sends used limits instead of heartbeats;
- `deaf` serves, but ignores drains;
- `fails` reports a failed start, `crowded` a start without a free column; `dies` ends without a message; `mute` lives
  but never becomes ready;
- `late` serves only after it was told to load certificates, and ends on a drain;
- `hangs up` becomes ready, then closes its channel and lives on; `babbles` sends an invalid message.

It answers challenges, unless their tokens have its pid with a reason.
It prepares each configuration, unless the settings, in JSON, list its pid: pids in `refuse` refuse it, pids in `ignore`
do not answer, and pids in `die` end.

Tests start many of these processes, so to start fast it imports only the encoding of messages. A message is a mapping.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from typing import Any

from msgspec import msgpack

from edgeproxy.edge.channel import Channel, ChannelClosedError, Codec

BEAT = 0.02
"""Seconds between two heartbeats."""

Said = dict[str, Any]
WorkerEnd = Channel[Said, Said]

PID = os.getpid()

TOLD: list[Said] = []
"""The messages received after the configuration."""

PREPARED: set[int] = set()
SERVED: list[int] = []
"""The numbers of the served configurations, in order."""


def report() -> bytes:
    """Describe this process as JSON: its pid, its session, its inherited descriptors, and the received messages."""
    known = {"pid": PID, "session": os.getsid(0), "inherited": INHERITED, "told": TOLD, "served": SERVED}
    body = json.dumps(known, default=bytes.decode).encode()
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(report())
    await writer.drain()
    writer.close()


async def beat(channel: WorkerEnd, message: Said) -> None:
    try:
        while True:
            await channel.send(message)
            await asyncio.sleep(BEAT)
    except ChannelClosedError:
        pass


async def hear(channel: WorkerEnd) -> str:
    """Handle the next message. Return its type."""
    message = await channel.receive()
    TOLD.append(message)
    kind, number = message["type"], message.get("number")
    if kind == "Prepare":
        settings = message["settings"]
        does = json.loads(settings) if settings.startswith(b"{") else {}
        if PID in does.get("die", ()):
            os._exit(9)
        if PID in does.get("refuse", ()):
            await channel.send({"type": "PrepareFailed", "number": number, "why": "no row is left"})
        elif PID not in does.get("ignore", ()):
            PREPARED.add(number)
            await channel.send({"type": "Prepared", "number": number})
    elif kind == "AcmeChallenges":
        await channel.send({"type": "ChallengesServed", "number": number, "why": message["tokens"].get(str(PID), "")})
    elif kind == "Commit" and number in PREPARED:
        SERVED.append(number)
        await channel.send({"type": "Committed", "number": number})
    return kind


async def live(end: socket.socket, listening: list[socket.socket]) -> int:
    channel: WorkerEnd = await Channel.from_socket(end, Codec(msgpack.encode, msgpack.decode))
    start = await channel.receive()
    behaviour = start["settings"].decode()
    if behaviour == "dies":
        return 3
    if behaviour in ("fails", "crowded"):
        crowded = behaviour == "crowded"
        await channel.send({"type": "Failed", "why": "no free column in /state", "crowded": crowded})
        return 1
    if behaviour == "babbles":
        end.send(b"\x00\x00\x00\x03{}}")
    if behaviour == "mute":
        await asyncio.Event().wait()
    SERVED.append(start["number"])
    while behaviour == "late" and (kind := await hear(channel)) != "LoadCertificates":
        if kind == "Drain":
            return 0
    servers = [await asyncio.start_server(answer, sock=each) for each in listening]
    await channel.send({"type": "Ready", "column": 0})
    sign = {"type": "uses", "rates": [], "totals": []} if behaviour == "reports" else {"type": "Alive"}
    beating = asyncio.ensure_future(beat(channel, sign))  # noqa: TID251, it ends with the process
    if behaviour == "hangs up":
        channel.close()
        await asyncio.Event().wait()
    try:
        while await hear(channel) != "Drain" or behaviour == "deaf":
            pass
    except ChannelClosedError:
        return 0
    beating.cancel()
    for server in servers:
        server.close()
    return 0


if __name__ == "__main__":
    INHERITED = sorted(int(number) for number in os.listdir("/proc/self/fd") if int(number) > 2)
    INHERITED.pop()  # the listing's own
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _, channel, _, _, _, listen = sys.argv[1:]
    sockets = [socket.socket(fileno=int(number)) for number in listen.split(",")]
    sys.exit(asyncio.run(live(socket.socket(fileno=int(channel)), sockets)))
