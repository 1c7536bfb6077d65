"""A bound of a reader: what is bounded, by how much, and what happens beyond it."""

from enum import Enum
from typing import NamedTuple

from edgeproxy.config.part import Part


class Reader(Enum):
    """The readers of bytes that others send. The value is the heading of the page."""

    CLIENTS = "Clients"
    UPSTREAMS = "Upstreams"
    USAGE = "Usage that answers state"
    HEALTH_CHECKS = "Health checks"
    ISSUERS = "Issuers: metadata and key sets"
    DISCOVERY = "Discovery: names of upstreams"
    HUB = "The hub (Redis)"
    DIRECTORY = "The collector, as edges read it"
    ADMIN = "The admin listener"
    COLLECTOR = "The collector's API"
    PAGES = "Pages"
    BEACON = "The region beacon"
    RECEIVERS = "Receivers of webhooks, alerts and traces"


class Protocol(Enum):
    """The protocols of a reader."""

    HTTP1 = "HTTP/1.1"
    HTTP2 = "HTTP/2"
    WEBSOCKET = "WebSocket"
    GRPC = "gRPC"
    TLS = "TLS"
    DNS = "DNS"
    REDIS = "RESP"


HTTP1, HTTP2 = Protocol.HTTP1, Protocol.HTTP2
BOTH = (HTTP1, HTTP2)
"""An equal thing has an equal bound on either protocol, so it has one row. HTTP/2 of upstreams is h2 and h2c."""


class Unit(Enum):
    """The units of bounds."""

    BYTES = "bytes"
    BYTES_PER_SECOND = "bytes a second"
    SECONDS = "seconds"
    FIELDS = "fields"
    ITEMS = ""


class Side(Enum):
    """The side that is at fault beyond a bound."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    EDGE = "edge"
    """A bound of the edge's own: the peer has broken no rule, and no endpoint is charged."""
    PEER = "peer"
    """The server that edgeproxy has called."""


class Bound(NamedTuple):
    """One row of the table."""

    name: str
    """The row's key."""
    reader: Reader
    protocols: tuple[Protocol, ...]
    subject: str
    """The thing that is bounded."""
    number: float | None
    """The bound in units; None if a setting without a default gives it."""
    unit: Unit
    side: Side
    reason: str
    setting: str | None = None
    """The setting that gives the number, which is its default then."""
    status: int | None = None
    """The status of the edge's or the collector's own answer."""
    error: str | None = None
    """The error in Proxy-Status, the access log and `edge_upstream_errors_total` (RFC 9209 section 2.3)."""
    effect: str = ""
    """The effect beside the status, or in its place."""


def get_default(part: type[Part], setting: str) -> float | None:
    """Return the default of a setting: bytes, seconds or a count."""
    default: float | None = part.model_fields[setting].default
    return default
