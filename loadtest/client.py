"""A single attempt at a request, with its own source address, at the nearest region or else at the next.

A sent request is never sent again. geventhttpclient alone would send a GET up to twelve times if a server closes
without an answer, and would not report it. If no server accepts the connection, the request goes to the next region;
the first region is tried again a second later.
"""

import socket as plain
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gevent.socket
from geventhttpclient.client import HTTPClientPool
from geventhttpclient.connectionpool import ConnectionPool, SSLConnectionPool
from locust import User
from locust.contrib.fasthttp import FastHttpSession

CONNECT, ANSWER = 1.0, 10.0
"""Seconds until a connection attempt is given up, and until a silent server is given up."""
AGAIN = 1.0
"""Seconds until a region that accepted no connection is tried again, by one request."""


class NotConnected(OSError):
    """No server accepted the connection, so nothing was sent."""


class SingleAttempt(ConnectionPool):
    """A pool of at most one connection, which is dropped if it is not usable at once."""

    source: tuple[str, int] | None = None
    """The source address of connections."""

    def _create_tcp_socket(self, family: int, socktype: int, protocol: int) -> gevent.socket.socket:
        created = gevent.socket.socket(family, socktype, protocol)
        created.setsockopt(plain.IPPROTO_TCP, plain.TCP_NODELAY, 1)
        if self.source is not None:
            # The kernel chooses the port once it knows the destination.
            created.setsockopt(plain.IPPROTO_IP, getattr(plain, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            created.bind(self.source)
        return created

    def _create_socket(self) -> gevent.socket.socket:
        try:
            return super()._create_socket()
        except OSError as error:
            raise NotConnected(*error.args) from error

    def _is_socket_alive(self, sock: gevent.socket.socket | None) -> bool:
        """Return whether an idle connection is still open. The library calls select, which fails for descriptors above
        1023.
        """
        if sock is None or sock.fileno() < 0:
            return False
        try:
            sock._sock.recv(1, plain.MSG_PEEK | plain.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False  # It is closed, or has data that no request caused.


class SingleAttemptTls(SingleAttempt, SSLConnectionPool):
    """A pool of at most one TLS connection."""


class SingleAttemptClients(HTTPClientPool):
    """Creates clients that make one attempt."""

    def __init__(self, source: str | None = None) -> None:
        super().__init__(concurrency=1, connection_timeout=CONNECT, network_timeout=ANSWER)
        self._source = None if source is None else (source, 0)

    def get_client(self, url: Any) -> Any:
        client = super().get_client(url)
        connections = client._connection_pool
        if not isinstance(connections, SingleAttempt):
            connections.size = -1  # Read only where further attempts are counted.
            connections.__class__ = SingleAttemptTls if client.ssl else SingleAttempt
            connections.source = self._source  # type: ignore[attr-defined]  # Of the class that it is now.
        return client


def session(base_url: str, event: Any, user: User, source: str | None = None) -> FastHttpSession:
    """Return a session that reports to Locust through `event` (an object with `fire`), without retries or redirects."""
    return FastHttpSession(base_url, event, user, client_pool=SingleAttemptClients(source), max_retries=0)


class Way(NamedTuple):
    """A way from the clients of one region to an edge: the number of the edge's region, and its URL."""

    region: int
    url: str


class Ways:
    """The ways of each region's clients, their own region first, and which ways currently accept no connections."""

    def __init__(self, ways: Mapping[int, Sequence[Way]]) -> None:
        self._ways = ways
        self._closed_until: dict[Way, float] = {}
        self.closings: Counter[Way] = Counter()
        """How often each way was closed. Connections from before a closing may be dead, so they are not used again."""

    def of(self, home: int) -> list[Way]:
        """Return the ways to try, in order. When a closed way is due again, the next request tries it."""
        now = time.perf_counter()
        open_ones = []
        for way in self._ways[home]:
            until = self._closed_until.get(way)
            if until is None or until <= now:
                if until is not None:
                    self._closed_until[way] = now + AGAIN + CONNECT
                open_ones.append(way)
        return open_ones or list(self._ways[home][:1])

    def closed(self, way: Way) -> None:
        """Close a way, because its edge accepted no connection."""
        if way not in self._closed_until:
            self.closings[way] += 1
        self._closed_until[way] = time.perf_counter() + AGAIN

    def opened(self, way: Way) -> None:
        """Open a way, because its edge accepted a connection."""
        self._closed_until.pop(way, None)
