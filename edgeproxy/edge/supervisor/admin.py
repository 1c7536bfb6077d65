"""The admin listener: for probes, Prometheus, operators and the command line, never for clients."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from edgeproxy.base import log
from edgeproxy.base.admin_socket import NAME, AdminSocket, has_listener
from edgeproxy.base.web_listener import PEER, Bounds, WebListener, add_response_fields
from edgeproxy.config.addresses import Address
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.edge.counters.file import TableError
from edgeproxy.edge.directory.cache import CacheError
from edgeproxy.edge.http1.message import format_problem
from edgeproxy.edge.problem_codes import ADMIN_NOT_FOUND
from edgeproxy.edge.supervisor import sockets
from edgeproxy.edge.supervisor.admin_access import AdminRefusedError, AdminRequest, identify_caller
from edgeproxy.edge.supervisor.exposition import render_metrics
from edgeproxy.edge.supervisor.limit_report import UnservedCustomerError
from edgeproxy.edge.supervisor.reload import Reloads
from edgeproxy.edge.supervisor.status import Status
from edgeproxy.edge.supervisor.table_reader import TableReader

READY_TIMEOUT = 2.0
"""Seconds that a client has to read its answer once the supervisor ends."""
CONNECTIONS = Bounds(all=200, per_address=100)
READING = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing (RFC 9110 section 9.2.1)."""
LOG_QUIET_SECONDS = 60.0
"""Seconds between two equal log lines."""
PATH_CHARACTERS_SHOWN = 100
CALLER = web.RequestKey("caller", str)
"""The caller of a request: the name of a token, `local`, or `uid N` at the socket."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """The admin listener of one supervisor: a socket in its state directory, and an address if one is configured.

    The address is bound by the constructor, which raises sockets.AddressUnavailableError.
    """

    def __init__(self, settings: EdgeSettings) -> None:
        self._state = settings.state
        address = settings.admin.address
        self._shared = address is not None and sockets.is_listened_on(address)
        """True if another supervisor answers at the address. Then this one answers once it serves."""
        self._bound = None if address is None else sockets.bind(address)
        self._socket: AdminSocket | None = None
        self._listener = WebListener(CONNECTIONS)
        self._runner: web.AppRunner | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._log = log.RateLimitedLog(LOG_QUIET_SECONDS)

    @property
    def address(self) -> Address | None:
        """The configured address, beside the socket."""
        return None if self._bound is None else sockets.get_address(self._bound)

    async def open(self, status: Status, table_reader: TableReader, reloads: Reloads) -> None:
        """Answer from now on, unless another supervisor does."""
        made = create_application(status, table_reader, reloads, self._listener)
        self._runner = web.AppRunner(made, access_log=None, shutdown_timeout=READY_TIMEOUT)
        await self._runner.setup()
        if not self._shared:
            self._listen()
        if not has_listener(self._state):
            self.take_socket()

    def serve(self) -> None:
        """Answer in place of any other supervisor."""
        self._listen()
        self.take_socket()

    def _listen(self) -> None:
        if self._bound is not None and self._accepting is None:
            assert self._runner is not None
            self._accepting = self._listener.accept(self._runner, self._bound)

    def take_socket(self) -> None:
        """Move the socket's path to this supervisor. Does nothing if it is already there."""
        before = self._socket
        if before is not None and before.is_published():
            return
        assert self._runner is not None
        try:
            made = AdminSocket(self._state)
            self._listener.accept(self._runner, made.socket)
            made.publish()
        except OSError as error:
            self._log.error("no admin socket", NAME, why=str(error))
            return
        self._socket = made
        if before is not None:
            before.close()

    async def stop_accepting(self) -> None:
        """Accept no further connection at the address if another supervisor listens too."""
        if self._bound is not None and self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
            self._bound.close()

    async def close(self) -> None:
        """Finish the open requests, then close."""
        await self._listener.end()
        if self._socket is not None:
            self._socket.close()
        if self._bound is not None:
            self._bound.close()
        if self._runner is not None:
            await self._runner.cleanup()


def create_application(
    status: Status, table_reader: TableReader, reloads: Reloads, listener: WebListener
) -> web.Application:
    """Create the application of the admin listener (docs/design/contract.md#admin-listener)."""
    authorization = Authorization(status)
    application = web.Application(middlewares=[listener.track_request, _render_problems, authorization.authorize])
    application.on_response_prepare.append(add_response_fields)
    endpoints = Endpoints(status, table_reader, reloads)
    application.router.add_get("/healthz", endpoints.get_liveness)
    application.router.add_get("/readyz", endpoints.get_readiness)
    application.router.add_get("/metrics", endpoints.get_metrics)
    application.router.add_get("/status", endpoints.get_status)
    application.router.add_get("/usage", endpoints.get_usage)
    application.router.add_get("/limits/{customer}", endpoints.get_limits)
    application.router.add_post("/reload", endpoints.reload)
    return application


class Endpoints:
    """The endpoints of the admin listener."""

    def __init__(self, status: Status, table_reader: TableReader, reloads: Reloads) -> None:
        self._status = status
        self._table_reader = table_reader
        self._reloads = reloads

    async def get_liveness(self, _: web.Request) -> web.Response:
        """Answer 200 while the event loop runs."""
        return web.Response(text="ok")

    async def get_readiness(self, _: web.Request) -> web.Response:
        """Answer 200, or 503 and the reason why the edge is not ready."""
        why = self._status.unready()
        return _json({"ready": why is None, "reason": why}, status=200 if why is None else 503)

    async def get_metrics(self, request: web.Request) -> web.Response:
        """Answer with all metrics in Prometheus' text format, or as OpenMetrics with exemplars."""
        series, exemplars = await self._status.series(), self._status.list_exemplars()
        # In a thread, because thousands of label values would block the event loop for a tenth of a second.
        accept = request.headers.get("Accept", "")
        text, content_type = await asyncio.to_thread(render_metrics, series, exemplars, accept)
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def get_status(self, _: web.Request) -> web.Response:
        """Answer with the status of the edge."""
        return _json(await self._status.report())

    async def get_usage(self, _: web.Request) -> web.Response:
        """Answer with the rows of usage since the state was created."""
        return _json({"rows": await self._table_reader.usage()})

    async def get_limits(self, request: web.Request) -> web.Response:
        """Answer with a customer's policies and their use."""
        name, status = request.match_info["customer"], self._status
        try:
            customer = await status.find_customer(name)
            if customer is None:
                return _problem(404, f"no customer is called {name!r} here")
            policies = await self._table_reader.limits(status.settings, customer, status.directory_flags)
        except UnservedCustomerError as error:
            return _problem(404, str(error))
        except CacheError as error:
            return _problem(503, f"the directory on this host's disk cannot be read: {error}")
        except ValueError:
            return _problem(404, f"this version of edgeproxy does not understand what the directory says of {name!r}")
        return _json({"policies": policies})

    async def reload(self, _: web.Request) -> web.Response:
        """Reload the configuration, and answer with the outcome."""
        if self._status.phase == "draining":
            return _problem(503, "the edge is draining")
        # The reload continues even if this request ends: others may wait for it too.
        outcome = await asyncio.shield(self._reloads.request())
        if outcome.succeeded:
            return _json({"result": outcome.result, "needs_restart": outcome.needs_restart})
        return _json({"result": outcome.result, "errors": outcome.errors}, status=422)


class Authorization:
    """Answers authorized callers only, and logs the caller of each change."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._refusals = log.RateLimitedLog(LOG_QUIET_SECONDS)

    @web.middleware
    async def authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        peer = request[PEER]
        try:
            request[CALLER] = caller = (
                peer.address if peer.local is None else _identify_caller(request, peer.local, self._status)
            )
        except AdminRefusedError as error:
            about = f"{peer.address} {error.status} {request.method} {request.path[:PATH_CHARACTERS_SHOWN]}"
            self._refusals.error("admin request refused", about, why=error.why)
            raise
        if request.method not in READING:
            log.get_logger().info(
                "admin request", method=request.method, path=request.path, by=caller, origin=peer.address
            )
        return await handler(request)


def _identify_caller(request: web.Request, local: str, status: Status) -> str:
    fields = request.headers
    hosts = fields.getall("Host", [])
    # Several fields are joined (RFC 9110 section 5.3), and the result is not a token: the edge must not pick one of
    # them.
    authorization = ", ".join(fields.getall("Authorization", []))
    admin_request = AdminRequest(request.path, hosts, fields.get("Origin"), authorization, local)
    return identify_caller(admin_request, status.settings.admin, time.time())


@web.middleware
async def _render_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Render every error as problem+json (RFC 9457)."""
    try:
        return await handler(request)
    except AdminRefusedError as error:
        return _problem(error.status, error.why, error.headers)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return _problem(error.status, DETAILS.get(error.status, error.reason), headers)
    except TableError as error:
        return _problem(500, str(error))
    except Exception as error:
        log.get_logger().error("admin request failed", path=request.path, exc_info=error)
        return _problem(500, "the supervisor failed to answer; its log says more")


DETAILS = {
    404: "there are /healthz, /readyz, /metrics, /status, /usage, /limits/CUSTOMER and /reload here",
    405: "the method is not one that this path knows",
}


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=format_problem(status, detail, str(uuid.uuid4()).encode(), ADMIN_NOT_FOUND if status == 404 else None),
        headers={"Content-Type": "application/problem+json", **(headers or {})},
    )


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
