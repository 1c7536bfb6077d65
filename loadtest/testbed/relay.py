"""A relay between an edge and its collector that loses, duplicates, delays and cuts requests and answers."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping

from loadtest.testbed.load_clients import content_length
from loadtest.testbed.ports import HOST
from loadtest.testbed.threaded_server import Threaded

CALM = {"arrives": 1}
STORMY = {
    "arrives": 16,
    "lost": 3,
    "answer lost": 5,
    "twice": 4,
    "again later": 4,
    "held up": 2,
    "busy": 1,
    "no database": 1,
    "answer cut": 1,
    "somebody else answers": 1,
}
"""The possible fates of a request, with their weights."""
DOWN = {"lost": 1}
HELD_UP = 0.2
"""Seconds of a delay."""
SHORT = b"Content-Length: 0\r\nConnection: close\r\n\r\n"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n" + SHORT
NO_DATABASE = b"HTTP/1.1 503 Service Unavailable\r\n" + SHORT
SOMEBODY_ELSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html>Welcome"


class Relay(Threaded):
    """The relay's thread, from `with` to its end. `fates` holds the weights of fates and may change at any time."""

    def __init__(self, target: int, seed: object = 0) -> None:
        """`target` is the collector's port."""
        super().__init__("relay")
        self.port = 0
        self.fates: Mapping[str, int] = CALM
        self.met: Counter[str] = Counter()
        """The number of times that each fate occurred."""
        self._target = target
        self._chance = random.Random(f"{seed} relay")
        self._later: list[bytes] = []

    def late(self) -> int:
        """Send the stored requests again, whatever their first fate was. Returns their number."""
        return asyncio.run_coroutine_threadsafe(self._late(), self._loop).result(60)

    async def _late(self) -> int:
        kept, self._later = self._later, []
        self._chance.shuffle(kept)
        for request in kept:
            await self._forwarded(request)
        return len(kept)

    async def _begin(self) -> None:
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                request = head + await reader.readexactly(content_length(head[:-2]))
                answer = await self._answer(request)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if b"connection: close" in answer.lower():
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, request: bytes) -> bytes | None:
        """Return the answer, or None for none. `Connection: close` in it ends the connection."""
        fates = self.fates
        fate = self._chance.choices(list(fates), list(fates.values()))[0]
        self.met[fate] += 1
        if fate == "lost":
            return None
        if fate == "busy":
            return BUSY
        if fate == "no database":
            return NO_DATABASE
        if fate == "somebody else answers":
            return SOMEBODY_ELSE
        answer = await self._forwarded(request)
        if fate == "twice":
            answer = await self._forwarded(request)
        if fate == "again later":
            self._later.append(request)
        if fate == "held up":
            await asyncio.sleep(HELD_UP)
        if fate == "answer lost" or answer is None:
            return None
        if fate == "answer cut":
            # The rest of the answer looks complete.
            head, _, body = answer.partition(b"\r\n\r\n")
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
            half = body[: len(body) // 2]
            return b"\r\n".join([*lines, b"Content-Length: %d" % len(half), b"Connection: close", b"", half])
        return answer

    async def _forwarded(self, request: bytes) -> bytes | None:
        """Return the collector's answer, or None."""
        try:
            reader, writer = await asyncio.open_connection(HOST, self._target)
        except OSError:
            return None
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            return head + await reader.readexactly(content_length(head[:-2]))
        except (OSError, asyncio.IncompleteReadError):
            return None
        finally:
            writer.transport.abort()
