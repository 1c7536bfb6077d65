"""The access log: a JSON object on a line of its own for each request, once it is over.

What is on a line is known to the edge or was understood by it: no header's value but Host and, where its field is
named, an upstream's own request id, no query, no body. So no key is there, and nothing that could break the line.
docs/edge/access-log.md says what the fields mean.
"""

import random
from collections.abc import Callable, Mapping
from time import gmtime, monotonic, strftime
from typing import TYPE_CHECKING, Protocol

import orjson

from edgeproxy.base.clock import EPOCH
from edgeproxy.base.json_values import JsonObject, JsonValue
from edgeproxy.base.lru_cache import LRUCache
from edgeproxy.config.addresses import Address
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1.grammar import METHODS
from edgeproxy.edge.http1.path import normalize_target
from edgeproxy.edge.http1.request_line import read_request_line
from edgeproxy.edge.proxy.log_file import LogFile
from edgeproxy.regions.networks import mask_address

if TYPE_CHECKING:
    from edgeproxy.config.edge import settings as edge_settings
    from edgeproxy.edge.proxy.address import Address as ClientAddress
    from edgeproxy.edge.proxy.pool import Endpoint
    from edgeproxy.edge.proxy.request_span import RequestSpan
    from edgeproxy.edge.proxy.route_binding import Route, RouteBinding

BATCH_BYTES = 64 << 10
"""Bytes of lines that are handed over at once; fewer at the next sweep."""

PATH_CHARACTERS_MAX, HOST_CHARACTERS_MAX = 2048, 255
"""Characters that are logged, so that a line stays below what a pipe takes in one piece."""

LINE_PARTS_MAX = 4096
"""Route bindings, and endpoints, whose part of a line is kept, and addresses whose network is."""

SAFE = bytes(each for each in range(0x20, 0x7F) if each not in b'"\\')
"""The bytes that stand for themselves in JSON."""

UPSTREAM_ID_CHARACTERS_MAX = 200
"""Characters of an upstream's own request id that are logged; those of well-known APIs have 20 to 60."""

HOST = b"\r\nX-Forwarded-Host: "
"""The bytes before the name that was asked for, in the lines that an upstream gets."""

# A dict and orjson for each line cost four times as much; what is not as usual is written in that way.
LINE = b'{"time":"%b.%03dZ"%b%b,"bytes_in":%d,"bytes_out":%d,"seconds":%.6f%b%b%b'
OTHER = b"_OTHER"
"""The name of a method that nobody has registered, as OpenTelemetry calls it: what stands there may be a key in the
wrong place."""

REQUEST = b',"request_id":"%b","client":"%b","method":"%b","host":"%b","path":"%b","protocol":"%b"'
PROTOCOLS = (b"HTTP/1.0", b"HTTP/1.1")
HTTP2 = b"HTTP/2"
UPSTREAM = b'%b,"upstream_seconds":%.6f,"retries":%d'


class LoggedClient(Protocol):
    """The sender of a request: the address that it asks for, and the peer of the connection."""

    @property
    def address(self) -> "ClientAddress": ...
    @property
    def peer(self) -> str: ...
    @property
    def is_http2(self) -> bool: ...


class LoggedRequest(Protocol):
    """A request as its line needs it, see `Exchange`."""

    @property
    def client(self) -> LoggedClient: ...
    @property
    def route(self) -> "Route | None": ...
    @property
    def binding(self) -> "RouteBinding | None": ...

    started: float
    now: float
    sent_at: float
    arrived: float
    rid: bytes
    request_line: bytes
    keep: bytes
    method: bytes
    path: bytes
    minor: int
    status: int
    bytes_in: int
    bytes_out: int
    tried_endpoints: "tuple[Endpoint, ...]"
    upstream_request_id: bytes | None
    span: "RequestSpan | None"


class AccessLog:
    """The access log of one worker. `chance` is drawn for each request, from 0 to 1."""

    def __init__(
        self, settings: "edge_settings.AccessLog", region: str, *, chance: Callable[[], float] = random.random
    ) -> None:
        self.file = settings.file
        self._sample = settings.sample
        self._chance = chance
        self._to = LogFile(settings.file)
        self._lines: list[bytes] = []
        self._size = 0
        self._second = -1
        self._date = b""
        self._bindings: LRUCache[RouteBinding, bytes] = LRUCache(LINE_PARTS_MAX)
        self._endpoints: LRUCache[Endpoint, bytes] = LRUCache(LINE_PARTS_MAX)
        self._networks: LRUCache[str, str] = LRUCache(LINE_PARTS_MAX)
        self._mask = self._get_network if settings.mask_addresses else None
        ending: JsonObject = {"region": region}
        if settings.sample < 1.0:
            ending["sample"] = settings.sample
        self._ending = format_members(ending) + b"}\n"

    def log_request(
        self,
        request: LoggedRequest,
        endpoint: "Endpoint | None",
        *,
        error: str | None = None,
        aborted: bool = False,
        customer: tuple[str, str] | None = None,
    ) -> None:
        """Log a request that has ended.

        `endpoint`: who was asked last; `error`: what went wrong; `aborted`: its client left; `customer`: the customer
        and the tier of one that was refused for who asked.
        """
        if self._sample < 1.0 and self._chance() >= self._sample:
            return
        seconds = monotonic() - request.started
        date, milliseconds = self._format_time(request.now)
        line = LINE % (
            date,
            milliseconds,
            format_request(request, self._mask),
            self._format_response(request, customer),
            request.bytes_in,
            request.bytes_out,
            seconds,
            format_unselected_upstream(request) if endpoint is None else self._format_upstream(request, endpoint),
            format_end(error, aborted) if aborted or error is not None else b"",
            self._ending if request.span is None else format_trace(request.span) + self._ending,
        )
        self._add(line)

    def log_rejection(self, now: float, rid: bytes, client: str, status: int, error: str, bytes_out: int) -> None:
        """Log a connection that was refused at edge time `now`, before it could ask for anything."""
        if self._sample < 1.0 and self._chance() >= self._sample:
            return
        if self._mask is not None:
            client = self._mask(client)
        known = format_members({"request_id": escape(rid), "client": client, "status": status})
        self._add(
            LINE % (*self._format_time(now), known, b"", 0, bytes_out, 0.0, b"", format_end(error, False), self._ending)
        )

    def flush(self) -> None:
        """Hand the lines over to the file's thread."""
        if self._lines:
            self._to.write_lines(self._lines)
            self._lines, self._size = [], 0

    def take_lost_lines(self) -> tuple[int, str]:
        """Return (lines lost since the last call, why)."""
        return self._to.take_lost_lines()

    def clear_caches(self) -> None:
        """Drop what is remembered of route bindings and endpoints: there are others from now on."""
        self._bindings.clear()
        self._endpoints.clear()

    def finish(self) -> None:
        """Write everything, without anybody waiting for it: nobody logs here any more."""
        self.flush()
        self._to.finish()

    @property
    def is_finished(self) -> bool:
        """Whether everything is written, after `finish`."""
        return self._to.is_finished

    def close(self, seconds: float) -> None:
        """Write everything, for so many seconds at most."""
        self.flush()
        self._to.close(seconds)

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._size >= BATCH_BYTES:
            self.flush()

    def _get_network(self, client: str) -> str:
        """Return the network of a client's address; most clients come again, and a look costs less than the sum."""
        return self._networks[client] or self._networks.store(client, mask_address(client))

    def _format_time(self, now: float) -> tuple[bytes, int]:
        """Format edge time as RFC 3339 has it up to the seconds; return that, and the milliseconds."""
        unix = now + EPOCH
        second = int(unix)
        if second != self._second:
            self._second = second
            self._date = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second)).encode()
        return self._date, int((unix - second) * 1000)

    def _format_response(self, request: LoggedRequest, refused: tuple[str, str] | None) -> bytes:
        """Format the status, and the route, customer and tier, as far as these were known."""
        binding, status = request.binding, request.status
        if binding is None:
            known: JsonObject = {"status": status} if status else {}
            if request.route is not None:
                known["route"] = request.route.label
            if refused is not None:
                known["customer"], known["tier"] = refused
            return format_members(known)
        whose = self._bindings[binding]
        if whose is None:
            names = {"route": binding.route.label, "customer": binding.customer, "tier": binding.tier}
            whose = self._bindings.store(binding, format_members(names))
        return b',"status":%d%b' % (status, whose) if status else whose

    def _format_upstream(self, request: LoggedRequest, endpoint: "Endpoint") -> bytes:
        """Format who was asked last, how long its answer's head took to come, and how many were asked before it."""
        whom = self._endpoints[endpoint]
        if whom is None:
            names = {"upstream": endpoint.service.name, "endpoint": str(Address(endpoint.host, endpoint.port))}
            whom = self._endpoints.store(endpoint, format_members(names))
        retries = len(request.tried_endpoints)
        if request.arrived:
            if endpoint.service.request_id_field is not None and request.upstream_request_id:
                own_id = escape(request.upstream_request_id, UPSTREAM_ID_CHARACTERS_MAX)
                whom += format_members({"upstream_request_id": own_id})
            return UPSTREAM % (whom, request.arrived - request.sent_at, retries)
        return b'%b,"retries":%d' % (whom, retries)


def format_request(request: LoggedRequest, mask: Callable[[str], str] | None) -> bytes:
    """Format who asked for what; `mask` makes of the client's address what is logged of it."""
    rid, path, client, method = request.rid, request.path, request.client, request.method
    if path:
        if method not in METHODS:
            method = OTHER
        keep = request.keep
        at = keep.rfind(HOST) + len(HOST)
        host = keep[at : keep.index(b"\r\n", at)] if at >= len(HOST) else b""
        text = client.address.text if mask is None else mask(client.address.text)
        short = len(path) <= PATH_CHARACTERS_MAX and 0 < len(host) <= HOST_CHARACTERS_MAX
        if short and not (rid + host + path).translate(None, SAFE):
            protocol = HTTP2 if client.is_http2 else PROTOCOLS[request.minor]
            return REQUEST % (rid, text.encode(), method, host, path, protocol)
        return format_members(list_request_members(request, text, method, host, path, request.minor))
    # The head was refused: what it says of a host, or of the client that a proxy asks for, is not to be believed.
    peer = client.peer if mask is None else mask(client.peer)
    try:
        line = read_request_line(request.request_line.partition(b"\r\n")[0])
        path = normalize_target(line.target).partition(b"?")[0]
    except RejectedError:
        return format_members({"request_id": escape(rid), "client": peer})
    method = line.method if line.method in METHODS else OTHER
    return format_members(list_request_members(request, peer, method, b"", path, line.version[1]))


def list_request_members(
    request: LoggedRequest, client: str, method: bytes, host: bytes, path: bytes, minor: int
) -> dict[str, str]:
    """List the members of `format_request` for a request in which something is not as usual."""
    known = {"request_id": escape(request.rid), "client": client, "method": escape(method)}
    if host:
        known["host"] = escape(host, HOST_CHARACTERS_MAX)
    protocol = HTTP2.decode() if request.client.is_http2 else f"HTTP/1.{minor}"
    return known | {"path": escape(path, PATH_CHARACTERS_MAX), "protocol": protocol}


def format_unselected_upstream(request: LoggedRequest) -> bytes:
    """Format the upstream of a request that failed for it but never got that far: its breaker is open, or nobody is
    up."""
    if request.route is None or request.binding is None or request.status < 502:
        return b""
    return format_members({"upstream": request.route.service.name})


def format_trace(span: "RequestSpan") -> bytes:
    """Format where a recorded request is in its trace."""
    return b',"trace_id":"%b","span_id":"%b"' % (span.trace_id, span.span_id)


def format_end(error: str | None, aborted: bool) -> bytes:
    """Format how a request ended, where not well."""
    how: JsonObject = {} if error is None else {"error": error}
    return format_members(how | {"aborted": True} if aborted else how)


def escape(text: bytes, longest: int = 1 << 10) -> str:
    """Return this as text: visible ASCII, as what was understood is. Should it ever not be, it is escaped, for the sake
    of terminals."""
    cut = text[:longest].decode("ascii", "backslashreplace")
    return cut if len(text) <= longest else cut + "..."


def format_members(known: Mapping[str, JsonValue]) -> bytes:
    """Format the members of a JSON object, each after a comma."""
    return b"," + orjson.dumps(known)[1:-1] if known else b""
