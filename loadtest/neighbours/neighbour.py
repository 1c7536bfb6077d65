"""A bad neighbour as a row of a table: the bytes that it sends, its listener, and the peers that can have it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ALL = ("edgeproxy", "nginx", "haproxy")
EDGE = ("edgeproxy",)
H2C = ("edgeproxy", "haproxy")
"""Peers that share one HTTP/2 connection to a service among their clients."""

Piece = bytes | float
"""Bytes to send, or a pause in seconds, which only reads answers."""
Pieces = Callable[[bytearray], Iterator[Piece]]
"""A generator of one connection's pieces. Its argument is the inbox: the attacker adds received bytes to it if the row
listens. The connection ends after its last piece, and the attacker opens the next one."""


@dataclass(frozen=True)
class Services:
    """Ports of the services: the well-behaved client's, and the hostile ones. These speak HTTP/1.1 (`bad`) or HTTP/2
    (`h2c`), answer anything with interim answers without end, or never say anything."""

    good: int
    bad: int
    h2c: int
    interim: int
    silent: int
    unused: int
    """A port without a listener."""


@dataclass(frozen=True)
class Site:
    """The arguments of a row's settings: a folder of the edge's own, and the services."""

    folder: Path
    services: Services


def _no_settings(site: Site) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Polite:
    """The request of the well-behaved client, and its listener."""

    path: str = "/ok"
    door: str = "plain"
    fields: str = ""
    """Further field lines, each with its CRLF."""
    body: str = ""
    """If there is one, the request is a POST."""


@dataclass(frozen=True)
class Neighbour:
    """One kind of hostile connection.

    `door` names the listener: `plain` (HTTP/1.1), `http2` (prior knowledge), `tls`, `mutual` (TLS with a client's
    certificate), `tls-bytes` (the port of `tls`, and the pieces are TLS records). `settings` gives top-level settings
    that the edge needs beside its usual ones.
    """

    name: str
    pieces: Pieces
    door: str = "plain"
    peers: tuple[str, ...] = ALL
    polite: Polite = Polite()
    parallel: int = 1
    """Connections of each attacker at a time."""
    reads: bool = True
    listens: bool = False
    """The pieces depend on received bytes."""
    resets: bool = False
    """Connections end with a reset."""
    chop: int = 0
    """Bytes of each write (under TLS: of each record); 0 is as many as possible."""
    pause: float = 0.01
    """Seconds between two connections of an attacker."""
    settings: Callable[[Site], Mapping[str, Any]] = _no_settings
