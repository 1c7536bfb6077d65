"""A configuration as a worker uses it: all references are resolved, and it never changes.

A request uses one snapshot from its start to its end. A new configuration makes a new snapshot.
"""

from collections.abc import Collection, Mapping
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from edgeproxy.base.lru_cache import BytesCache
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1 import grammar, lines, security_fields
from edgeproxy.edge.http1.changing_lines import (
    Changing,
    KeyPlace,
    cut_key,
    cut_lines,
    find_changing,
    fits_rest,
    list_key_beginnings,
)
from edgeproxy.edge.http1.fields import FieldRules
from edgeproxy.edge.http1.grammar import is_field_value
from edgeproxy.edge.http1.lines import VIA_LINE
from edgeproxy.edge.http1.region_fields import format_region_lines
from edgeproxy.edge.http1.request import RequestFields, RequestHead, read_fields, read_plain_fields
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.route_limits import PolicyTables
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.proxy.exchange.error_bodies import create_error_bodies, find_errors, find_top_errors
from edgeproxy.edge.proxy.metering.labels import NO_LABEL
from edgeproxy.edge.proxy.observation.access_log import AccessLog
from edgeproxy.edge.proxy.routing.binding import Route
from edgeproxy.edge.proxy.routing.cors import CrossOrigin
from edgeproxy.edge.proxy.routing.identity import UNRESOLVED, Directory, Identity, TokenDigest
from edgeproxy.edge.proxy.routing.path_rules import PathRules
from edgeproxy.edge.proxy.routing.router import NO_SITE, Router, Site
from edgeproxy.edge.proxy.routing.signature import Signature
from edgeproxy.edge.proxy.transport.address import Addresses, AddressSettings
from edgeproxy.edge.proxy.upstreams.pool import Service

if TYPE_CHECKING:
    from edgeproxy.config.edge.fallback import Fallback
    from edgeproxy.config.edge.routes import Route as RouteSettings
    from edgeproxy.config.edge.settings import EdgeSettings, Limits
    from edgeproxy.config.edge.upstreams import Upstream
    from edgeproxy.config.tracing import Tracing
    from edgeproxy.edge.counters.rows import LimitTable
    from edgeproxy.edge.counters.store import Store
    from edgeproxy.edge.http1.security_fields import SecurityLines
    from edgeproxy.edge.limits.policies import Sharing
    from edgeproxy.edge.messages import Services
    from edgeproxy.edge.proxy.exchange.prepared_configuration import PreparedConfiguration
    from edgeproxy.edge.proxy.exchange.sides import ClientSide
    from edgeproxy.edge.proxy.metering.worker_metrics import WorkerMetrics
    from edgeproxy.edge.proxy.observation.tracer import Tracer
    from edgeproxy.edge.proxy.routing.identity_memory import IdentityMemory
    from edgeproxy.edge.proxy.routing.key_lookup import KeyLookup

BlockMeaning = tuple[Identity, Site[Route], bytes, bytes, int, "grammar.TraceParent | None", RequestHead]
"""The meaning of a block of field lines: identity of the sender, site of its host (NO_SITE if no Host was sent),
credential lines, kept lines, length of the body in bytes, trace, and the remaining head.
"""

HeadMeaning = tuple[bytes, bytes, bytes, BlockMeaning]
"""The meaning of a whole head: method, path, request line with its CRLF, and the meaning of its fields."""

SharedMeaning = tuple[Changing, BlockMeaning, int, int]
"""A RestMeaning without the key, the bytes behind the key in the head, and the bytes before it in its line. If only the
key is cut out, the kept lines have Via.
"""

KeyedMeaning = tuple[bytes, bytes, bytes, SharedMeaning]
"""The meaning of a whole head without its key: method, path, request line with its CRLF, and that of its fields."""

RestMeaning = tuple[Changing, BlockMeaning]
"""The lines that were cut out of a block, and the meaning of the rest. The kept lines of that meaning lack Via."""

KEY_ALONE: Changing = ()
"""The changing lines of a block if only the key's line is cut out."""

get_match = attrgetter("host", "path", "methods", "headers", "query")
"""Returns the conditions of a route's requests. No two routes have equal ones."""

OFFERS_PER_WHOLE = 8
"""One in this many blocks that share their other lines is offered to the cache of whole blocks. A frequent sender soon
gets an entry, and rare senders cost the cache little.
"""

HEADS_MAX, HEAD_BYTES_MAX = 1024, 4096
"""Bounds of a head cache: number of heads, and bytes of each. Longer heads are rare and are parsed each time."""

WHOLE_KEYED_MAX = 128
"""Whole heads up to which a head that shares its cached meaning with other customers is cached with its key, too. With
few customers that saves a little. More entries would use more of the processor's caches than they save.
"""

YOUNGER_MAX = HEADS_MAX // 2
"""The number of heads in the younger generation of a full cache."""

V = TypeVar("V")

WORTH_COMPARING = frozenset((3, 6, 12))
"""After this many heads of one client that had to be parsed in full, the edge compares lines to find new ones. In the
first head every line may be new, and one line may differ just once. After three attempts without success, further ones
would not help.
"""
HEADS_COUNTED = max(WORTH_COMPARING)

NO_LIMIT = 1 << 62
"""The bound of a body if the configuration sets none."""


class Snapshot:
    """A configuration in use. Times are in seconds, sizes in bytes."""

    def __init__(
        self,
        draft: "PreparedConfiguration",
        store: "Store",
        metrics: "WorkerMetrics",
        before: "Snapshot | None" = None,
        sharing: "Sharing | None" = None,
        key_lookup: "KeyLookup | None" = None,
    ) -> None:
        """Create a snapshot of `draft`.

        `before` is the snapshot in use. The new one takes over its unchanged parts with their connections, caches and
        counters, and does not refer to `before` afterwards. `sharing` shares limits with other hosts, where configured.
        `key_lookup` knows the customers that are in none of the files.

        Raises RowUnavailableError if a table has no room for a counter.
        """
        settings = draft.settings
        self._metrics, self._region, self._region_fields = metrics, settings.region, settings.region_fields
        self.sets_region = "X-Edge-Region" in settings.region_fields
        """True if the edge replaces the X-Edge-Region of an upstream."""
        # If a table is full, the previous snapshot's limits keep counting on their own.
        self._tables: PolicyTables = before._tables if before is not None else _create_tables(store, metrics, sharing)
        self._upstreams, self._rules = settings.upstreams, settings.rules
        pairs = [(each.upstream, each.fallback.upstream) for each in settings.routes if each.fallback is not None]
        self._ejecting_last = {name for pair in pairs for name in pair}
        """Names of the upstreams of routes with a fallback. Even their only endpoint may be ejected."""
        # Before the routes, which refer to them.
        self.services = {
            name: self._create_service(name, upstream, before) for name, upstream in settings.upstreams.items()
        }
        self._has_security_fields = bool(settings.security_headers)
        self.cors = None if settings.cors is None else CrossOrigin(settings.cors)
        """The pages that may call routes without a CORS setting of their own."""
        self.error_bodies = create_error_bodies(find_top_errors(settings.errors, settings.routes))
        """The form of error bodies of requests without a route; None: problem details."""
        routes = [self._create_route(route) for route in settings.routes]
        self.router = Router(routes)
        self._routes_with_users = [route for route in routes if route.users is not None]
        # Usage is counted here once the table has no row left, so these rows must exist before.
        self.unnamed = [metrics.get_usage_counter(NO_LABEL, meter, NO_LABEL) for meter in settings.meters]
        self.lines = lines.RequestLines(_create_field_rules(settings))
        self.directory = Directory(settings, draft.customers, self._tables, metrics, key_lookup)
        self.query_key = None if settings.auth.query is None else settings.auth.query.encode()
        """The query parameter that may hold a key."""
        self.addresses = self._create_addresses(settings, before)
        secret = settings.stamp_secret
        self.sign = (
            None if secret is None else Signature(secret, settings.region, whole=settings.stamp_signature == "v2")
        )
        self.legacy_headers = settings.legacy_headers
        security_lines = (b"", b"") if settings.security_headers is False else security_fields.OWN_LINES
        region_lines = format_region_lines(settings.region_fields, settings.region, own=True)
        self.own_lines = tuple([region_lines + lines for lines in security_lines])
        """The lines of the edge's own answers that name the region, and security fields for browsers. Index 1 is for
        clients over TLS.
        """
        self.has_cors = self.cors is not None or any(route.cors for route in settings.routes)
        """True if some of the edge's own answers carry CORS fields."""
        self.has_error_bodies = self.error_bodies is not None or any(map(find_errors, settings.routes))
        """True if some errors have a body other than problem details."""
        self._access_log_settings = settings.access_log
        self.access_log = self._create_access_log(before)
        self.tracer = self._create_tracer(settings.tracing, before)
        self.records_ends = self.access_log is not None or self.tracer is not None
        """True if the end of a request needs work beyond counting."""
        self._set_limits(settings.limits)
        self.paths = PathRules(settings.paths)
        self.usual_line = self.paths.usual_line
        self.drain_seconds = settings.drain
        self.overload = settings.overload
        self.upstream_tls = draft.upstream_tls
        """The TLS settings of each upstream that uses TLS."""
        self.heads: tuple[BytesCache[BlockMeaning], ...] = _create_head_caches()
        """Cached header blocks, of ordinary peers and of trusted proxies."""
        self.whole_heads: tuple[BytesCache[HeadMeaning], ...] = _create_head_caches()
        """Cached requests without a body whose blocks are cached too, by peer as above."""
        self.rests: BytesCache[RestMeaning] = BytesCache(HEADS_MAX, HEAD_BYTES_MAX)
        """Cached meanings of ordinary peers' blocks without the lines that change with each request."""
        self.shared: BytesCache[SharedMeaning] = BytesCache(HEADS_MAX, HEAD_BYTES_MAX)
        """Cached meanings of blocks without their changing lines and without the key, so customers share them."""
        self.keyed_heads: BytesCache[KeyedMeaning] = BytesCache(HEADS_MAX, HEAD_BYTES_MAX)
        """Cached meanings of ordinary peers' whole heads without the key."""
        self._key_beginnings = list_key_beginnings(settings.auth.fields)
        self._shared_seen: set[int] = set()
        """Hashes of shared blocks that came once."""
        self._offers = 0
        """Counts blocks parsed without the line of their key, modulo OFFERS_PER_WHOLE."""

    def _set_limits(self, limits: "Limits") -> None:
        """Set the bounds of requests and connections."""
        self.head_limits = grammar.HeadLimits(head=limits.head, fields=limits.fields)
        self.max_body_bytes = NO_LIMIT if limits.body is None else limits.body
        self.max_buffered_bytes = limits.buffered
        self.max_held_bytes = limits.held
        self.header_timeout = limits.header_timeout
        self.body_idle = limits.body_idle
        self.body_idle_bytes = max(1, int(self.body_idle * (limits.body_rate or 0)))
        """Bytes of a body that must move within `body_idle`, in either direction."""
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
        """Return the lines to add to answers of a route's upstream, or None."""
        if route.isolation_headers:
            return security_fields.build_isolation_lines()
        return security_fields.MISSING_LINES if self._has_security_fields else None

    def _create_cross_origin(self, route: "RouteSettings") -> CrossOrigin | None:
        if route.cors is None:
            return self.cors
        return None if route.cors == "off" else CrossOrigin(route.cors)

    def find_hashes(self, route: Route) -> "Mapping[bytes, bytes]":
        """Return the users, with hashes, of the route that replaces one of an earlier configuration.

        The replacement has equal conditions, or else an equal name. A label is no proof: several routes may have it.
        """
        settings, routes = route.settings, self._routes_with_users
        successors = [each for each in routes if get_match(each.settings) == get_match(settings)]
        if settings.name is not None:
            successors += [each for each in routes if each.settings.name == settings.name]
        users = successors[0].users if successors else None
        return {} if users is None else users.hashes

    def forwards_key(self, route: Route) -> bool:
        """Return whether the route's upstream receives keys (setting `forward_key`)."""
        upstream = route.settings.upstream
        return upstream is not None and self._upstreams[upstream].forward_key

    def refresh_hosts(self) -> None:
        """Update the number of hosts that share the limits."""
        for policies in self._tables:
            policies.refresh_hosts()

    def _create_service(self, name: str, upstream: "Upstream", before: "Snapshot | None") -> Service:
        # The region decides which endpoints are near, and their answers name it.
        if before is not None and before._get_service_terms(name) == self._get_service_terms(name):
            return before.services[name]
        # A gauge without a breaker would be a row of the table for nothing.
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
        """Return everything that a service depends on. The new snapshot keeps a service if this value is unchanged."""
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
        # The tracer imports packages of an optional extra, which cost some megabytes, so only a tracing edge loads
        # them.
        from edgeproxy.edge.proxy.observation.tracer import Tracer

        return Tracer(settings)

    def read_new_block(self, client: "ClientSide[Any]", block: bytes) -> BlockMeaning:
        """Read a block that is not cached, as `read_block` does.

        A client that traces one request traces them all, and a client that sent new lines in each request goes on to do
        so. For such clients the cache holds the meaning of the rest of the block.
        """
        parts = None
        if not client.trusted:
            if client.changing is not None:
                meaning = self._read_changing_block(b"\r\n" + block, client.changing)
                if meaning is not None:
                    return meaning
            else:
                lines = b"\r\n" + block
                parts = cut_key(lines, self._key_beginnings)
                if parts is not None and (known := self.shared[parts[0]]) is not None and known[0] == KEY_ALONE:
                    others, key, at, start = parts
                    behind = len(others) + 2 - start
                    client.key_place = behind + len(key), behind
                    return self._add_key(block, known[1], key, lines[at + 2 : start + len(key) + 2])
        # The lines that changed before are not the ones that change now: look for them again.
        client.changing = None
        if client.heads_read < HEADS_COUNTED and not client.trusted:
            client.heads_read += 1
            if client.heads_read in WORTH_COMPARING:
                client.changing = find_changing(block, self.lines, self.head_limits.fields)
        meaning = self.read_block(block, client.trusted)
        client.expects_new_head = meaning[5] is not None or client.changing is not None
        if parts is not None and not client.expects_new_head and self._is_known(meaning[0]):
            self._learn_shared(parts, KEY_ALONE)
        return meaning

    def recall_keyed_head(self, head: bytes, place: KeyPlace) -> HeadMeaning | None:
        """Return the meaning of an ordinary peer's head whose key is at `place`, from the cached meaning of all else.

        Return None if that is not cached, or the key is invalid.
        """
        before, behind = place
        # Positions from the end are the same for paths of any length.
        known = self.keyed_heads.get(head[:-before] + head[-behind:])
        if known is None or known[3][2] != behind:
            return None
        key = head[-before:-behind]
        if not is_field_value(key):
            return None
        identity = self.directory.resolve(key)
        method, path, line, (_, fields, _, named) = known
        _, site, _, keep, length, trace, rest = fields
        meaning = method, path, line, (identity, site, head[-before - named : 2 - behind], keep, length, trace, rest)
        whole = self.whole_heads[False]
        if len(whole) < WHOLE_KEYED_MAX and self._is_known(identity):
            whole.store(head, meaning)
        return meaning

    def recall_keyed_block(
        self, data: bytes, begin: int, end: int, place: KeyPlace
    ) -> tuple[SharedMeaning, BlockMeaning] | None:
        """Return the meaning of a head's field lines without the key, and with it, as `recall_keyed_head` does but
        whatever the request line is.

        The lines are at `begin` to `end` in `data`, followed by two CRLF.
        """
        before, behind = place
        start, stop = end + 4 - before, end + 4 - behind
        if start < begin:
            return None
        known = self.shared.get(data[begin - 2 : start] + data[stop : end + 2])
        if known is None or known[2] != behind or known[0] != KEY_ALONE:
            return None
        key = data[start:stop]
        if not is_field_value(key):
            return None
        identity = self.directory.resolve(key)
        _, (_, site, _, keep, length, trace, head), _, named = known
        return known, (identity, site, data[start - named : stop + 2], keep, length, trace, head)

    def store_keyed_head(
        self, head: bytes, place: KeyPlace, path: bytes, line: bytes, keyed: tuple[SharedMeaning, BlockMeaning]
    ) -> None:
        """Cache the meaning of a whole head without its key, for all customers, if its sender is one.

        `line` is its request line, and `keyed` the meaning of its field lines. Senders of invented keys could push out
        the heads of customers.
        """
        before, behind = place
        meaning, fields = keyed
        if self._is_known(fields[0]):
            self.keyed_heads.store(head[:-before] + head[-behind:], (line[: line.index(b" ")], path, line, meaning))

    def _add_key(self, block: bytes, others: BlockMeaning, key: bytes, line: bytes) -> BlockMeaning:
        """Return the meaning of a block from the cached meaning of its other lines and its key."""
        # `others` was read without a key, so its identity and its credential lines are replaced.
        _, site, _, keep, length, trace, head = others
        identity = self.directory.resolve(key)
        meaning = identity, site, line, keep, length, trace, head
        heads = self.heads[False]
        # Many customers who come once would otherwise push out the frequent ones.
        if (len(heads) < YOUNGER_MAX or self._is_offered()) and self._is_known(identity):
            heads.store(block, meaning)
        return meaning

    def read_block(self, block: bytes, trusted: bool) -> BlockMeaning:
        """Read the meaning of a block of field lines. Raises RejectedError if it is ambiguous.

        The cache takes only blocks that will come again and do no harm there. A trace is new in each request, an
        unknown key must stay unknown to others, and a trusted proxy's statement about its client concerns that client
        alone.
        """
        meaning = self._find_meaning(read_fields(block, trusted, self.head_limits.fields, self.lines))
        # 5: the trace. 6: the remaining head, which may have the client's address.
        if meaning[5] is None and self._is_known(meaning[0]) and not is_personal(meaning[6]):
            self.heads[trusted].store(block, meaning)
        return meaning

    def _read_changing_block(self, block: bytes, changing: Changing) -> BlockMeaning | None:
        """Read a block of an ordinary peer with some lines that change with each request.

        Return None if the whole block must be read. `block` has the form that `cut_lines` takes.
        """
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
        """Read the rest of a block without its changing lines, from the meaning it shares with other customers' blocks
        if that is cached.
        """
        parts = cut_key(rest, self._key_beginnings)
        if parts is None:
            return self._read_rest(rest, changing)
        others, key, at, start = parts
        known = self.shared[others]
        if known is None or known[0] != changing:
            whole = self._read_rest(rest, changing)
            if whole is not None and self._is_known(whole[1][0]):
                self._learn_shared(parts, changing)
            return whole
        line = rest[at + 2 : start + len(key) + 2]
        _, site, _, keep, length, trace, head = known[1]
        identity = self.directory.resolve(key)
        meaning = changing, (identity, site, line, keep, length, trace, head)
        if (len(self.rests) < YOUNGER_MAX or self._is_offered()) and self._is_known(identity):
            self.rests.store(rest, meaning)
        return meaning

    def _is_offered(self) -> bool:
        """Return whether the block being read is offered to the cache of whole blocks."""
        self._offers = (self._offers + 1) % OFFERS_PER_WHOLE
        return not self._offers

    def _read_rest(self, rest: bytes, changing: Changing) -> RestMeaning | None:
        """Read the rest of a block without its changing lines. Return None if these lines could change its meaning."""
        known = self._read_part(rest, changing, self.head_limits.fields)
        if known is not None and self._is_known(known[1][0]):
            self.rests.store(rest, known)
        return known

    def _learn_shared(self, parts: tuple[bytes, bytes, int, int], changing: Changing) -> None:
        """Cache the meaning of a block without its changing lines and its key, once it has come twice.

        `parts` are those of `cut_key`. Nothing is cached if the block has another key, or a line that does more than
        pass through and so could change the meaning.
        """
        others, _, at, start = parts
        digest, seen = hash(others), self._shared_seen
        if digest not in seen:
            # Emptied rather than aged: a frequent block is soon seen twice again.
            if len(seen) >= HEADS_MAX:
                seen.clear()
            seen.add(digest)
            return
        known = self._read_part(others[:at] + others[start:], changing, self.head_limits.fields - 1)
        if known is not None and not known[1][2] and known[1][0] is self.directory.anonymous:
            identity, site, credentials, keep, length, trace, head = known[1]
            if changing == KEY_ALONE:
                keep += VIA_LINE
            meaning = identity, site, credentials, keep, length, trace, head
            self.shared.store(others, (changing, meaning, len(others) + 2 - start, start - at - 2))

    def _read_part(self, part: bytes, changing: Changing, most: int) -> RestMeaning | None:
        """Read the meaning of a part of a block. `most` bounds its lines, including the lines that were cut out."""
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
        """Return whether the cache may hold who sent a block."""
        people = self.directory
        return identity is people.anonymous or (identity is not people.unknown and identity.valid_until != UNRESOLVED)

    def update_endpoints(self, services: "Services") -> None:
        """Take over the addresses of endpoints that the supervisor sent."""
        for name, listing in services.items():
            service = self.services.get(name)
            if service is not None:
                for server in service.update_addresses(listing):
                    server.close()

    def update_challenges(self, tokens: Mapping[str, str]) -> None:
        """Answer the paths of these tokens of ACME (RFC 8555 section 8.3) with their content, before all routes.

        Raises RowUnavailableError.
        """
        from edgeproxy.config.edge.routes import Route as RouteSettings

        routes = [
            RouteSettings.model_validate(
                {
                    "name": "acme-challenge",
                    "path": f"/.well-known/acme-challenge/{token}",
                    "auth": "none",
                    "respond": {"body": content, "type": "application/octet-stream"},
                }
            )
            for token, content in tokens.items()
        ]
        self.router.put_first(map(self._create_route, routes))

    def lacks_addresses(self) -> bool:
        """Return whether some service has no known address."""
        return not all(service.endpoints for service in self.services.values())

    def sweep(self, now: float) -> None:
        """Do periodic work, twice a second. `now` is monotonic time."""
        for service in self.services.values():
            service.sweep(now)
        self.directory.count_lookups()

    def forget_customers(self, customers: Collection[str] | None) -> None:
        """Forget the directory's records of these customers; None: of all.

        The cached heads of some customers may stay: their identities are refreshed at the next use.
        """
        self.directory.forget_customers(customers)
        if customers is None:
            self._forget_heads()

    def refresh_flags(self) -> None:
        """Settle again which customer has which flag."""
        self.directory.refresh_flags()
        self._forget_heads()

    def retire(self) -> "IdentityMemory[bytes | TokenDigest, Identity]":
        """Release what only new requests need: no request begins under this snapshot any more.

        Return the cached identities of keys. They may be many, so the caller frees them piece by piece.
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
        self.keyed_heads.clear()
        self._shared_seen.clear()
        self.lines.clear()
        lines.clear_response_caches()


def lead_to_fallback(route: "RouteSettings", fallback: "Fallback") -> "RouteSettings":
    """Return the settings of a route to its fallback.

    The fallback's answers are changed like the answers of the first upstream.
    """
    rewrite = fallback.rewrite.model_copy(update={"response": route.rewrite.response})
    return route.model_copy(update={"upstream": fallback.upstream, "rewrite": rewrite, "fallback": None})


def _create_head_caches() -> tuple[BytesCache[V], ...]:
    return BytesCache(HEADS_MAX, HEAD_BYTES_MAX), BytesCache(HEADS_MAX, HEAD_BYTES_MAX)


def _create_tables(store: "Store", metrics: "WorkerMetrics", sharing: "Sharing | None") -> PolicyTables:
    # Without a hub, other hosts' use of quotas still counts: the ledger has it.
    shared = None if store.customers.hub is None else sharing
    tables = (store.customers, store.addresses, store.quotas, store.end_users)
    return PolicyTables(
        *(
            Policies(
                table,
                full=partial(report_full_table, metrics, table),
                sharing=shared,
                is_common=table is store.addresses,
            )
            for table in tables
        )
    )


def report_full_table(metrics: "WorkerMetrics", table: "LimitTable") -> None:
    """Report that a table had no row to give, and the disk's reason if it was the disk."""
    # A table without a free row never asked the disk.
    no_room = None if table.rows_in_use >= table.layout.rows else table.file.no_room
    metrics.report_full_table(table.name, no_room)


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
    """Return whether a trusted proxy's head describes one client or one request."""
    return head.forwarded_for is not None or head.request_id is not None
