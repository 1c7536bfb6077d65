"""A minimal edge that only ships."""

import asyncio
import math
from pathlib import Path

from edgeproxy.edge.usage.ship import Shipper
from edgeproxy.edge.usage.spool import Spool
from edgeproxy.edge.usage.transport import HttpTransport
from edgeproxy.wire.batch import format_batch
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import EDGE, Collector
from loadtest.testbed.ports import HOST


class SpooledEdge:
    """The spool of an edge with its new batches, and its shipping."""

    def __init__(self, folder: Path) -> None:
        self.chain = Chain()
        self._spool = Spool.open(folder / self.chain.edge)

    def seal(self, batches: int) -> None:
        for _ in range(batches):
            batch = self.chain.next()
            self._spool.append(batch, format_batch(batch), ())

    def ship(self, collector: Collector) -> dict[str, int]:
        """Ship until the spool is empty; return how often each answer occurred."""

        async def ship() -> dict[str, int]:
            send = HttpTransport(f"http://{HOST}:{collector.port}", EDGE)
            try:
                shipper = Shipper(self._spool, send)
                seconds = 0.0
                while seconds != math.inf:
                    await asyncio.sleep(seconds)
                    seconds = await shipper.step()
                assert shipper.status.state == "idle", shipper.status
                return shipper.status.results
            finally:
                await send.close()

        return asyncio.run(ship())

    def close(self) -> None:
        self._spool.close()
