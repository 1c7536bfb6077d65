"""One attempt at a request, from an address of its own, at the nearest region or else at the next.

What was sent is never sent again: geventhttpclient by itself sends a GET up to twelve times where a server closes
without an answer, and says nothing of it. What could not be sent, because nobody took the connection, goes to the next
region, and the region is tried again a second later.
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
"""Seconds until a connection is given up, and until a server that says nothing is."""
AGAIN = 1.0
"""Seconds after which a region that took no connection is tried again, by one request."""


class NotConnected(OSError):
    """Nobody took the connection, so nothing was sent."""


class SingleAttempt(ConnectionPool):
    """At most one connection, which is given up where it cannot be used at once."""

    source: tuple[str, int] | None = None
    """The address that connections come from."""

    def _create_tcp_socket(self, family: int, socktype: int, protocol: int) -> gevent.socket.socket:
        made = gevent.socket.socket(family, socktype, protocol)
        made.setsockopt(plain.IPPROTO_TCP, plain.TCP_NODELAY, 1)
        if self.source is not None:
            # The kernel chooses the port once it knows where the connection goes.
            made.setsockopt(plain.IPPROTO_IP, getattr(plain, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            made.bind(self.source)
        return made

    def _create_socket(self) -> gevent.socket.socket:
        try:
            return super()._create_socket()
        except OSError as error:
            raise NotConnected(*error.args) from error

    def _is_socket_alive(self, sock: gevent.socket.socket | None) -> bool:
        """Whether an idle connection is still one. Theirs asks select, which knows no descriptor above 1023."""
        if sock is None or sock.fileno() < 0:
            return False
        try:
            sock._sock.recv(1, plain.MSG_PEEK | plain.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False  # Closed, or it has something to say that nobody asked.


class SingleAttemptTls(SingleAttempt, SSLConnectionPool):
    """The same over TLS."""


class SingleAttemptClients(HTTPClientPool):
    """Makes clients that make one attempt."""

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
    """A session that tells Locust through `event`, an object with `fire`, and neither retries nor follows."""
    return FastHttpSession(base_url, event, user, client_pool=SingleAttemptClients(source), max_retries=0)


class Way(NamedTuple):
    """A way from clients of one region to an edge: that edge's region, by its number, and its URL."""

    region: int
    url: str


class Ways:
    """The ways of each region's clients, their own region first, and which of them nobody takes connections on now."""

    def __init__(self, ways: Mapping[int, Sequence[Way]]) -> None:
        self._ways = ways
        self._closed_until: dict[Way, float] = {}
        self.closings: Counter[Way] = Counter()
        """How often each was closed: connections from before are not to be used, as nothing may come through."""

    def of(self, home: int) -> list[Way]:
        """Those to try, in order. Of the closed ones one that is due is tried, by whoever asks first."""
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
        """Nobody took a connection there."""
        if way not in self._closed_until:
            self.closings[way] += 1
        self._closed_until[way] = time.perf_counter() + AGAIN

    def opened(self, way: Way) -> None:
        """Somebody did."""
        self._closed_until.pop(way, None)
