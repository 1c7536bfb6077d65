"""The admin listener: for probes, Prometheus, operators and the command line, never for clients."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from edgeproxy import log
from edgeproxy.config.parsers import Address
from edgeproxy.counters.file import TableError
from edgeproxy.directory.cache import Error
from edgeproxy.http1.message import problem
from edgeproxy.supervisor import sockets
from edgeproxy.supervisor.exposition import CONTENT_TYPE, exposition
from edgeproxy.supervisor.limit_report import Unserved
from edgeproxy.supervisor.reload import Reloads
from edgeproxy.supervisor.status import Status
from edgeproxy.supervisor.table_reader import TableReader

READY_TIMEOUT = 2.0
"""Seconds that a client has to take its answer once the supervisor ends."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """One supervisor's admin listener. Bound when made (raises sockets.Unavailable) and open after `open`."""

    def __init__(self, address: Address) -> None:
        self.shared = sockets.listened_on(address)
        """Whether another supervisor answers on this address; this one should then wait until it serves."""
        self._socket = sockets.bind(address)
        self._runner: web.AppRunner | None = None
        self._site: web.SockSite | None = None

    @property
    def address(self) -> Address:
        """Where it listens, or will."""
        return sockets.address_of(self._socket)

    async def open(self, status: Status, table_reader: TableReader, reloads: Reloads) -> None:
        """Answer from here on; nothing happens where it does so already."""
        if self._runner is not None:
            return
        made = application(status, table_reader, reloads)
        self._runner = web.AppRunner(made, access_log=None, shutdown_timeout=READY_TIMEOUT)
        await self._runner.setup()
        self._site = web.SockSite(self._runner, self._socket)
        await self._site.start()

    async def step_back(self) -> None:
        """Take no further connection; another supervisor listens on the same address."""
        if self._site is not None:
            await self._site.stop()
            self._site = None

    async def close(self) -> None:
        """Answer what is being asked, then end."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._socket.close()


def application(status: Status, table_reader: TableReader, reloads: Reloads) -> web.Application:
    """The answers of the admin listener (docs/design/contract.md#admin-listener)."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        why = status.unready()
        return _json({"ready": why is None, "reason": why}, status=200 if why is None else 503)

    async def metrics(_: web.Request) -> web.Response:
        series = await status.series()
        # In a thread, for the event loop's sake: thousands of label values take a tenth of a second.
        text = await asyncio.to_thread(exposition, series)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def report(_: web.Request) -> web.Response:
        return _json(await status.report())

    async def usage(_: web.Request) -> web.Response:
        return _json({"rows": await table_reader.usage()})

    async def limits(request: web.Request) -> web.Response:
        name = request.match_info["customer"]
        try:
            customer = await status.known(name)
            if customer is None:
                return _problem(404, f"no customer is called {name!r} here")
            policies = await table_reader.limits(status.settings, customer)
        except Unserved as why:
            return _problem(404, str(why))
        except Error as why:
            return _problem(503, f"the directory on this host's disk cannot be read: {why}")
        except ValueError:
            return _problem(404, f"this version of edgeproxy does not understand what the directory says of {name!r}")
        return _json({"policies": policies})

    async def reload(_: web.Request) -> web.Response:
        if status.phase == "draining":
            return _problem(503, "the edge is draining")
        # It goes on, and others may wait for it too, whatever becomes of this request.
        outcome = await asyncio.shield(reloads.ask())
        if outcome.well:
            return _json({"result": outcome.result, "needs_restart": outcome.needs_restart})
        return _json({"result": outcome.result, "errors": outcome.errors}, status=422)

    made = web.Application(middlewares=[_problems])
    made.router.add_get("/healthz", healthz)
    made.router.add_get("/readyz", readyz)
    made.router.add_get("/metrics", metrics)
    made.router.add_get("/status", report)
    made.router.add_get("/usage", usage)
    made.router.add_get("/limits/{customer}", limits)
    made.router.add_post("/reload", reload)
    return made


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as problem+json (RFC 9457)."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return _problem(error.status, WHY.get(error.status, error.reason), headers)
    except TableError as error:
        return _problem(500, str(error))
    except Exception as error:
        log.get().error("admin request failed", path=request.path, exc_info=error)
        return _problem(500, "the supervisor failed to answer; its log says more")


WHY = {
    404: "there are /healthz, /readyz, /metrics, /status, /usage, /limits/CUSTOMER and /reload here",
    405: "the method is not one that this path knows",
}


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=problem(status, detail, str(uuid.uuid4()).encode()),
        headers={"Content-Type": "application/problem+json", **(headers or {})},
    )


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
