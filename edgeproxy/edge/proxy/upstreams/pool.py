"""Upstream services: their endpoints, the choice between them, and the idle connections to each.

Everything here is pure and synchronous: a service returns an endpoint or raises the error for the client, and an
endpoint returns an idle connection or none. The caller opens and closes connections. Times are monotonic seconds.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NoReturn

from edgeproxy.base import log
from edgeproxy.config import addresses
from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.http1.region_fields import format_region_lines
from edgeproxy.edge.http1.response import NO_HEAD, NOT_PLAIN
from edgeproxy.edge.messages import EndpointAddresses
from edgeproxy.edge.proxy.transport.deadlines import NEVER
from edgeproxy.edge.proxy.upstreams.affinity import OWNERS_MAX, Affinity, compute_name, find_owner
from edgeproxy.edge.proxy.upstreams.circuit_breaker import CircuitBreaker
from edgeproxy.edge.proxy.upstreams.endpoint_states import CHOSEN, DOWN, EJECTED, HEALTHY, UP, EndpointEvent, advance
from edgeproxy.edge.proxy.upstreams.idle_pool import IdlePool
from edgeproxy.edge.proxy.upstreams.load_balancing import compute_tiers, draw_pairs
from edgeproxy.edge.proxy.upstreams.outlier_detection import OutlierDetector, end_ejections
from edgeproxy.edge.proxy.upstreams.retry_budget import RetryBudget

if TYPE_CHECKING:
    from edgeproxy.config.edge.upstreams import Endpoint as EndpointSettings
    from edgeproxy.config.edge.upstreams import Upstream
    from edgeproxy.edge.counters.meters import Counter, Histogram, SharedGauge
    from edgeproxy.edge.proxy.upstreams.idle_connection import IdleConnection

Pair = tuple["Endpoint", "Endpoint"]

LOG_SECONDS = 10.0
"""Seconds between two log lines about one endpoint."""


class Endpoint(IdlePool):
    """An address of a service, with this worker's knowledge of it."""

    __slots__ = (
        "address",
        "answer_lines",
        "authorities",
        "ejected_at",
        "ejected_until",
        "errors",
        "host",
        "latest_head",
        "latest_meaning",
        "outstanding",
        "port",
        "region",
        "scheme",
        "sent_host",
        "service",
        "state",
        "tier",
        "wants_results",
        "weight",
    )

    def __init__(self, service: "Service", settings: "EndpointSettings", address: str, tier: int) -> None:
        super().__init__(service.max_idle_connections)
        self.service = service
        self.host, self.port, self.scheme = settings.host, settings.port, settings.scheme
        """The host, port and scheme as configured; certificates and the log use these."""
        self.address = address
        """The IP address to connect to."""
        sent = settings.find_sent_host(service.host)
        self.sent_host = None if sent is None else sent.encode()
        """The Host field that it receives; None for the client's own."""
        own = str(addresses.Address(self.host, self.port)).encode()
        self.authorities = (own,) if self.sent_host is None else (own, self.sent_host)
        """The names that the service may use for itself in its answers, given the Host that the edge sends."""
        self.weight = settings.weight
        self.region = settings.region or service.region
        self.answer_lines = format_region_lines(service.region_fields, self.region) + b"X-Request-Id: "
        """The lines added to each of its answers: the region that served it, and the field name of X-Request-Id."""
        self.latest_head, self.latest_meaning = NO_HEAD, NOT_PLAIN
        """The head of its latest answer and its meaning, if that head is cached (plain_responses.py)."""
        self.tier = tier
        """The distance: 0 for the edge's own region, and one more for each region further down the list."""
        self.outstanding = 0
        """Requests that were sent and are not over."""
        self.state = HEALTHY
        """The state of the endpoint in the choice (endpoint_states.py)."""
        self.ejected_at = self.ejected_until = 0.0
        """The time of its last ejection, and the end of it."""
        self.errors = 0
        """Failed requests in a row, see OutlierDetector."""
        self.wants_results = service.breaker is not None
        """True if every answer must be recorded, including successful ones."""

    @property
    def origin(self) -> bytes:
        """The configured host and port, and the address: the name of the endpoint for affinity."""
        return f"{self.host}:{self.port} {self.address}".encode()

    @property
    def label(self) -> str:
        """The name of the endpoint in the log."""
        name = f"{self.host}:{self.port}"
        return name if self.address == self.host else f"{name} at {self.address}"

    def record_response(self, status: int, sent_at: float, now: float) -> None:
        """Record a complete answer.

        A caller may omit this for a status below 500 unless the endpoint `wants_results`.
        """
        self.service.record_response_start()
        if status >= 500:
            self.record_failure(now)
        else:
            self.record_success(sent_at)

    def apply(self, event: EndpointEvent) -> bool:
        """Go to the state that follows this event. Return whether the state changed."""
        before, self.state = self.state, advance(self.state, event)
        return self.state is not before

    def record_success(self, sent_at: float) -> None:
        """Record a success: the endpoint's earlier errors are forgotten, unless the request was sent before its
        ejection.
        """
        if self.state is EJECTED:
            if sent_at > self.ejected_at:
                self.service.record_success(self)
        else:
            self.errors = 0
            self.wants_results = self.service.breaker is not None
            self.apply(EndpointEvent.SUCCEEDED)

    def record_failure(self, now: float) -> None:
        """Record a request that ended in a fault of the upstream, or in a status of 500 and above."""
        self.service.record_failure(self, now)


class ConfiguredEndpoint:
    """An endpoint as configured, with one Endpoint per address of its name."""

    __slots__ = ("endpoints", "settings", "tier")

    def __init__(self, settings: "EndpointSettings", tier: int) -> None:
        self.settings = settings
        self.tier = tier
        self.endpoints: dict[str, Endpoint] = {}


def create_origins(settings: "Sequence[EndpointSettings]", region: str) -> list[ConfiguredEndpoint]:
    """Create the endpoints as configured; `region` is the edge's own."""
    tiers = compute_tiers([endpoint.region for endpoint in settings], region)
    return [ConfiguredEndpoint(endpoint, tier) for endpoint, tier in zip(settings, tiers, strict=True)]


class Service:
    """An upstream of the configuration."""

    __slots__ = (
        "_chance",
        "_ejections",
        "_log",
        "_origins",
        "_outliers",
        "_owners",
        "_pairs_in",
        "affinity",
        "attempts",
        "breaker",
        "budget",
        "connect_timeout",
        "endpoints",
        "host",
        "idle_timeout",
        "max_buffered_bytes",
        "max_head_bytes",
        "max_idle_connections",
        "name",
        "next_pair",
        "proxy_protocol",
        "region",
        "region_fields",
        "request_id_field",
        "response_seconds",
        "speaks_http2",
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
        region_fields: Sequence[str] = (),
        *,
        ejects_last: bool = False,
    ) -> None:
        """Create a service.

        `region` is the edge's own. `pending` counts pending requests if the settings have a breaker, `ejections` counts
        ejections. `region_fields` name the region in answers. `ejects_last`: even the only endpoint may be ejected.
        """
        self.name, self.response_seconds = name, seconds
        self.region, self.region_fields = region, region_fields
        self.speaks_http2 = settings.protocol != "http/1.1"
        """True if its requests use HTTP/2."""
        self.timeouts = timeouts = settings.timeouts
        self.connect_timeout, self.idle_timeout = timeouts.connect, timeouts.idle
        self.host, self.proxy_protocol = settings.sent_host, settings.proxy_protocol
        """`proxy_protocol`: the version of the header that states the client of each connection; None: no header."""
        # The header names one client, so the requests of another one need another connection.
        self.max_idle_connections = settings.pool if self.proxy_protocol is None else 0
        self.max_buffered_bytes = settings.buffer
        """The maximum of a body, in bytes, that the edge collects before it selects an endpoint. None: the body passes
        in pieces.
        """
        self.max_head_bytes = settings.head
        """The maximum of an answer's head in bytes."""
        own_field = settings.request_id_field
        self.request_id_field = None if own_field is None else own_field.lower().encode()
        """The answer field, in lower case, that has the service's own request id."""
        self.affinity = None if settings.balance is None else Affinity(settings.balance)
        """The affinity of requests to endpoints; None if each request goes to the less loaded endpoint."""
        self._owners: dict[tuple[bytes, str | None], Endpoint] = {}
        """Cached endpoints by affinity value. A change of endpoints clears it."""
        self.attempts = settings.retry.attempts
        self.budget = RetryBudget(settings.retry.budget, lambda: seconds.count)
        self._ejections, breaker, eject = ejections, settings.breaker, settings.eject
        self.breaker = None if breaker is None or pending is None else CircuitBreaker(breaker.pending, pending)
        self._outliers = None if eject is None else OutlierDetector(eject.errors, eject.for_, ejects_last=ejects_last)
        self._log, self._chance = log.RateLimitedLog(LOG_SECONDS), chance or random.Random()
        self._origins = create_origins(settings.endpoints, region)
        self.endpoints: tuple[Endpoint, ...] = ()
        """All known addresses."""
        self.next_pair: Callable[[], Pair] = self._draw_first_pair
        """Returns the next two endpoints to choose between. The first call after a change draws new pairs."""
        self._pairs_in: dict[str, Callable[[], Pair]] = {}
        """The same by region, for regions requested since the last change."""
        # A host name has no address until the supervisor sends it. A literal address is its own.
        hosts = (each.settings.host for each in self._origins)
        literal = [[host] if addresses.is_address(host) else [] for host in hosts]
        self.update_addresses([EndpointAddresses(addresses, addresses) for addresses in literal])

    # ---- the choice

    def select(self) -> Endpoint:
        """Select the endpoint of a request: the less loaded of two random endpoints, see load_balancing.py.

        Raises UpstreamError: dns_error if no address is known, destination_unavailable if all are down,
        connection_limit_reached if the breaker is open. With a breaker, each call must be followed by one call of
        `record_response_start`.
        """
        if self.breaker is not None:
            self.breaker.enter()
        one, other = self.next_pair()
        # The other one is chosen only if it stays less loaded with this request than the first is without it. Otherwise
        # a service of small weight would get every request that comes while it is idle and the others are not.
        return one if one.outstanding * other.weight < (other.outstanding + 1) * one.weight else other

    def select_in(self, region: str) -> Endpoint:
        """Select as `select` does, but among this region's endpoints while any of them can be chosen."""
        next_pair = self._pairs_in.get(region)
        if next_pair is None:
            there = [each for each in self.endpoints if each.region == region and each.state in CHOSEN]
            if not there:
                return self.select()
            next_pair = self._pairs_in[region] = self._cycle_pairs(there)
        if self.breaker is not None:
            self.breaker.enter()
        one, other = next_pair()
        return one if one.outstanding * other.weight < (other.outstanding + 1) * one.weight else other

    def select_for(self, value: bytes | None, region: str | None) -> Endpoint:
        """Select the endpoint for this affinity value: by hash, or by the name in a cookie.

        Without a value, or if that endpoint cannot be chosen, select as `select` and `select_in` do.
        """
        owner = None if value is None else self._find_owner(value, region)
        if owner is None:
            return self.select() if region is None else self.select_in(region)
        if self.breaker is not None:
            self.breaker.enter()
        return owner

    def _find_owner(self, value: bytes, region: str | None) -> Endpoint | None:
        """Find the endpoint of a value; None if it has none, or if that endpoint cannot be chosen."""
        affinity, key = self.affinity, (value, region)
        assert affinity is not None
        owner = self._owners.get(key)
        if owner is not None:
            return owner
        if affinity.cookie is not None:
            named = (each for each in self.endpoints if compute_name(each, affinity.secret) == value)
            owner = next((each for each in named if each.state in CHOSEN), None)
        elif available := self.list_available():
            near = [each for each in self.endpoints if each.region == region and each.state in CHOSEN]
            owner = find_owner(near or available, value, affinity.secret)
        if owner is not None:
            # An owner can be computed again, so a full cache is simply emptied.
            if len(self._owners) >= OWNERS_MAX:
                self._owners.clear()
            self._owners[key] = owner
        return owner

    def select_other(self, tried: "Sequence[Endpoint]") -> Endpoint | None:
        """Select an endpoint that was not tried, or None if no other is up.

        Prefers the nearest, then the one with the fewest errors in a row, then the least loaded. An ejected endpoint
        comes last, but is better than none.
        """
        others = [each for each in self.endpoints if each.state in UP and each not in tried]
        # An endpoint that refuses at once has the least load of all, so errors count before load.
        return min(
            others,
            key=lambda each: (each.state is EJECTED, each.tier, each.errors, each.outstanding / each.weight),
            default=None,
        )

    def has_chosen(self) -> bool:
        """Return whether any endpoint can be chosen: it is up and not ejected."""
        return any(each.state in CHOSEN for each in self.endpoints)

    def list_available(self) -> list[Endpoint]:
        """Return the endpoints to choose among: the endpoints of the nearest region that are up and not ejected.

        If all endpoints that are up are ejected, return all of these, near and far: any answer may be better than none.
        """
        chosen = [each for each in self.endpoints if each.state in CHOSEN]
        if not chosen:
            return [each for each in self.endpoints if each.state is EJECTED]
        nearest = min(each.tier for each in chosen)
        return [each for each in chosen if each.tier == nearest]

    def _redraw(self) -> None:
        # Pairs are drawn when next needed, so many changes at once cost one drawing.
        self.next_pair = self._draw_first_pair
        self._pairs_in.clear()
        self._owners.clear()

    def _draw_first_pair(self) -> Pair:
        available = self.list_available()
        if available:
            self.next_pair = self._cycle_pairs(available)
        else:
            self.next_pair = self._raise_unavailable
        return self.next_pair()

    def _cycle_pairs(self, among: "Sequence[Endpoint]") -> "Callable[[], Pair]":
        """Draw pairs of these endpoints. Return a function that cycles through them."""
        return itertools.cycle(draw_pairs(among, self._chance)).__next__

    def _raise_unavailable(self) -> NoReturn:
        self.record_response_start()
        if self.endpoints:
            raise UpstreamError("destination_unavailable", "No endpoint of the upstream is up", status=503)
        raise UpstreamError("dns_error", "The upstream's name could not be resolved")

    # ---- records of endpoints

    def update_addresses(self, listing: Iterable[EndpointAddresses]) -> "Sequence[IdleConnection]":
        """Take over the addresses of each configured endpoint, in order.

        A remaining address keeps its connections and its record. Return the idle connections to removed addresses, for
        closing; a busy connection to one is closed when its exchange is over.
        """
        gone: list[IdleConnection] = []
        changed = False
        for origin, now in zip(self._origins, listing, strict=True):
            for address in [each for each in origin.endpoints if each not in now.addresses]:
                removed = origin.endpoints.pop(address)
                removed.apply(EndpointEvent.ADDRESS_REMOVED)
                gone += removed.drain()
                changed = True
            for address in now.addresses:
                endpoint = origin.endpoints.get(address)
                if endpoint is None:
                    endpoint = origin.endpoints[address] = Endpoint(self, origin.settings, address, origin.tier)
                    changed = True
                if address not in now.up:
                    changed = endpoint.apply(EndpointEvent.CHECK_FAILED) or changed
                # A passed check readmits an endpoint that was down. An ejected one has failed requests, which the check
                # does not disprove.
                elif endpoint.state is DOWN or self._outliers is None:
                    endpoint.errors = 0
                    changed = endpoint.apply(EndpointEvent.CHECK_PASSED) or changed
        if changed:
            self.endpoints = tuple(endpoint for origin in self._origins for endpoint in origin.endpoints.values())
            self._redraw()
        return gone

    def retire(self) -> "Sequence[IdleConnection]":
        """Return the idle connections, for closing. No request begins any more, and active ones close theirs."""
        self._redraw()  # No request chooses any more, so the pairs are not needed.
        return [server for endpoint in self.endpoints for server in endpoint.drain()]

    def dissolve(self) -> None:
        """Drop the endpoints after the last exchange. They refer to the service, so this frees the memory at once."""
        self._origins, self.endpoints, self._outliers = [], (), None
        self.next_pair = _raise_dissolved

    def on_supervisor_lost(self, now: float) -> None:
        """Treat endpoints that are down as ejected, because their probes have ended: an ejected one is better than
        none.
        """
        for endpoint in self.endpoints:
            if endpoint.state is DOWN:
                endpoint.wants_results = True
                if self._outliers is None:
                    endpoint.ejected_until = NEVER
                    endpoint.apply(EndpointEvent.CHECKS_ENDED)
                else:
                    self._outliers.eject(endpoint, now, EndpointEvent.CHECKS_ENDED)
        self._redraw()

    def record_success(self, endpoint: Endpoint) -> None:
        """Readmit an ejected endpoint that answered well, if all endpoints that are up are ejected."""
        if self._outliers is not None and not self.has_chosen():
            endpoint.errors = 0
            endpoint.apply(EndpointEvent.SUCCEEDED)
            self._log.error("endpoint asked again", endpoint.label, upstream=self.name)
            self._redraw()

    def record_failure(self, endpoint: Endpoint, now: float) -> None:
        """Count a failed request to this endpoint. Eject the endpoint if it failed too often."""
        if self._outliers is None:
            return
        endpoint.wants_results = True
        if self._outliers.record_failure(endpoint, now, self.endpoints):
            self._log.error("endpoint left out", endpoint.label, upstream=self.name)
            if self._ejections is not None:
                self._ejections.add(1)
            self._redraw()

    def record_response_start(self) -> None:
        """Count that a request's answer has begun, or that none will come."""
        if self.breaker is not None:
            self.breaker.leave()

    def sweep(self, now: float) -> None:
        """End due ejections, and update the budget of retries; called twice a second."""
        self.budget.sweep(now)
        for endpoint in self.endpoints:
            endpoint.limit_idle(self.idle_timeout, now)
        back = end_ejections(self.endpoints, now)
        for endpoint in back:
            self._log.error("endpoint asked again", endpoint.label, upstream=self.name)
        if back:
            self._redraw()


def _raise_dissolved() -> NoReturn:
    raise AssertionError("no request begins with a service of which the last exchange is over")
