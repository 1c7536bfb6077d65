"""A configuration as a worker uses it: everything resolved, nothing changed once made.

A request sees one snapshot from its start to its end; a new configuration is a new snapshot.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeproxy.clock import EPOCH
from edgeproxy.http1 import grammar, lines
from edgeproxy.http1.request import RequestHead, read_fields
from edgeproxy.limits.policies import Policies, Policy
from edgeproxy.limits.rule import Rule
from edgeproxy.proxy.access import AccessLog
from edgeproxy.proxy.address import Addresses
from edgeproxy.proxy.identity import ANONYMOUS, Directory, Identity
from edgeproxy.proxy.lane import NOBODY, Lane, Route
from edgeproxy.proxy.memory import remember
from edgeproxy.proxy.pool import Service
from edgeproxy.proxy.router import NO_SITE, Router, Site
from edgeproxy.proxy.tls import Outward

if TYPE_CHECKING:
    from edgeproxy.config.models import Limit, Settings
    from edgeproxy.counters.store import Store
    from edgeproxy.proxy.counts import Counts

Meaning = tuple[Identity, Site[Route], bytes, bytes, int, "tuple[bytes, bytes] | None", RequestHead]
"""What a block of field lines means: who asks, what its host serves (NO_SITE where no Host was sent), the lines of
its credentials, those that are kept, the body's length in bytes, the trace, and the rest."""

NO_LIMIT = 1 << 62
"""Bytes of a body where none is too long."""


class Snapshot:
    """One configuration. Times are in seconds, sizes in bytes."""

    def __init__(self, settings: "Settings", store: "Store", counts: "Counts") -> None:
        hosts = 1  # Edges that share limits through a hub; with memory:// this one alone.
        self._people = Policies(store.people, hosts=hosts, full=lambda: counts.table_full("people"))
        addresses = Policies(store.addresses, hosts=hosts, full=lambda: counts.table_full("addresses"))
        self.services = {
            name: Service(
                name,
                upstream,
                settings.region,
                counts.upstream_seconds(name),
                None if upstream.breaker is None else counts.upstream_pending(name),
            )
            for name, upstream in settings.upstreams.items()
        }
        self.router = Router(Route(route, self.services[route.upstream], counts) for route in settings.routes)
        # Where usage is counted when the table has no row left; these must have theirs before that.
        self.unnamed = [counts.usage(NOBODY, meter, NOBODY) for meter in settings.meters]
        self.directory = Directory(settings, self._policies, counts)
        anonymous = settings.tiers.get(ANONYMOUS)
        guard = settings.per_ip
        self.addresses = Addresses(
            addresses,
            settings.trusted_proxies,
            None if guard is None else Rule("per_ip", guard.count, guard.window, scope="guard"),
            () if anonymous is None else [rule(limit, scope="ip") for limit in anonymous.limits],
        )
        secret = settings.stamp_secret
        self.sign = None if secret is None else Signature(secret, settings.region)
        self.legacy_headers = settings.legacy_headers
        self.security_headers = settings.security_headers
        self.access = None if settings.access_log is None else AccessLog(settings.access_log, settings.region)
        self.sizes = grammar.Limits(head=settings.limits.head, fields=settings.limits.fields)
        self.longest_body = NO_LIMIT if settings.limits.body is None else settings.limits.body
        self.header_timeout = settings.limits.header_timeout
        self.body_idle = settings.limits.body_idle
        self.keepalive_idle = settings.limits.keepalive_idle
        self.connections = settings.limits.connections
        self.connections_per_ip = settings.limits.connections_per_ip
        self.pipelined = settings.limits.pipelined
        self.outward = {
            name: Outward(upstream.tls)
            for name, upstream in settings.upstreams.items()
            if any(endpoint.scheme == "https" for endpoint in upstream.endpoints)
        }
        """How the edge speaks TLS with each upstream that has it."""
        self.heads: tuple[dict[bytes, Meaning], dict[bytes, Meaning]] = ({}, {})
        """Header blocks seen before, of ordinary peers and of trusted proxies."""

    def understand(self, block: bytes, trusted: bool) -> Meaning:
        """What a block of field lines means; raises Refused where it has no one meaning.

        Remembered only where it will come again and can do no harm: a trace is new in each request, an unknown
        key must not be known to anyone, and what a trusted proxy says of its client is that client's alone.
        """
        host, key, credentials, keep, length, trace, head = read_fields(block, trusted, self.sizes.fields)
        identity = self.directory.resolve(key, credentials)
        site = NO_SITE if host is None else self.router.site(host)
        meaning: Meaning = (identity, site, credentials, keep, length, trace, head)
        if trace is None and identity is not self.directory.unknown and not is_personal(head):
            remember(self.heads[trusted], block, meaning)
        return meaning

    def endpoints_changed(self, services: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """What the supervisor tells of endpoints: of each service, and each of its endpoints as configured, in order,
        which `addresses` it has and which of them are `up`."""
        for name, listing in services.items():
            service = self.services.get(name)
            if service is not None:
                for server in service.update(listing):
                    server.close()

    def lacks_addresses(self) -> bool:
        """Whether there is a service of which no address is known."""
        return not all(service.endpoints for service in self.services.values())

    def look(self, now: float) -> None:
        """Twice a second: what has come to pass with time alone. `now` is of the monotonic clock."""
        for service in self.services.values():
            service.look(now)

    def forget(self) -> None:
        """Drop every memory of what bytes mean: of blocks, of field lines, of keys."""
        for memory in self.heads:
            memory.clear()
        self.directory.forget()
        lines.forget()

    def _policies(self, customer: str, limits: "tuple[Limit, ...]") -> tuple[Policy, ...]:
        return tuple(self._people.of(rule(limit), customer.encode()) for limit in limits)


def is_personal(head: RequestHead) -> bool:
    """Whether a trusted proxy's head speaks of one client, or of one request."""
    return head.forwarded_for is not None or head.request_id is not None


def rule(limit: "Limit", *, scope: str = "customer") -> Rule:
    """A configured limit as the limits room knows it."""
    return Rule(limit.name, limit.count, limit.window, scope, limit.algorithm, limit.mode)


class Signature:
    """X-Edge-Signature, by which an upstream knows that the edge sent a request and stamped it.

    `t=UNIX,v1=HEX`, an HMAC-SHA-256 over `t.request-id.customer.tier.region`.
    """

    def __init__(self, secret: str, region: str) -> None:
        self._keyed = hmac.new(secret.encode(), digestmod=hashlib.sha256)
        self._region = region

    def __call__(self, request_id: bytes, lane: Lane, now: float) -> bytes:
        """The line for a request at this edge time, with its CRLF."""
        unix = int(now + EPOCH)
        signed = self._keyed.copy()
        signed.update(b"%d.%b" % (unix, request_id))
        signed.update(f".{lane.customer}.{lane.tier}.{self._region}".encode())
        return b"X-Edge-Signature: t=%d,v1=%b\r\n" % (unix, signed.hexdigest().encode())
