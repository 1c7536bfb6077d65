"""An address that leads to one of several servers, as a floating IP or a Service does."""

import asyncio
from contextlib import closing

from edgeproxy.base.tasks import Tasks
from loadtest.testbed.ports import HOST
from loadtest.testbed.threaded_server import Threaded


class MovableAddress(Threaded):
    """The thread, from `with` to its end. Connections stay with the server to which they were made."""

    def __init__(self, target: int) -> None:
        super().__init__("address")
        self.port = 0
        self.target = target
        """The port of the server to which new connections lead."""
        self.connections: list[int] = []
        """The targets of all connections so far."""

    async def _begin(self) -> None:
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(self.target)
        with closing(writer):
            try:
                their_reader, their_writer = await asyncio.open_connection(HOST, self.target)
                with closing(their_writer):
                    tasks = Tasks()
                    copies = [
                        tasks.start("address", _copy(*pair))
                        for pair in ((reader, their_writer), (their_reader, writer))
                    ]
                    await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
                    await tasks.cancel()
            except OSError:
                pass


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
