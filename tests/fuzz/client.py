"""The client of a conversation: perform its steps on a real connection, and record the bytes sent and received."""

import asyncio
import socket
import struct
from collections.abc import Callable

from loadtest.testbed.ports import HOST
from tests.fuzz.conversation import (
    AwaitAnswers,
    AwaitGo,
    AwaitSwitch,
    Finish,
    Leave,
    Pause,
    Send,
    Step,
    StopReading,
)
from tests.fuzz.record import TIMEOUT, Talk

READ = 1 << 18
RESET = struct.pack("ii", 1, 0)
DEADLINE = 5.0 * TIMEOUT
"""Seconds that a conversation may take."""


class Client:
    """One client's connection, from connect to close."""

    def __init__(self, talk: Talk, port: int) -> None:
        self._talk = talk
        self._port = port
        self._reads = asyncio.Event()
        self._reads.set()
        self._changed = asyncio.Condition()
        self._over = False

    async def run(self) -> None:
        """Run the whole conversation, for at most DEADLINE seconds."""
        talk = self._talk
        self._socket = end = socket.socket()
        try:
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if talk.conversation.kind == "slow to read":
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            end.bind((talk.address, 0))
            async with asyncio.timeout(DEADLINE):
                await asyncio.get_running_loop().sock_connect(end, (HOST, self._port))
                async with asyncio.TaskGroup() as group:
                    reading = group.create_task(self._read())
                    await self._act()
                    if talk.ended == "left":
                        reading.cancel()
        except TimeoutError:
            talk.ended = "late"
            talk.event("client waits no longer")
        finally:
            if talk.ended == "left" and self._leaves_by_reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.close()

    _leaves_by_reset = False
    _was_reset = False
    """The kernel reports a reset once, to the first call. After a failed send, the next read sees an ordinary end.

    A reset after the end of the edge's side is reported as a broken pipe.
    """

    async def _read(self) -> None:
        talk = self._talk
        loop = asyncio.get_running_loop()
        while True:
            await self._reads.wait()
            try:
                data = await loop.sock_recv(self._socket, READ)
            except ConnectionError as error:
                talk.ended = "reset"
                talk.event(f"client gets {type(error).__name__}")
                break
            if not data:
                talk.ended = "reset" if self._was_reset else "eof"
                talk.event("client gets the end")
                break
            talk.got += data
            talk.event("client <-", data)
            async with self._changed:
                talk.look()
                self._changed.notify_all()
        async with self._changed:
            self._over = True
            self._changed.notify_all()

    async def _act(self) -> None:
        for step in self._talk.conversation.steps:
            if self._over or not await self._do(step):
                break
        if self._talk.ended != "left":
            self._finish()

    async def _do(self, step: Step) -> bool:
        """Perform one step. Return False if no step may follow."""
        talk = self._talk
        match step:
            case Send(data):
                return await self._send(data)
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case AwaitAnswers(-1):
                await self._until(lambda: not talk.awaited)
            case AwaitAnswers(count):
                await self._until(lambda: talk.answers >= count or talk.switched)
            case AwaitGo(count):
                await self._until(lambda: talk.answers > count or (talk.answers == count and talk.interims > 0))
                return talk.answers <= count
            case AwaitSwitch(count):
                await self._until(lambda: talk.answers > count)
                return talk.switched
            case StopReading(seconds):
                self._reads.clear()
                asyncio.get_running_loop().call_later(seconds, self._reads.set)
            case Finish():
                self._finish()
                return False
            case Leave(reset):
                talk.ended, self._leaves_by_reset = "left", reset
                talk.event("client resets" if reset else "client closes")
                return False
        return True

    async def _send(self, data: bytes) -> bool:
        talk = self._talk
        talk.sent += data
        talk.event("client ->", data)
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except ConnectionError as error:
            self._was_reset = isinstance(error, ConnectionResetError)
            talk.event(f"client gets {type(error).__name__} as it sends")
            return False
        async with self._changed:
            talk.look()
        return True

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._over or condition())

    def _finish(self) -> None:
        if self._talk.finished:
            return
        self._talk.finished = True
        try:
            self._socket.shutdown(socket.SHUT_WR)
            self._talk.event("client ends its side")
        except OSError:
            pass
