"""Upstream services: their endpoints, which one a request goes to, and the idle connections to each.

Choosing is pure and synchronous: a service answers with an endpoint, an endpoint with an idle connection or
None. Opening and closing connections is left to the caller.
"""

import itertools
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.counters.meters import Histogram
    from edgeproxy.proxy.server import Server

PAIRS = 997
"""Random pairs of endpoints drawn in advance; a prime, so that no rhythm of requests falls in step with them."""

SMOOTHING = 0.1
"""Weight of the newest answer in an endpoint's average time to answer."""


class Endpoint:
    """One address of a service, and what this worker knows of it."""

    __slots__ = ("host", "idle", "outstanding", "port", "seconds", "service")

    def __init__(self, service: "Service", host: str, port: int) -> None:
        self.service = service
        self.host = host
        self.port = port
        # Last in, first out: the connection used last is the one least likely to have been closed meanwhile,
        # and the others are left to grow old and be closed.
        self.idle: list[Server] = []
        self.outstanding = 0
        self.seconds = 0.001

    def learn(self, seconds: float) -> None:
        """An answer's head came after this time."""
        self.seconds += (seconds - self.seconds) * SMOOTHING

    def release(self, server: "Server") -> bool:
        """Keep an idle connection for later; False where enough are kept, and the caller closes it."""
        if len(self.idle) >= self.service.pool:
            return False
        self.idle.append(server)
        return True

    def forget(self, server: "Server") -> None:
        """An idle connection is closed or closing: nobody is to be given it."""
        try:
            self.idle.remove(server)
        except ValueError:
            pass


class Service:
    """What the configuration calls an upstream. Times are in seconds."""

    __slots__ = (
        "connect_timeout",
        "endpoints",
        "head_timeout",
        "idle_timeout",
        "name",
        "next_pair",
        "pool",
        "seconds",
    )

    def __init__(
        self,
        name: str,
        addresses: Iterable[tuple[str, int]],
        seconds: "Histogram",
        *,
        connect_timeout: float,
        head_timeout: float,
        idle_timeout: float,
        pool: int,
        chance: random.Random | None = None,
    ) -> None:
        self.name = name
        self.endpoints = tuple(Endpoint(self, host, port) for host, port in addresses)
        self.seconds = seconds
        self.connect_timeout = connect_timeout
        self.head_timeout = head_timeout
        self.idle_timeout = idle_timeout
        self.pool = pool
        self.next_pair = _pairs(self.endpoints, chance or random.Random())

    def select(self) -> Endpoint:
        """The less loaded of two endpoints taken at random (Mitzenmacher 2001): requests outstanding x time each."""
        one, other = self.next_pair()
        if (one.outstanding + 1) * one.seconds <= (other.outstanding + 1) * other.seconds:
            return one
        return other

    def other_than(self, endpoint: Endpoint) -> Endpoint | None:
        """The least loaded endpoint beside this one, which could not be reached; None where it is the only one."""
        others = [each for each in self.endpoints if each is not endpoint]
        return min(others, key=lambda each: (each.outstanding + 1) * each.seconds, default=None)


def _pairs(endpoints: tuple[Endpoint, ...], chance: random.Random) -> Callable[[], tuple[Endpoint, Endpoint]]:
    """An endless run of random pairs; drawing each anew would cost more than the rest of the choice."""
    if len(endpoints) == 1:
        return itertools.repeat((endpoints[0], endpoints[0])).__next__
    drawn = [tuple(chance.sample(endpoints, 2)) for _ in range(PAIRS)]
    return itertools.cycle([(one, other) for one, other in drawn]).__next__
