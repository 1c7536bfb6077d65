"""A test bed for transcripts: a real worker on real sockets, with scripted clients before it and upstreams behind it.

A test reads as a list of messages that each side sends and gets. At its end the bed checks what every test promises:
each sent message was read, and no request, connection, task or error is left.
"""

import asyncio
import hashlib
import json
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import uvloop

from edgeproxy.base.client_tls import ClientTls
from edgeproxy.base.tasks import Tasks
from edgeproxy.config.edge.listeners import Listener
from edgeproxy.config.edge.load import dump_settings, load_edge
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.row_key import HAS_GAUGES
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.messages import FetchIssuerKeys, LimitsUsed, LookUpKeys, Services
from edgeproxy.edge.proxy.exchange.claim_waiter import ClaimWaiter
from edgeproxy.edge.proxy.exchange.prepared_configuration import PreparedConfiguration
from edgeproxy.edge.proxy.exchange.refused_head import read_refused_head
from edgeproxy.edge.proxy.exchange.runtime import Runtime
from edgeproxy.edge.proxy.exchange.snapshot import Snapshot
from edgeproxy.edge.proxy.process.worker import Worker
from edgeproxy.edge.proxy.routing.key_lookup import KeyLookup
from edgeproxy.edge.proxy.transport.server_tls import ServerTls
from edgeproxy.edge.proxy.upstreams.pool import Endpoint
from edgeproxy.edge.supervisor.limit_report import find_file_customer, list_policies
from tests.edge.proxy.tls_wire import TlsWire
from tests.support.wire import PATIENCE, Cut, Message, Wire, shown

KEY = "key-of-acme"
"""A key of the customer `acme`, who may send 60 requests a minute."""
UNLIMITED = "key-of-free"
"""A key of the customer `free`, whose tier has no limits."""
READER = "key-with-scope"
"""A key of `free` with the scope `read`."""
EXPIRED = "key-of-old"
GET = read_refused_head(b"GET / HTTP/1.1\r\n\r\n")
"""A request that meets no condition of a route."""


def digest(key: str) -> str:
    """Return the hash of a key for the configuration."""
    return hashlib.sha256(key.encode()).hexdigest()


def draft(settings: EdgeSettings, serving: Mapping[str, ClientTls] | None = None) -> PreparedConfiguration:
    """Return these settings in the form that a worker receives."""
    return PreparedConfiguration(dump_settings(settings), serving)


def head(*lines: str) -> bytes:
    """Return the head of a message, from its lines."""
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def get(path: str = "/public/", *fields: str) -> bytes:
    """Return a plain GET."""
    return head(f"GET {path} HTTP/1.1", "Host: edge.test", *fields)


def post(body: bytes, path: str = "/public/", *fields: str) -> bytes:
    """Return a POST with a length."""
    return head(f"POST {path} HTTP/1.1", "Host: edge.test", f"Content-Length: {len(body)}", *fields) + body


def ok(body: bytes = b"hello", *fields: str) -> bytes:
    """Return a plain 200 response with a length."""
    return head("HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields) + body


def chunks(*pieces: bytes, trailers: tuple[str, ...] = ()) -> bytes:
    """Return a whole chunked body."""
    payload = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return payload + b"0\r\n" + "".join(f"{line}\r\n" for line in (*trailers, "")).encode()


class Upstream:
    """An endpoint of a service: a listening socket whose connections a test accepts one by one."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listening.setblocking(False)
        self.port: int = self.listening.getsockname()[1]
        self.wires: list[Wire] = []
        self.requests: list[Message] = []
        """Requests that it received while it answered automatically."""
        self.tls: ssl.SSLContext | None = None
        """The TLS context of its connections, if it speaks TLS."""
        self.answer: Callable[[Message], bytes] = lambda request: ok()
        """Returns the automatic answer to a request."""
        self._tasks: Tasks | None = None

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    async def accepts(self) -> Wire:
        """Accept and return the next connection that the edge opens."""
        async with asyncio.timeout(PATIENCE):
            end, _ = await asyncio.get_running_loop().sock_accept(self.listening)
        wire = self._wire(end)
        if isinstance(wire, TlsWire):
            await wire.shakes_hands()
        return wire

    async def takes(self) -> Wire:
        """Accept the next connection, and return it once a whole request has arrived."""
        wire = await self.accepts()
        await wire.gets_request()
        return wire

    def _wire(self, end: socket.socket) -> Wire:
        self.wires.append(Wire(end) if self.tls is None else TlsWire(end, self.tls, server_side=True))
        return self.wires[-1]

    def refuses(self) -> None:
        """Stop listening, so that connections are refused. The port stays bound, or another test could listen there."""
        self.listening.close()
        self.listening = socket.socket()
        self.listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listening.setblocking(False)
        self.listening.bind(("127.0.0.1", self.port))

    def answers(self, answer: Callable[[Message], bytes]) -> None:
        """Accept every connection and answer every request automatically from now on."""
        self.answer = answer
        if self._tasks is None:
            self._tasks = Tasks()

    def begins(self) -> None:
        """Accept connections, if it answers automatically. Needs a running loop."""
        if self._tasks is not None and not self._tasks._running:
            self._tasks.start("upstream", self._accept(self._tasks))

    async def rests(self) -> None:
        """Stop answering automatically."""
        if self._tasks is not None:
            await self._tasks.cancel()

    async def _accept(self, tasks: Tasks) -> None:
        while True:
            end, _ = await asyncio.get_running_loop().sock_accept(self.listening)
            tasks.start("upstream connection", self._answer(self._wire(end)))

    async def _answer(self, wire: Wire) -> None:
        try:
            if isinstance(wire, TlsWire):
                await wire.shakes_hands()
            while await wire.has_more():
                request = await wire.gets_request()
                self.requests.append(request)
                await wire.sends(self.answer(request))
        except (ConnectionError, Cut, ssl.SSLError):
            pass
        wire.closes()

    def is_asked(self) -> bool:
        """Return whether a connection is waiting that the test has not accepted; it is accepted and closed."""
        try:
            end, _ = self.listening.accept()
        except OSError:
            return False
        end.close()
        return True


class Edge:
    """The test bed. `config` may be changed until the first request starts the edge."""

    def __init__(self, folder: Path) -> None:
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.upstream = Upstream()
        self.upstreams = [self.upstream]
        self.clients: list[Wire] = []
        self.errors: list[dict[str, Any]] = []
        self.worker: Worker
        self.address: tuple[str, int]
        """The address that the edge listens on."""
        self.uses: list[LimitsUsed] | None = None
        """Reports that the supervisor gets about limits shared with other hosts; None if no limit is shared."""
        self.inquiries: list[LookUpKeys | FetchIssuerKeys] = []
        """Keys that the supervisor was asked to look up."""
        self._folder = folder
        self._supervisor: Store | None = None
        self._listening: socket.socket | None = None
        self.config: dict[str, Any] = {
            "region": "test",
            "listen": "127.0.0.1:0",
            "workers": 1,
            "state": str(folder / "state"),
            "tables": {"customers": 1000, "addresses": 1000, "end_users": 1000},
            "tiers": {"basic": {"limits": [{"rate": "60/min"}]}, "free": {"limits": []}},
            "customers": {"acme": {"tier": "basic"}, "free": {"tier": "free"}},
            "keys": [
                {"sha256": digest(KEY), "customer": "acme"},
                {"sha256": digest(UNLIMITED), "customer": "free"},
                {"sha256": digest(READER), "customer": "free", "scopes": ["read"]},
                {"sha256": digest(EXPIRED), "customer": "free", "expires": "2025-06-01"},
            ],
            # A machine that runs many tests at once may stall for a second.
            "upstreams": {"api": {"endpoints": [self.upstream.url], "timeouts": {"connect": "10s"}}},
            "routes": [
                {"name": "v1", "path": "/v1/*", "upstream": "api"},
                {"name": "public", "path": "/public/*", "upstream": "api", "auth": "none"},
                {"name": "maybe", "path": "/maybe/*", "upstream": "api", "auth": "optional"},
                {"name": "read", "path": "/read/*", "upstream": "api", "scopes": ["read"]},
                {"name": "get", "path": "/get/*", "upstream": "api", "auth": "none", "methods": ["GET", "HEAD"]},
            ],
        }

    # ---- the test bed

    def adds_endpoint(self, upstream: str = "api") -> Upstream:
        """Add an endpoint to a service."""
        added = Upstream()
        self.upstreams.append(added)
        self.config["upstreams"].setdefault(upstream, {"endpoints": []})["endpoints"].append(added.url)
        return added

    def settings(self) -> EdgeSettings:
        """Return the settings in `config`."""
        file = self._folder / "edge.yaml"
        file.write_text(json.dumps(self.config))  # JSON is also YAML, and ten times as fast to write
        return load_edge(file, {})

    @property
    def runtime(self) -> Runtime:
        """The objects that all parts of the worker share."""
        return self.worker.runtime

    async def starts(self) -> None:
        """Start the edge with `config`."""
        for upstream in self.upstreams:
            upstream.begins()
        if self._listening is not None:
            return
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.errors.append(context))
        settings = self.settings()
        tables = settings.tables
        self._supervisor = Store.prepare(
            settings.state,
            workers=1,
            customers=tables.customers,
            addresses=tables.addresses,
            end_users=tables.end_users,
            hub=self.uses is not None,
        )
        store = Store.join(settings.state)
        self.worker = Worker(store)
        self.runtime.claim_waiter = ClaimWaiter(self._hears)
        self.runtime.key_lookup = KeyLookup(self._is_asked)
        sharing, key_lookup = self.runtime.claim_waiter, self.runtime.key_lookup
        created = draft(settings)
        self.runtime.serve_snapshot(
            Snapshot(created, store, self.runtime.metrics, sharing=sharing, key_lookup=key_lookup)
        )
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listening.setblocking(False)
        self.address = self._listening.getsockname()
        inward = [
            None if each.tls is None else ServerTls(each.tls, settings.state, http2=each.speaks_http2)
            for each in settings.listen
        ]
        await self.worker.listen([self._listening], settings.listen, inward)

    async def listens_for_questions(self) -> None:
        """Listen for proxies that ask whether a request may pass. Later clients connect there."""
        asking = socket.create_server(("127.0.0.1", 0))
        asking.setblocking(False)
        listener = Listener.model_validate({"address": "127.0.0.1:0", "authorize": "original"})
        await self.worker.listen([asking], [listener], [None])
        self.address = asking.getsockname()

    def _hears(self, message: LimitsUsed) -> bool:
        assert self.uses is not None
        self.uses.append(message)
        return True

    def _is_asked(self, message: LookUpKeys | FetchIssuerKeys) -> bool:
        self.inquiries.append(message)
        return True

    async def prepares(self, endpoints: Services | None = None) -> int:
        """Prepare the configuration in `config` with these endpoints. Returns the number of its generation."""
        generations = self.worker.generations
        created = await asyncio.to_thread(draft, self.settings(), self.runtime.snapshot.upstream_tls)
        generations.prepare(generations.number + 1, created, endpoints or {})
        return generations.number + 1

    async def reloads(self) -> None:
        """Serve the configuration in `config`."""
        assert self.worker.generations.commit(await self.prepares())

    async def client(self, address: str = "127.0.0.1", receives: int = 0) -> Wire:
        """Connect a new client from this address. `receives` sets the size of its receive buffer in bytes."""
        await self.starts()
        end = socket.socket()
        end.setblocking(False)
        if receives:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        end.bind((address, 0))
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(end, self.address)
        self.clients.append(Wire(end))
        return self.clients[-1]

    async def secure_client(
        self, context: ssl.SSLContext, name: str | None = "edge.test", session: ssl.SSLSession | None = None
    ) -> TlsWire:
        """Connect a new client and do its TLS handshake. Raises the error of a failed handshake."""
        plain = await self.client()
        self.clients.remove(plain)
        wire = TlsWire(plain._end, context, name=name, session=session)
        self.clients.append(wire)
        await wire.shakes_hands()
        return wire

    async def forwards(self, *request: bytes) -> tuple[Wire, Wire]:
        """Send a request (by default a GET) on a new client; return the client and the upstream's new connection that
        got it.
        """
        client = await self.client()
        return client, await self.brings(client, *(request or (get(),)))

    async def opens(self, *request: bytes) -> tuple[Wire, Wire]:
        """Like `forwards`, but return once the upstream has the request's head. The body is still to be read."""
        client = await self.client()
        await client.sends(*(request or (get(),)))
        upstream = await self.upstream.accepts()
        await upstream.gets_head()
        return client, upstream

    async def brings(self, client: Wire, *request: bytes) -> Wire:
        """Send a request on an existing client and return the new connection on which the upstream got it."""
        await client.sends(*request)
        return await self.upstream.takes()

    async def serves(self, *request: bytes) -> tuple[Wire, Wire]:
        """Like `forwards`, and answer the request. Both connections stay open."""
        client, upstream = await self.forwards(*request)
        await upstream.sends(ok())
        await client.gets_answer()
        return client, upstream

    async def passes(self, request: bytes, answer: bytes, to: str = "GET") -> tuple[Message, Message]:
        """Exchange one request and answer over new connections. Returns the messages that both sides received."""
        client = await self.client()
        await client.sends(request)
        upstream = await self.upstream.accepts()
        received = await upstream.gets_request()
        await upstream.sends(answer)
        answered = await client.gets_answer(to)
        client.closes()
        upstream.closes()
        return received, answered

    async def refuses(self, request: bytes, to: str = "GET") -> Message:
        """Send a request that the edge must not forward, and return its answer."""
        client = await self.client()
        await client.sends(request)
        answer = await client.gets_answer(to)
        await self.settles()
        assert not self.upstream.is_asked(), "forwarded"
        client.closes()
        return answer

    async def settles(self) -> None:
        """Run the loop until all pending events are handled."""
        for _ in range(40):
            await asyncio.sleep(0)

    def passes_time(self, seconds: float) -> None:
        """Move edge time ahead, as when a supervisor publishes another offset. Limits then use the new time."""
        assert self._supervisor is not None
        control = self._supervisor.control
        control.begin_boot(control.boot, control.offset + seconds)
        self.runtime.offset = self.worker.store.offset

    def now(self) -> float:
        """Return the edge time."""
        return monotonic() + self.runtime.offset

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait for a condition."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():  # noqa: ASYNC110, the edge has no event for the awaited condition
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise AssertionError(f"it never came to pass: {what or condition}") from None

    # ---- counters and state of the edge

    def endpoint(self, n: int = 0, route: str = "/public/x") -> Endpoint:
        """Return the edge's object for the n-th endpoint of a route's service."""
        found = self.runtime.snapshot.router.find_site(None).match(route.encode(), b"GET", GET)
        return found.service.endpoints[n]

    def endpoints(self) -> list[Endpoint]:
        """Return the edge's objects for all endpoints."""
        routes = self.config["routes"]
        router = self.runtime.snapshot.router
        sites = {route.get("host", "").replace("*", "x").encode() or None for route in routes}
        services = {
            found.service for route in routes for site in sites if (found := _match(router, site, route)) is not None
        }
        return [endpoint for service in services if service for endpoint in service.endpoints]

    def usage(self) -> dict[tuple[str, str, str], int]:
        """(customer, meter, route) -> billed amount, as the supervisor reads it in the shared map now."""
        assert self._supervisor is not None
        return {(customer, meter, route): n for customer, meter, route, n in self._supervisor.usage_totals() if n}

    def metrics(self, name: str) -> dict[tuple[str, ...], list[int]]:
        """label values -> words of a metric, as the supervisor reads it in the map after the worker updated it."""
        assert self._supervisor is not None
        self.runtime.metrics.settle()
        totals = self._supervisor.metric_totals()
        return {labels: words for each, labels, words in totals if each == name and any(words)}

    def count(self, name: str, *labels: str) -> int:
        """Return the value of a counter or a gauge."""
        return sum(self.metrics(name).get(labels, [0]))

    def in_use(self) -> int:
        """Return how many slots of all customers and addresses are in use, as the supervisor reads it in the
        shared map.
        """
        assert self._supervisor is not None
        tables = (self._supervisor.customers, self._supervisor.addresses)
        return sum(table.in_use(row) for table in tables for row in table.rows() if has_gauges(table, row))

    def used(self, customer: str = "acme") -> dict[str, int]:
        """Name of a policy -> total usage of a customer, as operators see it now."""
        assert self._supervisor is not None
        settings = self.settings()
        who = find_file_customer(settings, customer)
        assert who is not None
        lines = list_policies(self._supervisor.limits, settings, who, self.now())
        sums: Counter[str] = Counter()
        for line in lines:
            sums[line["name"]] += line["used"] or 0
        return dict(sums)

    # ---- the end

    async def stops(self) -> None:
        """Stop the edge and check what every test promises."""
        if self._listening is None:
            return
        worker = self.worker
        await self.settles()
        for upstream in self.upstreams:
            await upstream.rests()
        unread = [wire.has() for wire in self.clients if wire.open]
        unread += [wire.has() for upstream in self.upstreams for wire in upstream.wires if wire.open]
        unexpected = [upstream.port for upstream in self.upstreams if upstream.is_asked()]
        for wire in self.clients:
            wire.closes()
        try:
            await self.until(lambda: not worker.runtime.connections.clients, "every client's connection is gone")
            await self.until(lambda: not worker.runtime.tasks._running, "no task is left")
            retired = [endpoint for service in worker.generations._services for endpoint in service.endpoints]
            outstanding = [endpoint.outstanding for endpoint in (*self.endpoints(), *retired)]
            slots = self.in_use()
            idle = sum(len(endpoint.idle) for endpoint in self.endpoints())
            watched = len(worker.runtime.deadlines.timed)
            for upstream in self.upstreams:
                for wire in upstream.wires:
                    wire.closes()
            await self.until(lambda: not worker.runtime.deadlines.timed, "every upstream connection is gone")
            assert not any(outstanding), f"outstanding requests: {outstanding}"
            assert not slots, f"slots that nobody gave back: {slots}"
            assert self.metrics("edge_upstream_pending") == {}, "requests are still pending at an upstream"
            assert idle <= watched, "connections that are gone are offered for use"
            assert not worker.runtime.held.held_bytes, "the budget counts bytes of clients that are gone"
            assert worker.runtime.connections.upstreams == worker.runtime.connections.streams == 0
            assert not any(endpoint.idle for endpoint in self.endpoints())
            assert not self.errors, self.errors
            assert not any(unread), f"sent, and no test looked: {[shown(each) for each in unread if each]}"
            assert not unexpected, f"the edge opened connections that no test accepted, to {unexpected}"
        finally:
            await self._ends()
        assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()

    async def _ends(self) -> None:
        for server, queue, _ in self.worker._listening:
            server.close()
            queue.close()
        self.runtime.deadlines.stop()
        self.runtime.overload.stop()
        await self.runtime.tasks.cancel()
        for client in tuple(self.runtime.connections.clients):
            client.transport.abort()
        for upstream in self.upstreams:
            upstream.listening.close()
        await self.settles()
        self.worker.store.close()
        assert self._supervisor is not None
        self._supervisor.close()


def has_gauges(table: LimitTable, row: int) -> bool:
    """Return whether a row holds numbers of slots in use."""
    return bool(table.words[row + at.ROW_STATE] & HAS_GAUGES)


def _match(router: Any, site: bytes | None, route: dict[str, Any]) -> Any:
    methods = route.get("methods") or ["GET"]
    try:
        return router.find_site(site).match(route["path"].replace("*", "x").encode(), methods[0].encode(), GET)
    except RejectedError:
        return None
