"""Another worker on the state directory of the stage."""

import asyncio
import socket

from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.proxy.exchange.snapshot import Snapshot
from edgeproxy.edge.proxy.process.worker import Worker
from tests.support.transcript import Edge, draft
from tests.support.wire import PATIENCE, Wire


class Second:
    """A second worker of an edge, on the address of its socket."""

    def __init__(self, edge: Edge) -> None:
        self._settings = settings = edge.settings()
        self._store = Store.join(settings.state)
        self.worker = Worker(self._store)
        self.worker.runtime.serve_snapshot(Snapshot(draft(settings), self._store, self.worker.runtime.metrics))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = self._listening.getsockname()

    async def starts(self) -> None:
        await self.worker.listen([self._listening], self._settings.listen, [None])

    async def client(self) -> Wire:
        end = socket.socket()
        end.setblocking(False)
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(end, self.address)
        return Wire(end)

    async def ends(self) -> None:
        await self.worker.drain(PATIENCE)
        self.worker.runtime.deadlines.stop()
        self.worker.runtime.overload.stop()
        self._store.close()
