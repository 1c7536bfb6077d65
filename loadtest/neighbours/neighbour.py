"""A bad neighbour as a row of a table: the bytes that it sends, its listener, and the peers that can have it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ALL = ("edgeproxy", "nginx", "haproxy")
EDGE = ("edgeproxy",)
H2C = ("edgeproxy", "haproxy")
"""Peers that multiplex the requests of several clients on one HTTP/2 connection to a service."""

Piece = bytes | float
"""Bytes to send, or seconds in which only answers are read."""
Pieces = Callable[[], Iterator[Piece]]
"""The pieces of one connection. The connection ends with them, and the attacker opens the next one."""


@dataclass(frozen=True)
class Neighbour:
    """One kind of hostile connection.

    `door` names the listener: `plain` (HTTP/1.1), `http2` (prior knowledge), `tls`, or `mutual` (TLS with client
    certificates). `reads` says whether it takes answers. `polite_path` is the path of the well-behaved client, and
    `polite_door` its listener. `settings` are top-level settings of the edge that the row needs.
    """

    name: str
    pieces: Pieces
    door: str = "plain"
    peers: tuple[str, ...] = ALL
    reads: bool = True
    polite_path: str = "/ok"
    polite_door: str = "plain"
    settings: Mapping[str, Any] = field(default_factory=dict)
