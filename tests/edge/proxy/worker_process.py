"""A worker process, with a test in its supervisor's place."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from edgeproxy.config.edge.load import dump_settings
from edgeproxy.edge import messages
from edgeproxy.edge.channel import Channel, ChannelClosedError
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.messages import Alive, Start, ToSupervisor, ToWorker
from edgeproxy.edge.supervisor.process import WORKER_COMMAND
from loadtest.testbed import process
from tests.support.transcript import Edge
from tests.support.wire import Wire


class Process:
    """A worker and its supervisor's end of the channel."""

    def __init__(self, edge: Edge) -> None:
        self.settings = edge.settings()
        self.state = Path(self.settings.state)
        self.supervisor = Store.prepare(self.state, workers=1, customers=1000, addresses=1000)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = self.listening.getsockname()
        self._mine, theirs = socket.socketpair()
        self._memory_end, memory_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        passed = [each.fileno() for each in (theirs, memory_end, self.listening)]
        pairs = zip(("--channel", "--memory", "--listen"), map(str, passed), strict=True)
        command = [*WORKER_COMMAND, *chain.from_iterable(pairs)]
        self.process = process.Process(command, self.state.parent / f"worker-{self.address[1]}.log", keep=passed)
        theirs.close()
        memory_end.close()
        self.channel: Channel[ToWorker, ToSupervisor]

    async def begins(self, orphan_deadline: float = 60.0, *told: ToWorker) -> ToSupervisor:
        """Configure it, and tell it this right after; returns its first message."""
        await self.is_configured(orphan_deadline)
        for message in told:
            await self.channel.send(message)
        return await self.hears()

    async def is_configured(self, orphan_deadline: float = 60.0) -> None:
        """Tell it what to serve."""
        self.channel = await Channel.from_socket(self._mine, messages.SUPERVISOR, self._memory_end)
        await self.channel.send(
            Start(
                1,
                settings=dump_settings(self.settings),
                state=str(self.state),
                tables_dir=None,
                token=TOKEN,
                orphan_deadline=orphan_deadline,
            )
        )

    async def hears(self) -> ToSupervisor:
        """Return its next message. Signs of life are skipped."""
        async with asyncio.timeout(30):
            while isinstance(message := await self.channel.receive(), Alive):
                pass
        return message

    async def hangs_up(self) -> None:
        """It has nothing more to say, and closes the channel."""
        with pytest.raises(ChannelClosedError):
            await self.hears()

    async def asks(self, request: bytes) -> int:
        """The status of its answer to a request over a connection of its own."""
        end = socket.socket()
        end.setblocking(False)
        await asyncio.get_running_loop().sock_connect(end, self.address)
        wire = Wire(end)
        await wire.sends(request)
        status = (await wire.gets_answer()).status
        wire.closes()
        return status

    def ends(self) -> tuple[int, str]:
        """Wait for its end. Return the exit code and the output."""
        return self.process.wait(20.0), self.process.output

    def close(self) -> None:
        if self.process.running:
            self.process.wait_after(signal.SIGKILL, 20.0)
        self._mine.close()
        self._memory_end.close()
        self.listening.close()
        self.supervisor.close()


TOKEN = 7


def lived(edge: Edge) -> Iterator[Process]:
    """A worker with the configuration of this edge, until the test is over."""
    process = Process(edge)
    yield process
    process.close()
    edge.upstream.listening.close()
