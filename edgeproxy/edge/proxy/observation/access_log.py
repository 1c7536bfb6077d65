"""The access log: one JSON object per line for each request, once it is over.

A line has only values that the edge generated or parsed: of header fields only Host and, if configured, an upstream's
own request id; no query and no body. So a line contains no key, and nothing that could break the line. The fields are
described in docs/edge/access-log.md.
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
from edgeproxy.edge.proxy.observation.log_file import LogFile
from edgeproxy.regions.networks import mask_address

if TYPE_CHECKING:
    from edgeproxy.config.edge import settings as edge_settings
    from edgeproxy.edge.proxy.observation.request_span import RequestSpan
    from edgeproxy.edge.proxy.routing.binding import Route, RouteBinding
    from edgeproxy.edge.proxy.transport.address import Address as ClientAddress
    from edgeproxy.edge.proxy.upstreams.pool import Endpoint

BATCH_BYTES = 64 << 10
"""Bytes of lines that are handed over at once. Fewer bytes wait for the next sweep."""

PATH_CHARACTERS_MAX, HOST_CHARACTERS_MAX = 2048, 255
"""Logged characters at most, so that a line fits into one atomic write to a pipe."""

LINE_PARTS_MAX = 4096
"""Cached parts of lines by route binding and by endpoint, and cached networks by address."""

SAFE = bytes(each for each in range(0x20, 0x7F) if each not in b'"\\')
"""The bytes that need no escape in JSON."""

UPSTREAM_ID_CHARACTERS_MAX = 200
"""Logged characters of an upstream's own request id. The ids of well-known APIs have 20 to 60."""

HOST = b"\r\nX-Forwarded-Host: "
"""The bytes before the requested host in the upstream's lines."""

# The usual line is a format string: a dict and orjson cost four times as much, and serve unusual requests only.
LINE = b'{"time":"%b.%03dZ"%b%b,"bytes_in":%d,"bytes_out":%d,"seconds":%.6f%b%b%b'
OTHER = b"_OTHER"
"""The name of an unregistered method, from OpenTelemetry. A method token may be a misplaced key, so it is not
logged.
"""

REQUEST = b',"request_id":"%b","client":"%b","method":"%b","host":"%b","path":"%b","protocol":"%b"'
PROTOCOLS = (b"HTTP/1.0", b"HTTP/1.1")
HTTP2 = b"HTTP/2"
UPSTREAM = b'%b,"upstream_seconds":%.6f,"retries":%d'


class LoggedClient(Protocol):
    """The sender of a request: the client's address, and the peer of the connection."""

    @property
    def address(self) -> "ClientAddress": ...
    @property
    def peer(self) -> str: ...
    @property
    def is_http2(self) -> bool: ...


class LoggedRequest(Protocol):
    """The properties of a request for its line, see `Exchange`."""

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
    """The access log of one worker. `chance` returns a random number from 0 to 1 for each request."""

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

        `endpoint`: the last endpoint it was sent to; `error`: what went wrong; `aborted`: its client left; `customer`:
        the customer and tier of a request that was refused because of its sender.
        """
        if self._sample < 1.0 and self._chance() >= self._sample:
            return
        # The real time, not that of the turn: the request may have ended late in it.
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
        """Log a connection that was refused at edge time `now`, before any request."""
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
        """Drop the cached parts of route bindings and endpoints, because a new configuration has others."""
        # Otherwise the caches would keep the objects of the old configuration in memory.
        self._bindings.clear()
        self._endpoints.clear()

    def finish(self) -> None:
        """Write everything in the background: nothing more is logged here."""
        self.flush()
        self._to.finish()

    @property
    def is_finished(self) -> bool:
        """True if everything is written, after `finish`."""
        return self._to.is_finished

    def close(self, seconds: float) -> None:
        """Write everything, for at most `seconds`."""
        self.flush()
        self._to.close(seconds)

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._size >= BATCH_BYTES:
            self.flush()

    def _get_network(self, client: str) -> str:
        """Return the network of a client's address.

        Most clients come again, and the cache costs less than the computation.
        """
        return self._networks[client] or self._networks.store(client, mask_address(client))

    def _format_time(self, now: float) -> tuple[bytes, int]:
        """Format edge time in RFC 3339 up to the seconds. Return that, and the milliseconds."""
        unix = now + EPOCH
        second = int(unix)
        # One `strftime` a second serves all lines of that second.
        if second != self._second:
            self._second = second
            self._date = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second)).encode()
        return self._date, int((unix - second) * 1000)

    def _format_response(self, request: LoggedRequest, refused: tuple[str, str] | None) -> bytes:
        """Format the known ones of status, route, customer and tier."""
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
            if binding.user:
                names["user"] = binding.user
            whose = self._bindings.store(binding, format_members(names))
        return b',"status":%d%b' % (status, whose) if status else whose

    def _format_upstream(self, request: LoggedRequest, endpoint: "Endpoint") -> bytes:
        """Format the last endpoint, the seconds until its answer's head, and the number of endpoints tried before
        it.
        """
        whom = self._endpoints[endpoint]
        if whom is None:
            names = {"upstream": endpoint.service.name, "endpoint": str(Address(endpoint.host, endpoint.port))}
            whom = self._endpoints.store(endpoint, format_members(names))
        retries = len(request.tried_endpoints)
        if request.arrived:
            if endpoint.service.request_id_field is not None and request.upstream_request_id:
                own_id = escape(request.upstream_request_id, UPSTREAM_ID_CHARACTERS_MAX)
                # Not in the cached part, because it differs for each request.
                whom += format_members({"upstream_request_id": own_id})
            return UPSTREAM % (whom, request.arrived - request.sent_at, retries)
        return b'%b,"retries":%d' % (whom, retries)


def format_request(request: LoggedRequest, mask: Callable[[str], str] | None) -> bytes:
    """Format the client and the request. `mask` converts the client's address for the log."""
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
    # The head was refused, so its host and its forwarded client are not trusted.
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
    """List the members of `format_request` for an unusual request."""
    known = {"request_id": escape(request.rid), "client": client, "method": escape(method)}
    if host:
        known["host"] = escape(host, HOST_CHARACTERS_MAX)
    protocol = HTTP2.decode() if request.client.is_http2 else f"HTTP/1.{minor}"
    return known | {"path": escape(path, PATH_CHARACTERS_MAX), "protocol": protocol}


def format_unselected_upstream(request: LoggedRequest) -> bytes:
    """Format the upstream of a request that failed before an endpoint was selected: the breaker is open, or all
    endpoints are down.
    """
    if request.route is None or request.binding is None or request.status < 502:
        return b""
    return format_members({"upstream": request.route.service.name})


def format_trace(span: "RequestSpan") -> bytes:
    """Format the position of a recorded request in its trace."""
    return b',"trace_id":"%b","span_id":"%b"' % (span.trace_id, span.span_id)


def format_end(error: str | None, aborted: bool) -> bytes:
    """Format a failed end of a request."""
    how: JsonObject = {} if error is None else {"error": error}
    return format_members(how | {"aborted": True} if aborted else how)


def escape(text: bytes, longest: int = 1 << 10) -> str:
    """Return the bytes as text. Parsed values are visible ASCII; any other bytes are escaped to protect terminals."""
    cut = text[:longest].decode("ascii", "backslashreplace")
    return cut if len(text) <= longest else cut + "..."


def format_members(known: Mapping[str, JsonValue]) -> bytes:
    """Format the members of a JSON object, each after a comma."""
    return b"," + orjson.dumps(known)[1:-1] if known else b""
