"""Shipping of one spool to the collector: the sender, its connection and its certificates."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import ParamSpec, TypeVar

from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.tasks import Tasks, run_in_thread
from edgeproxy.base.trust import TlsFiles, TlsFilesError
from edgeproxy.config.edge.usage import Usage
from edgeproxy.edge.usage.ship import Reply, Shipper, ShippingStatus
from edgeproxy.edge.usage.spool import Spool
from edgeproxy.edge.usage.transport import HttpTransport
from edgeproxy.wire import edge_report
from edgeproxy.wire.batch import Batch
from edgeproxy.wire.key_uses import KeysUsed

DIED = "shipping died; the log says more"


P = ParamSpec("P")
T = TypeVar("T")


class Shipping:
    """Ships one spool to the collector of `usage`, from construction to `end`. Lives in one event loop."""

    def __init__(
        self,
        spool: Spool,
        usage: Usage,
        keys: KeysUsed,
        sync_age: Callable[[], float | None] = lambda: None,
        residency: str | None = None,
    ) -> None:
        """Start to ship.

        `sync_age` returns the seconds since this edge agreed with the hub on limits; None if it shares none.
        `residency` is the chain's; the collector must belong to it. None if none is configured.
        """
        self.usage = usage
        self._residency = residency
        self._keys = keys
        self._sync_age = sync_age
        self._http: HttpTransport | None = None
        self._renewed = False
        """True if the certificates must be loaded again."""
        self._shipper = Shipper(spool, self._send, aside=_run_in_thread)
        self._tasks = Tasks()
        self._running = self._tasks.start("ship", self._shipper.run())
        self._died: float | None = None

    @property
    def status(self) -> ShippingStatus:
        """The status of shipping."""
        status = self._shipper.status
        if not self._running.done():
            return status
        # The first reader notices the end. Later ones report the same time.
        self._died = self._died or time.time()
        return status._replace(state="stopped", why=DIED, since=self._died)

    def sealed(self) -> None:
        """Wake the sender, because there is a new batch."""
        self._shipper.wake()

    def renew(self) -> None:
        """Ship the next batch over a new connection, because certificates have changed."""
        self._renewed = True

    async def finish(self, seconds: float) -> bool:
        """Ship for at most `seconds`, and return whether all batches have arrived."""
        return not self._running.done() and await self._shipper.finish(seconds)

    async def end(self) -> None:
        """Stop shipping."""
        await self._tasks.cancel()
        await self._hang_up()

    async def send_report(self, edge: str, path: str, report: JsonObject) -> Reply:
        """Send a report over the connection of the batches. Raises OSError, also if there is no connection yet."""
        if self._http is None:
            raise OSError("there is no connection to the collector")
        return await self._http.send_report(edge, path, report)

    async def _send(self, batch: Batch, body: bytes) -> Reply:
        # Here and not in `renew`, so that no batch under way loses its connection.
        if self._renewed:
            self._renewed = False
            await self._hang_up()
        if self._http is None:
            self._http = await self._connect()
        fields = self._keys.format_fields()
        reply = await self._http(
            batch, body, {**edge_report.format_fields(self._sync_age(), self._residency), **fields}
        )
        # Until the collector has confirmed them, the keys are sent with each batch.
        if fields and reply.status == HTTPStatus.OK:
            self._keys.acknowledge()
        return reply

    async def _connect(self) -> HttpTransport:
        """Create a connection. Raises OSError if the certificates cannot be loaded; the sender then tries again."""
        usage = self.usage
        files = TlsFiles.from_settings(usage.tls)
        if usage.collector.startswith("https://"):
            try:
                await run_in_thread("load certificates for shipping", files.create_context)
            except TlsFilesError as error:
                raise OSError(f"its certificates cannot be loaded: {error}") from error
        return HttpTransport(usage.collector, usage.token or "", tls=files, server_name=usage.tls.server_name)

    async def _hang_up(self) -> None:
        if self._http is not None:
            http, self._http = self._http, None
            await http.close()


def _run_in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """Run this in a thread that the end of the process does not wait for, because the disk may never answer."""
    return run_in_thread("ship", partial(work, *args, **kwargs))
