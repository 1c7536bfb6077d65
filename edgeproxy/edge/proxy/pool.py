"""Upstream services: their endpoints, which one a request goes to, and the idle connections to each.

Everything here is pure and synchronous: a service answers with an endpoint or raises what the client is told, an
endpoint gives an idle connection or none. Opening and closing connections is left to the caller. Times are seconds
of the monotonic clock.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from edgeproxy.base import log
from edgeproxy.config import addresses
from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.messages import EndpointAddresses
from edgeproxy.edge.proxy.circuit_breaker import CircuitBreaker
from edgeproxy.edge.proxy.idle_lifetime import IdleLifetime
from edgeproxy.edge.proxy.load_balancing import draw_pairs
from edgeproxy.edge.proxy.outlier_detection import OutlierDetector
from edgeproxy.edge.proxy.retry_budget import RetryBudget

if TYPE_CHECKING:
    from edgeproxy.config.edge.upstreams import Endpoint as EndpointSettings
    from edgeproxy.config.edge.upstreams import Upstream
    from edgeproxy.edge.counters.meters import Counter, Histogram, SharedGauge
    from edgeproxy.edge.proxy.exchange_sides import IdleConnection, UpstreamSide

Pair = tuple["Endpoint", "Endpoint"]

LOG_SECONDS = 10.0
"""Seconds between two log lines about one endpoint."""


class Endpoint:
    """One address of a service, and what this worker knows of it."""

    __slots__ = (
        "address",
        "authorities",
        "errors",
        "host",
        "idle",
        "idle_lifetime",
        "most",
        "out",
        "out_since",
        "outstanding",
        "port",
        "region",
        "scheme",
        "sent_host",
        "service",
        "tier",
        "up",
        "watched",
        "weight",
    )

    def __init__(self, service: "Service", settings: "EndpointSettings", address: str, tier: int) -> None:
        self.service = service
        self.host, self.port, self.scheme = settings.host, settings.port, settings.scheme
        """As configured; what certificates and the log speak of."""
        self.address = address
        """What is connected to: an IP address."""
        sent = settings.find_sent_host(service.host)
        self.sent_host = None if sent is None else sent.encode()
        """The Host that it gets; None for the client's own."""
        own = str(addresses.Address(self.host, self.port)).encode()
        self.authorities = (own,) if self.sent_host is None else (own, self.sent_host)
        """What the service may call itself, as the edge asks for it."""
        self.weight = settings.weight
        self.region = settings.region or service.region
        self.tier = tier
        """How far away: 0 for the edge's own region, and more for each region further down the list."""
        # Last in, first out: the connection used last is the one least likely to have been closed meanwhile,
        # and the others are left to grow old and be closed.
        self.idle: list[UpstreamSide[Any]] = []
        self.most = service.pool
        """Idle connections that are kept at most."""
        self.idle_lifetime = IdleLifetime()
        """For how long the endpoint itself keeps them."""
        self.outstanding = 0
        """Requests that were sent and are not over."""
        self.up = True
        """The supervisor says that it may be used."""
        self.out = False
        """It is ejected."""
        self.out_since = 0.0
        """When it was, the last time."""
        self.errors = 0
        """Requests in a row that failed, see Outliers."""
        self.watched = service.breaker is not None
        """Somebody wants to hear of every answer, also of those that are nothing special."""

    @property
    def label(self) -> str:
        """What the log calls it."""
        name = f"{self.host}:{self.port}"
        return name if self.address == self.host else f"{name} at {self.address}"

    def record_response(self, status: int, sent_at: float, now: float) -> None:
        """An answer has come whole. Need not be called for one below 500 unless it is `watched`."""
        self.service.record_response()
        if status >= 500:
            self.failed(now)
        else:
            self.passed(sent_at)

    def passed(self, sent_at: float) -> None:
        """A request has ended well: what failed before it is forgotten, unless it was sent before an ejection."""
        if self.out:
            if sent_at > self.out_since:
                self.service.passed(self)
        else:
            self.errors = 0
            self.watched = self.service.breaker is not None

    def failed(self, now: float) -> None:
        """A request has ended in a fault of the upstream, or in a status of 500 and above."""
        self.service.failed(self, now)

    def release(self, server: "UpstreamSide[Any]") -> bool:
        """Keep an idle connection for later; False where enough are kept, and the caller closes it."""
        if len(self.idle) >= self.most:
            return False
        self.idle.append(server)
        return True

    def forget(self, server: "UpstreamSide[Any]") -> bool:
        """An idle connection is closed or closing: nobody is to be given it. False where nobody would have been."""
        try:
            self.idle.remove(server)
        except ValueError:
            return False
        return True

    def closed_idle(self, since: float, now: float) -> None:
        """The other side has closed a connection that was idle since then."""
        oldest = now - self.idle[0].idle_since if self.idle else 0.0
        self.idle_lifetime.closed(now - since, now, oldest)

    def look(self, now: float) -> None:
        """Twice a second: keep no connection until the other side closes it."""
        self.idle_lifetime.look(now)
        if self.idle:
            self.idle_lifetime.opened(now - self.idle[0].idle_since)
        seconds = self.idle_lifetime.seconds
        if seconds < self.service.idle_timeout:
            for server in self.idle:
                server.keep_at_most(seconds)

    def retire(self) -> "Sequence[IdleConnection]":
        """The address is no longer one of the service: keep no connection. Returns those that were, to be closed."""
        idle, self.idle, self.most = self.idle, [], 0
        return idle


class ConfiguredEndpoint:
    """An endpoint as configured, and the addresses behind its name."""

    __slots__ = ("known", "settings", "tier")

    def __init__(self, settings: "EndpointSettings", tier: int) -> None:
        self.settings = settings
        self.tier = tier
        self.known: dict[str, Endpoint] = {}


class Service:
    """What the configuration calls an upstream."""

    __slots__ = (
        "_chance",
        "_ejections",
        "_log",
        "_origins",
        "_outliers",
        "_pairs_in",
        "attempts",
        "breaker",
        "budget",
        "buffer",
        "connect_timeout",
        "endpoints",
        "head",
        "host",
        "idle_timeout",
        "name",
        "next_pair",
        "pool",
        "region",
        "seconds",
        "timeouts",
    )

    def __init__(
        self,
        name: str,
        settings: "Upstream",
        region: str,
        seconds: "Histogram",
        pending: "SharedGauge | None" = None,
        ejections: "Counter | None" = None,
        chance: random.Random | None = None,
    ) -> None:
        """`region` is the edge's own; `pending` is counted in where the settings have a breaker, `ejections` always."""
        self.name = name
        self.region = region
        self.seconds = seconds
        self.timeouts = settings.timeouts
        self.connect_timeout = settings.timeouts.connect
        self.idle_timeout = settings.timeouts.idle
        self.pool = settings.pool
        self.buffer = settings.buffer
        """Bytes of a body that is taken in whole before an endpoint is asked; None: it passes as it comes."""
        self.head = settings.head
        """Bytes of an answer's head at most."""
        self.host = settings.host
        self.attempts = settings.retry.attempts
        self.budget = RetryBudget(settings.retry.budget, lambda: seconds.count)
        self._ejections = ejections
        self.breaker = None
        if settings.breaker is not None and pending is not None:
            self.breaker = CircuitBreaker(settings.breaker.pending, pending)
        self._outliers: OutlierDetector[Endpoint] | None = None
        if settings.eject is not None:
            self._outliers = OutlierDetector(settings.eject.errors, settings.eject.for_)
        self._log = log.RateLimitedLog(LOG_SECONDS)
        self._chance = chance or random.Random()
        tiers = compute_tiers([endpoint.region for endpoint in settings.endpoints], region)
        self._origins = [ConfiguredEndpoint(each, tier) for each, tier in zip(settings.endpoints, tiers, strict=True)]
        self.endpoints: tuple[Endpoint, ...] = ()
        """Every address that is known."""
        self.next_pair: Callable[[], Pair] = self._draw_first_pair
        """The next two that a choice is between; the first call after anything has changed draws them anew."""
        self._pairs_in: dict[str, Callable[[], Pair]] = {}
        """Of each region that was asked for since, its next two."""
        # A name has no address until the supervisor tells it; an address is its own.
        literal = [[each.settings.host] if addresses.is_address(each.settings.host) else [] for each in self._origins]
        self.update([EndpointAddresses(addresses, addresses) for addresses in literal])

    # ---- the choice

    def select(self) -> Endpoint:
        """The endpoint that a request is to go to: the less loaded of two taken at random, see load_balancing.py.

        Raises UpstreamError: dns_error where no address is known, destination_unavailable where all are down,
        connection_limit_reached where the breaker is open. With a breaker, each ends with one call of `heard`.
        """
        if self.breaker is not None:
            self.breaker.enter()
        one, other = self.next_pair()
        # Not to the other one unless that is less loaded with the request than this one is without: a service of a
        # small weight would otherwise get whatever comes while it is idle and the others are not.
        return one if one.outstanding * other.weight < (other.outstanding + 1) * one.weight else other

    def select_in(self, region: str) -> Endpoint:
        """As `select`, but among this region's endpoints, while any of them is up and not ejected."""
        next_pair = self._pairs_in.get(region)
        if next_pair is None:
            there = [each for each in self.endpoints if each.region == region and each.up and not each.out]
            if not there:
                return self.select()
            next_pair = self._pairs_in[region] = self._cycle_pairs(there)
        if self.breaker is not None:
            self.breaker.enter()
        one, other = next_pair()
        return one if one.outstanding * other.weight < (other.outstanding + 1) * one.weight else other

    def other_than(self, tried: "Sequence[Endpoint]") -> Endpoint | None:
        """Of the nearest endpoints beside those the one with the fewest errors in a row, of equals the least loaded.

        One that is left out is better than none. None where there is no other that is up.
        """
        others = [each for each in self.endpoints if each.up and each not in tried]
        # One that refuses at once is the least loaded of all, so who has failed lately comes last.
        return min(
            others,
            key=lambda each: (each.out, each.tier, each.errors, each.outstanding / each.weight),
            default=None,
        )

    def available(self) -> list[Endpoint]:
        """The endpoints among which is chosen: of the nearest region that has any, those that are up and not ejected.

        Where only ejected ones are up, all these, near and far: any answer may be better than none.
        """
        up = [each for each in self.endpoints if each.up]
        there = [each for each in up if not each.out]
        if not there:
            return up
        nearest = min((each.tier for each in there), default=0)
        return [each for each in there if each.tier == nearest]

    def _redraw(self) -> None:
        # Drawn when next needed, so that many changes at once cost one drawing.
        self.next_pair = self._draw_first_pair
        self._pairs_in.clear()

    def _draw_first_pair(self) -> Pair:
        available = self.available()
        if available:
            self.next_pair = self._cycle_pairs(available)
        else:
            self.next_pair = self._raise_unavailable
        return self.next_pair()

    def _cycle_pairs(self, among: "Sequence[Endpoint]") -> "Callable[[], Pair]":
        """Drawn pairs of these endpoints, one after another, over and over."""
        return itertools.cycle(draw_pairs(among, self._chance)).__next__

    def _raise_unavailable(self) -> NoReturn:
        self.record_response()
        if self.endpoints:
            raise UpstreamError("destination_unavailable", "No endpoint of the upstream is up", status=503)
        raise UpstreamError("dns_error", "The upstream's name could not be resolved")

    # ---- what is learnt of endpoints

    def update(self, listing: Iterable[EndpointAddresses]) -> "Sequence[IdleConnection]":
        """Take over which addresses there are: those of each configured endpoint, in order.

        An address that remains keeps its connections and its record. Returns the idle connections to those that are
        gone, to be closed; what is in use to them is closed when its exchange is over.
        """
        gone: list[IdleConnection] = []
        changed = False
        for origin, now in zip(self._origins, listing, strict=True):
            for address in [each for each in origin.known if each not in now.addresses]:
                gone += origin.known.pop(address).retire()
                changed = True
            for address in now.addresses:
                endpoint = origin.known.get(address)
                if endpoint is None:
                    endpoint = origin.known[address] = Endpoint(self, origin.settings, address, origin.tier)
                    changed = True
                up = address in now.up
                changed = changed or endpoint.up is not up
                if up and self._outliers is None:
                    endpoint.out = False
                if up and not endpoint.up and self._outliers is not None:
                    self._outliers.pardon(endpoint)
                endpoint.up = up
        if changed:
            self.endpoints = tuple(endpoint for origin in self._origins for endpoint in origin.known.values())
            self._redraw()
        return gone

    def retire(self) -> "Sequence[IdleConnection]":
        """No request begins with the service any more; what has begun goes on. Returns idle connections, to be closed.

        What is in use is closed when its exchange is over.
        """
        self._redraw()  # Nobody chooses any more, so the pairs need not be there.
        return [server for endpoint in self.endpoints for server in endpoint.retire()]

    def dissolve(self) -> None:
        """The last exchange with it is over: let go of the endpoints, which hold the service.

        So the memory is free at once, and nobody has to search for it.
        """
        self._origins, self.endpoints, self._outliers = [], (), None
        del self.next_pair

    def orphaned(self, now: float) -> None:
        """Nobody probes any more: what was down counts as ejected. It is left out, and better than none."""
        for endpoint in self.endpoints:
            if not endpoint.up:
                endpoint.up = True
                if self._outliers is None:
                    endpoint.out = True
                elif not endpoint.out:
                    self._outliers.leave_out(endpoint, now)
                endpoint.watched = True
        self._redraw()

    def passed(self, endpoint: Endpoint) -> None:
        """A request to an endpoint that was left out then ended well: where all are, this one is back."""
        up = [each for each in self.endpoints if each.up]
        if self._outliers is not None and endpoint in up and all(each.out for each in up):
            self._outliers.pardon(endpoint)
            self._log.error("endpoint asked again", endpoint.label, upstream=self.name)
            self._redraw()

    def failed(self, endpoint: Endpoint, now: float) -> None:
        """A request to this endpoint failed; it is left out for a while if it was one too many."""
        if self._outliers is None:
            return
        endpoint.watched = True
        if self._outliers.failed(endpoint, now, self.endpoints):
            self._log.error("endpoint left out", endpoint.label, upstream=self.name)
            if self._ejections is not None:
                self._ejections.add(1)
            self._redraw()

    def record_response(self) -> None:
        """A request's answer has begun, or none will come."""
        if self.breaker is not None:
            self.breaker.leave()

    def look(self, now: float) -> None:
        """Twice a second: whose time is over, and how many retries there may be."""
        self.budget.look(now)
        for endpoint in self.endpoints:
            endpoint.look(now)
        back = [] if self._outliers is None else self._outliers.back(now)
        for endpoint in back:
            self._log.error("endpoint asked again", endpoint.label, upstream=self.name)
        if back:
            self._redraw()


def compute_tiers(regions: "Sequence[str | None]", own: str) -> list[int]:
    """How far away each endpoint is, from the regions of all: 0 for the own one or none, then as first listed."""
    others = list(dict.fromkeys(region for region in regions if region not in (None, own)))
    return [0 if region in (None, own) else 1 + others.index(region) for region in regions]
