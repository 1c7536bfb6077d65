"""A configuration as a worker uses it: everything resolved, nothing changed once made.

A request sees one snapshot from its start to its end; a new configuration is a new snapshot.
"""

from collections import OrderedDict
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from edgeproxy.base.lru_cache import BytesCache
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1 import grammar, lines, security_fields
from edgeproxy.edge.http1.changing_lines import (
    Changing,
    cut_key,
    cut_lines,
    find_changing,
    fits_rest,
    list_key_beginnings,
)
from edgeproxy.edge.http1.fields import FieldRules
from edgeproxy.edge.http1.lines import VIA_LINE
from edgeproxy.edge.http1.region_fields import format_region_lines
from edgeproxy.edge.http1.request import RequestFields, RequestHead, read_fields, read_plain_fields
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.route_limits import PolicyTables
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.proxy.access_log import AccessLog
from edgeproxy.edge.proxy.address import Addresses, AddressSettings
from edgeproxy.edge.proxy.cors import CrossOrigin
from edgeproxy.edge.proxy.error_bodies import create_error_bodies, find_errors
from edgeproxy.edge.proxy.identity import UNRESOLVED, Directory, Identity, TokenDigest
from edgeproxy.edge.proxy.labels import NO_LABEL
from edgeproxy.edge.proxy.path_rules import PathRules
from edgeproxy.edge.proxy.pool import Service
from edgeproxy.edge.proxy.route_binding import Route
from edgeproxy.edge.proxy.router import NO_SITE, Router, Site
from edgeproxy.edge.proxy.signature import Signature

if TYPE_CHECKING:
    from edgeproxy.config.edge.fallback import Fallback
    from edgeproxy.config.edge.routes import Route as RouteSettings
    from edgeproxy.config.edge.settings import EdgeSettings, Limits
    from edgeproxy.config.edge.upstreams import Upstream
    from edgeproxy.config.tracing import Tracing
    from edgeproxy.edge.counters.store import Store
    from edgeproxy.edge.http1.security_fields import SecurityLines
    from edgeproxy.edge.limits.policies import Sharing
    from edgeproxy.edge.messages import Services
    from edgeproxy.edge.proxy.exchange_sides import ClientSide
    from edgeproxy.edge.proxy.key_lookup import KeyLookup
    from edgeproxy.edge.proxy.prepared_configuration import PreparedConfiguration
    from edgeproxy.edge.proxy.tracer import Tracer
    from edgeproxy.edge.proxy.worker_metrics import WorkerMetrics

BlockMeaning = tuple[Identity, Site[Route], bytes, bytes, int, "grammar.TraceParent | None", RequestHead]
"""The meaning of a block of field lines: who asks, what its host serves (NO_SITE where no Host was sent), the lines of
its credentials, those that are kept, the body's length in bytes, the trace, and the rest."""

HeadMeaning = tuple[bytes, bytes, bytes, BlockMeaning]
"""The meaning of a whole head: method, path, request line with its CRLF, and that of its fields."""

RestMeaning = tuple[Changing, BlockMeaning]
"""Which lines of a block were left out, and the meaning of the block without them, and without Via among the lines
kept."""

KEY_ALONE: Changing = ()
"""What changes where only the line of a key is left out."""

OFFERS_PER_WHOLE = 8
"""Blocks of many customers of which one is offered to the memory of whole blocks: who asks often is in it soon, and the
others cost it little."""

HEADS_MAX, HEAD_BYTES_MAX = 1024, 4096
"""Bounds of a memory of heads: heads, and bytes of each; longer ones are rare, and read each time."""

YOUNGER_MAX = HEADS_MAX // 2
"""Heads in the younger generation of a memory that is full."""

V = TypeVar("V")

WORTH_COMPARING = frozenset((3, 6, 12))
"""Of which heads of a client, counted where they had to be read as a whole, it is looked which lines are new. In the
first all may be, and one may differ once; and if it has not helped three times, it will not."""
HEADS_COUNTED = max(WORTH_COMPARING)

NO_LIMIT = 1 << 62
"""Bytes of a body where none is too long."""


class Snapshot:
    """A configuration as it is served. Times are in seconds, sizes in bytes."""

    def __init__(
        self,
        draft: "PreparedConfiguration",
        store: "Store",
        metrics: "WorkerMetrics",
        before: "Snapshot | None" = None,
        sharing: "Sharing | None" = None,
        key_lookup: "KeyLookup | None" = None,
    ) -> None:
        """`before` is the snapshot that is served now: what the new one has in common with it is taken over as it is,
        with its connections, its memories and its records. Nothing else holds the other. `sharing` makes limits known
        to other hosts, where they share them; `key_lookup` knows who there is beside those of the files.

        Raises RowUnavailableError where a table has no room for what is to be counted.
        """
        settings = draft.settings
        self._metrics, self._region, self._region_fields = metrics, settings.region, settings.region_fields
        self.sets_region = "X-Edge-Region" in settings.region_fields
        """Whether an upstream's own X-Edge-Region is replaced."""
        # Those of before have what they count themselves, where the tables have no room.
        self._tables: PolicyTables = before._tables if before is not None else _create_tables(store, metrics, sharing)
        self._upstreams, self._rules = settings.upstreams, settings.rules
        pairs = [(each.upstream, each.fallback.upstream) for each in settings.routes if each.fallback is not None]
        self._ejecting_last = {name for pair in pairs for name in pair}
        """The names of the upstreams of routes with a fallback, of which the only endpoint is ejected, too."""
        self.services = {
            name: self._create_service(name, upstream, before) for name, upstream in settings.upstreams.items()
        }
        self._has_security_fields = bool(settings.security_headers)
        self.cors = None if settings.cors is None else CrossOrigin(settings.cors)
        """The pages that may call routes that say nothing of it."""
        self.error_bodies = create_error_bodies(settings.errors)
        """The form of errors of requests without a route; None: problems."""
        self.router = Router(map(self._create_route, settings.routes))
        # Where usage is counted when the table has no row left; these must have theirs before that.
        self.unnamed = [metrics.get_usage_counter(NO_LABEL, meter, NO_LABEL) for meter in settings.meters]
        self.lines = lines.RequestLines(_create_field_rules(settings))
        self.directory = Directory(settings, draft.customers, self._tables, metrics, key_lookup)
        self.query_key = None if settings.auth.query is None else settings.auth.query.encode()
        """The parameter of queries that may hold a key."""
        self.addresses = self._create_addresses(settings, before)
        secret = settings.stamp_secret
        self.sign = (
            None if secret is None else Signature(secret, settings.region, whole=settings.stamp_signature == "v2")
        )
        self.legacy_headers = settings.legacy_headers
        security_lines = (b"", b"") if settings.security_headers is False else security_fields.OWN_LINES
        region_lines = format_region_lines(settings.region_fields, settings.region, own=True)
        self.own_lines = tuple([region_lines + lines for lines in security_lines])
        """The lines of the edge's own answers that name the region and are for browsers, by whether the client came
        over TLS."""
        self.has_cors = self.cors is not None or any(route.cors for route in settings.routes)
        """Whether any of the edge's own answers says which pages may see it."""
        self.has_error_bodies = self.error_bodies is not None or any(map(find_errors, settings.routes))
        """Whether any error has another body than a problem."""
        self._access_log_settings = settings.access_log
        self.access_log = self._create_access_log(before)
        self.tracer = self._create_tracer(settings.tracing, before)
        self.records_ends = self.access_log is not None or self.tracer is not None
        """Whether anything is to be done at the end of a request beside counting."""
        self._set_limits(settings.limits)
        self.paths = PathRules(settings.paths)
        self.usual_line = self.paths.usual_line
        self.drain_seconds = settings.drain
        self.overload = settings.overload
        self.upstream_tls = draft.upstream_tls
        """The TLS settings towards each upstream that has it."""
        self.heads: tuple[BytesCache[BlockMeaning], ...] = _create_head_caches()
        """Header blocks seen before, of ordinary peers and of trusted proxies."""
        self.whole_heads: tuple[BytesCache[HeadMeaning], ...] = _create_head_caches()
        """Requests without a body seen before whose blocks are remembered, likewise."""
        self.rests: BytesCache[RestMeaning] = BytesCache(HEADS_MAX, HEAD_BYTES_MAX)
        """What blocks of ordinary peers have in common that differ in the lines that change with each request."""
        self.shared: BytesCache[RestMeaning] = BytesCache(HEADS_MAX, HEAD_BYTES_MAX)
        """The same without the line of the key, which is another customer's each time."""
        self._key_beginnings = list_key_beginnings(settings.auth.fields)
        self._shared_seen: set[int] = set()
        """Hashes of such blocks that came once."""
        self._offers = 0
        """Blocks read without the line of their key, as far as OFFERS_PER_WHOLE goes."""

    def _set_limits(self, limits: "Limits") -> None:
        """Set the bounds of requests and connections."""
        self.head_limits = grammar.HeadLimits(head=limits.head, fields=limits.fields)
        self.max_body_bytes = NO_LIMIT if limits.body is None else limits.body
        self.max_buffered_bytes = limits.buffered
        self.max_held_bytes = limits.held
        self.header_timeout = limits.header_timeout
        self.body_idle = limits.body_idle
        self.body_idle_bytes = max(1, int(self.body_idle * (limits.body_rate or 0)))
        """Bytes of a body that have to come, or to be taken, within `body_idle`."""
        self.keepalive_idle = limits.keepalive_idle
        self.max_connections = limits.connections
        self.max_connections_per_ip = limits.connections_per_ip
        self.max_pipelined = limits.pipelined

    def _create_route(self, route: "RouteSettings") -> Route:
        upstream = None if route.upstream is None else self._upstreams[route.upstream]
        service = None if route.upstream is None else self.services[route.upstream]
        base = "" if upstream is None else upstream.endpoints[0].path or ""
        cors = self._create_cross_origin(route)
        fallback = None if route.fallback is None else self._create_route(lead_to_fallback(route, route.fallback))
        return Route(
            route,
            service,
            self._metrics,
            cors=cors,
            base=base,
            rules=self._rules,
            fallback=fallback,
            security_lines=self._find_security_lines(route),
            error_bodies=create_error_bodies(find_errors(route)) if find_errors(route) else self.error_bodies,
        )

    def _find_security_lines(self, route: "RouteSettings") -> "SecurityLines | None":
        """Return the lines to add to answers of a route's upstream; None: none."""
        if route.isolation_headers:
            return security_fields.build_isolation_lines()
        return security_fields.MISSING_LINES if self._has_security_fields else None

    def _create_cross_origin(self, route: "RouteSettings") -> CrossOrigin | None:
        if route.cors is None:
            return self.cors
        return None if route.cors == "off" else CrossOrigin(route.cors)

    def forwards_key(self, route: Route) -> bool:
        """Return whether the route's upstream is to see keys, by its setting `forward_key`."""
        upstream = route.settings.upstream
        return upstream is not None and self._upstreams[upstream].forward_key

    def refresh_hosts(self) -> None:
        """Refresh how many hosts share the limits now."""
        for policies in self._tables:
            policies.refresh_hosts()

    def _create_service(self, name: str, upstream: "Upstream", before: "Snapshot | None") -> Service:
        # The region decides which endpoints are near, and their answers name it.
        if before is not None and before._get_service_terms(name) == self._get_service_terms(name):
            return before.services[name]
        pending = None if upstream.breaker is None else self._metrics.upstream_pending(name)
        metrics = self._metrics
        return Service(
            name,
            upstream,
            self._region,
            metrics.upstream_seconds(name),
            pending,
            metrics.upstream_ejections(name),
            region_fields=self._region_fields,
            ejects_last=name in self._ejecting_last,
        )

    def _get_service_terms(self, name: str) -> tuple[object, ...]:
        """Return all that a service depends on; one of the snapshot before is kept while it is the same."""
        return self._upstreams.get(name), self._region, self._region_fields, name in self._ejecting_last

    def _create_addresses(self, settings: "EdgeSettings", before: "Snapshot | None") -> Addresses:
        guard, rate = settings.per_ip, settings.limits.connection_rate
        terms = AddressSettings(
            settings.trusted_proxies,
            None if guard is None else Rule("per_ip", guard.count, guard.window, scope="guard"),
            None if rate is None else Rule("connections", rate.count, rate.seconds, scope="connection"),
            settings.networks,
            settings.limits.ipv6_prefix,
        )
        if before is not None and before.addresses.settings == terms:
            return before.addresses
        return Addresses(self._tables.addresses, terms)

    def _create_access_log(self, before: "Snapshot | None") -> AccessLog | None:
        if self._access_log_settings is None:
            return None
        if (
            before is not None
            and before._access_log_settings == self._access_log_settings
            and before._region == self._region
        ):
            return before.access_log
        return AccessLog(self._access_log_settings, self._region)

    def _create_tracer(self, settings: "Tracing | None", before: "Snapshot | None") -> "Tracer | None":
        if settings is None:
            return None
        if before is not None and before.tracer is not None and before.tracer.settings == settings:
            return before.tracer
        # It needs packages of an extra, and some megabytes that those who trace nothing have no use for.
        from edgeproxy.edge.proxy.tracer import Tracer

        return Tracer(settings)

    def read_new_block(self, client: "ClientSide[Any]", block: bytes) -> BlockMeaning:
        """Read a block that is not remembered, as in `read_block`. Who traces one request traces them all, and who has
        sent lines that are new each time goes on to do so: what is remembered is the rest."""
        parts = None
        if not client.trusted:
            if client.changing is not None:
                meaning = self._read_changing_block(b"\r\n" + block, client.changing)
                if meaning is not None:
                    return meaning
            else:
                parts = cut_key(b"\r\n" + block, self._key_beginnings)
                if parts is not None and (known := self.shared[parts[0]]) is not None and known[0] == KEY_ALONE:
                    return self._add_key(block, known[1], parts[1], parts[2])
        client.changing = None
        if client.heads_read < HEADS_COUNTED and not client.trusted:
            client.heads_read += 1
            if client.heads_read in WORTH_COMPARING:
                client.changing = find_changing(block, self.lines, self.head_limits.fields)
        meaning = self.read_block(block, client.trusted)
        client.expects_new_head = meaning[5] is not None or client.changing is not None
        if parts is not None and not client.expects_new_head and self._is_known(meaning[0]):
            self._learn_shared(parts[0], KEY_ALONE)
        return meaning

    def _add_key(self, block: bytes, others: BlockMeaning, key: bytes, line: bytes) -> BlockMeaning:
        """Return the meaning of a block by that of all its lines but one, which is that of a key."""
        _, site, _, keep, length, trace, head = others
        identity = self.directory.resolve(key)
        meaning = identity, site, line, keep + VIA_LINE, length, trace, head
        heads = self.heads[False]
        if (len(heads) < YOUNGER_MAX or self._is_offered()) and self._is_known(identity):
            heads.store(block, meaning)
        return meaning

    def read_block(self, block: bytes, trusted: bool) -> BlockMeaning:
        """Read what a block of field lines means; raises RejectedError where it has no one meaning.

        Remembered only where it will come again and can do no harm: a trace is new in each request, an unknown key must
        not be known to anyone, and what a trusted proxy says of its client is that client's alone.
        """
        meaning = self._find_meaning(read_fields(block, trusted, self.head_limits.fields, self.lines))
        if meaning[5] is None and self._is_known(meaning[0]) and not is_personal(meaning[6]):
            self.heads[trusted].store(block, meaning)
        return meaning

    def _read_changing_block(self, block: bytes, changing: Changing) -> BlockMeaning | None:
        """Read what a block of an ordinary peer means, of which some lines change with each request; None where that is
        not to be told without reading all of it. `block` is that of `cut_lines`."""
        parts = cut_lines(block, changing)
        if parts is None:
            return None
        rest, lines, trace = parts
        known = self.rests[rest]
        if known is None or known[0] != changing:
            known = self._read_keyed_rest(rest, changing)
            if known is None:
                return None
        identity, site, credentials, keep, length, _, head = known[1]
        return identity, site, credentials, keep + lines + VIA_LINE, length, trace, head

    def _read_keyed_rest(self, rest: bytes, changing: Changing) -> RestMeaning | None:
        """Read what is left of a block without its changing lines: by what it has in common with those of other
        customers, if it has."""
        parts = cut_key(rest, self._key_beginnings)
        if parts is None:
            return self._read_rest(rest, changing)
        others, key, line = parts
        known = self.shared[others]
        if known is None or known[0] != changing:
            whole = self._read_rest(rest, changing)
            if whole is not None:
                self._learn_shared(others, changing)
            return whole
        _, site, _, keep, length, trace, head = known[1]
        identity = self.directory.resolve(key)
        meaning = changing, (identity, site, line, keep, length, trace, head)
        if (len(self.rests) < YOUNGER_MAX or self._is_offered()) and self._is_known(identity):
            self.rests.store(rest, meaning)
        return meaning

    def _is_offered(self) -> bool:
        """Return whether the block that is read now is one of those that are offered to the memory of whole ones."""
        self._offers = (self._offers + 1) % OFFERS_PER_WHOLE
        return not self._offers

    def _read_rest(self, rest: bytes, changing: Changing) -> RestMeaning | None:
        """Read what is left of a block without its changing lines; None where these could change what it means."""
        known = self._read_part(rest, changing, self.head_limits.fields)
        return None if known is None or not self._is_known(known[1][0]) else self.rests.store(rest, known)

    def _learn_shared(self, others: bytes, changing: Changing) -> None:
        """Remember what a block means without its changing lines and that of its key, where it has come before; unless
        there is another key, or any line that is more than passed on could change what they mean."""
        digest, seen = hash(others), self._shared_seen
        if digest not in seen:
            if len(seen) >= HEADS_MAX:
                seen.clear()
            seen.add(digest)
            return
        known = self._read_part(others, changing, self.head_limits.fields - 1)
        if known is not None and not known[1][2] and known[1][0] is self.directory.anonymous:
            self.shared.store(others, known)

    def _read_part(self, part: bytes, changing: Changing, most: int) -> RestMeaning | None:
        """Read what a part of a block means, of at most so many lines with those that were cut out of it."""
        if not fits_rest(part, changing, self.lines, most):
            return None
        try:
            fields = read_plain_fields(part[2:], most, self.lines)
        except RejectedError:
            return None
        if fields is None or fields[5] is not None:
            return None
        identity, site, credentials, keep, length, trace, head = self._find_meaning(fields)
        return changing, (identity, site, credentials, keep.removesuffix(VIA_LINE), length, trace, head)

    def _find_meaning(self, fields: RequestFields) -> BlockMeaning:
        host, key, credentials, keep, length, trace, head = fields
        site = NO_SITE if host is None else self.router.find_site(host)
        return self.directory.resolve(key), site, credentials, keep, length, trace, head

    def _is_known(self, identity: Identity) -> bool:
        """Return whether it may be remembered who sent a block."""
        people = self.directory
        return identity is people.anonymous or (identity is not people.unknown and identity.valid_until != UNRESOLVED)

    def update_endpoints(self, services: "Services") -> None:
        """Take over the endpoints' addresses, as the supervisor tells them."""
        for name, listing in services.items():
            service = self.services.get(name)
            if service is not None:
                for server in service.update_addresses(listing):
                    server.close()

    def lacks_addresses(self) -> bool:
        """Return whether there is a service of which no address is known."""
        return not all(service.endpoints for service in self.services.values())

    def sweep(self, now: float) -> None:
        """Do what comes with time alone, twice a second. `now` is of the monotonic clock."""
        for service in self.services.values():
            service.sweep(now)
        self.directory.count_lookups()

    def forget_customers(self, customers: Collection[str] | None) -> None:
        """Forget what was told of these customers of the directory; None: of any."""
        self.directory.forget_customers(customers)
        self._forget_heads()

    def refresh_flags(self) -> None:
        """Settle anew who has which flag."""
        self.directory.refresh_flags()
        self._forget_heads()

    def retire(self) -> "OrderedDict[bytes | TokenDigest, Identity]":
        """Let go of what only the beginnings of requests need: none begins under it any more.

        Returns what was remembered of keys, which may be much, for the caller to free piece by piece.
        """
        self._forget_heads()
        return self.directory.retire()

    def _forget_heads(self) -> None:
        for blocks in self.heads:
            blocks.clear()
        for whole in self.whole_heads:
            whole.clear()
        self.rests.clear()
        self.shared.clear()
        self._shared_seen.clear()
        self.lines.clear()
        lines.clear_response_caches()


def lead_to_fallback(route: "RouteSettings", fallback: "Fallback") -> "RouteSettings":
    """Return the settings of a route to its second upstream, whose answers are changed as those of the first one."""
    rewrite = fallback.rewrite.model_copy(update={"response": route.rewrite.response})
    return route.model_copy(update={"upstream": fallback.upstream, "rewrite": rewrite, "fallback": None})


def _create_head_caches() -> tuple[BytesCache[V], ...]:
    return BytesCache(HEADS_MAX, HEAD_BYTES_MAX), BytesCache(HEADS_MAX, HEAD_BYTES_MAX)


def _create_tables(store: "Store", metrics: "WorkerMetrics", sharing: "Sharing | None") -> PolicyTables:
    # Of quotas others count too where there is no hub: what these count is in the ledger.
    shared = None if store.customers.hub is None else sharing
    tables = (store.customers, store.addresses, store.quotas, store.end_users)
    return PolicyTables(
        *(Policies(table, full=partial(metrics.report_full_table, table.name), sharing=shared) for table in tables)
    )


def _create_field_rules(settings: "EdgeSettings") -> FieldRules:
    auth = settings.auth
    return FieldRules(
        tuple(field.lower().encode() for field in auth.fields),
        cookie=None if auth.cookie is None else auth.cookie.encode(),
        protocols=auth.websocket_protocol,
        basic=auth.basic,
        strip=tuple(name.lower() for name in settings.strip),
        strip_except=tuple(name.lower() for name in settings.strip_except),
    )


def is_personal(head: RequestHead) -> bool:
    """Return whether a trusted proxy's head speaks of one client, or of one request."""
    return head.forwarded_for is not None or head.request_id is not None
