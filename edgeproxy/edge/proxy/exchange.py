"""The life of one request, top to bottom: read, guard, find, admit, select, stamp, relay, respond, meter.

An exchange belongs to one client connection, and while it lasts to one upstream connection; the two move bytes,
the exchange decides. Its steps are those of the design, in order. What an ordinary request needs stands in the
steps themselves; whatever is out of the ordinary leaves them for a method of its own, which need not be quick.
"""

from time import monotonic
from typing import TYPE_CHECKING, Final, Literal

from edgeproxy.base.clock import EPOCH
from edgeproxy.edge.errors import DirectResponse, EdgeError, RejectedCustomerError, RejectedError, UpstreamError
from edgeproxy.edge.http1 import message, security_fields
from edgeproxy.edge.http1.field_values import find_value, find_values
from edgeproxy.edge.http1.grammar import IDEMPOTENT, METHODS, parse_host
from edgeproxy.edge.http1.host import replace_host
from edgeproxy.edge.http1.path import is_plain, normalize_target
from edgeproxy.edge.http1.request import PLAIN, RequestHead, check_host, read_head
from edgeproxy.edge.http1.request_line import check_sizes, read_request_line
from edgeproxy.edge.http1.security_fields import NAMES_PLACES
from edgeproxy.edge.limits.admission import (
    AdmissionNotes,
    admit,
    admit_fast,
    can_afford,
    can_credits_cover,
    charge_reported_costs,
    find_blocking_gate,
    list_exhausted,
    notify_hosts,
    notify_totals,
    spend_credits,
)
from edgeproxy.edge.limits.denial import compute_denial, compute_gate_denial, find_impossible_costs, is_certain
from edgeproxy.edge.limits.fields import format_legacy, format_rate_limit, remove_legacy
from edgeproxy.edge.limits.limit_set import NOTHING, LimitSet
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.quota import Balance
from edgeproxy.edge.limits.route_limits import parse_cost
from edgeproxy.edge.proxy import event_stream, local_reply, metering, tunnel
from edgeproxy.edge.proxy.body_file import BodyFile, create_no_room_error
from edgeproxy.edge.proxy.bounded_cache import store_bytes
from edgeproxy.edge.proxy.cors import ORIGIN
from edgeproxy.edge.proxy.deadlines import NEVER
from edgeproxy.edge.proxy.event_stream import is_event_stream
from edgeproxy.edge.proxy.identity import UnresolvedIdentity
from edgeproxy.edge.proxy.labels import NO_LABEL
from edgeproxy.edge.proxy.metering import is_billed
from edgeproxy.edge.proxy.preauth_policy import find_requested_method, is_preflight
from edgeproxy.edge.proxy.query_key import find_key, remove_key
from edgeproxy.edge.proxy.request_ids import format_continued_trace
from edgeproxy.edge.proxy.reverse_mapping import SAME
from edgeproxy.edge.proxy.router import NO_SITE
from edgeproxy.edge.proxy.socket_input import is_readable
from edgeproxy.edge.proxy.states import (
    ANSWERING,
    AWAITS_CLAIMS,
    AWAITS_KEY,
    CONNECTING,
    DECIDING,
    FORWARDED,
    GATHERING,
    OVER,
    PARKED,
    SENT,
    TUNNEL,
    Progress,
    State,
)

if TYPE_CHECKING:
    from edgeproxy.edge.http1.response import PlainResponse, ResponseHead
    from edgeproxy.edge.limits.gate import Gate
    from edgeproxy.edge.proxy.cors import CrossOrigin
    from edgeproxy.edge.proxy.exchange_sides import ClientSide, UpstreamSide
    from edgeproxy.edge.proxy.identity import Identity
    from edgeproxy.edge.proxy.metering import Countable, Metering
    from edgeproxy.edge.proxy.pool import Endpoint
    from edgeproxy.edge.proxy.preauth_policy import PreAuthPolicy
    from edgeproxy.edge.proxy.route_binding import Route, RouteBinding
    from edgeproxy.edge.proxy.router import Site
    from edgeproxy.edge.proxy.runtime import Runtime


INTERIM_ANSWERS_MAX = 32
"""1xx answers to one request; an upstream that sends more is not answering."""

COPIED_BYTES_MAX = 16 << 10
"""Bytes of a body that are copied behind their head, to go out in one piece with it; a longer one is cheaper apart."""

GATHERED_BYTES_MAX = 256 << 10
"""Bytes of a request that are kept in memory until its body is whole; the rest is on disk."""

UNANSWERED = 599
"""In the place of a status where there was no answer to be counted."""

UNREACHED = frozenset(("connection_refused", "connection_timeout"))
"""Faults that may be over a moment later. TLS on which the two do not agree is not."""

CUT = "The edge ended the connection: nothing moved for too long, or a drain was over"

FINISHED: Final = RequestHead()
"""In the place of a plain head where the answer's head is not passed on as it is: it goes out piece by piece."""

FORWARDED_HOST = b"x-forwarded-host"
LOCALHOST = b"localhost"
NO_HOST = b"Host: %b\r\n" % LOCALHOST
"""What the upstream sees of an HTTP/1.0 request for which no host is named; HTTP/1.1 must have the field. No
X-Forwarded-Host is beside it, and nobody is ever sent there."""


Refusal = EdgeError | LimitSet
"""Why a request is not forwarded: an error, or limits of which at least one has no room."""

Outcome = Progress | Refusal
"""What has come of a request so far."""


class Exchange:
    """One request and its answer. Times are seconds of the monotonic clock, `now` is edge time."""

    __slots__ = (
        "arrived",
        "awaited_gate",
        "awaited_key",
        "away",
        "away_since",
        "binding",
        "bytes_in",
        "bytes_out",
        "client",
        "credentials",
        "endpoint",
        "first",
        "head",
        "identity",
        "idle_timeout",
        "interims",
        "inward",
        "keep",
        "left",
        "length",
        "limit_set",
        "message",
        "metered_by",
        "method",
        "minor",
        "notes",
        "now",
        "outward",
        "overflow",
        "parked",
        "path",
        "rid",
        "route",
        "runtime",
        "sent_at",
        "server",
        "shown",
        "shut",
        "site",
        "snapshot",
        "started",
        "state",
        "status",
        "streamed",
        "trace",
        "tried",
        "waited",
        "whole",
    )

    def __init__(self, client: "ClientSide[Exchange]", runtime: "Runtime") -> None:
        self.client = client
        self.runtime = runtime
        self.started = started = monotonic()
        self.now = started + runtime.offset
        self.snapshot = runtime.snapshot
        self.head = PLAIN
        self.minor = 1
        self.length = self.interims = self.status = self.bytes_in = self.bytes_out = 0
        self.arrived = self.away_since = self.away = 0.0
        """Since when it waits for a connection, or for the hub, and for how long it has: no time of the edge's own."""
        self.waited: float | None = None
        """For how long it has waited for claims, where it had to."""
        self.idle_timeout = NEVER
        """Seconds between two pieces of its answer; known with its head."""
        self.overflow: BodyFile | None = None
        """What of its body is on disk."""
        self.streamed = False
        """Some of its body was sent after its head."""
        self.whole = False
        """All of it was there when it was sent, and nothing forbids that its answer goes out in one piece."""
        self.state: State = DECIDING
        self.tried: tuple[Endpoint, ...] = ()
        self.inward: tuple[Countable, ...] = ()
        self.outward: tuple[Countable, ...] = ()
        """What the bytes of the bodies, and of a tunnel, are added to before they are passed on."""
        self.metered_by: Metering
        """What counts its answer, where that is relayed piece by piece and anything but requests is counted."""
        self.site: Site[Route] = NO_SITE
        self.route: Route | None = None
        self.binding: RouteBinding | None = None
        self.endpoint: Endpoint | None = None
        """Each None until the step that finds it."""
        self.server: UpstreamSide[Exchange] | None = None
        self.shown: Policy | None = None
        self.awaited_gate: Gate | None = None
        """Where it waits until the hub has answered."""
        self.awaited_key: bytes | None = None
        """The key for which it waits until the supervisor has said whose it is; its digest."""
        self.parked: tuple[bytes, int] | None = None
        """What had come of it when it began to wait, as `begin` was given it."""
        self.shut: tuple[Policy, ...] = ()
        """What has no room for it though there seemed to be some: other hosts have used it."""
        self.limit_set: LimitSet | None = None
        """What is to be settled when it is over; None where there is nothing."""
        self.notes = self.method = self.path = self.first = self.rid = self.message = b""

    # ---- the steps of an ordinary request

    def begin(self, data: bytes, end: int) -> Outcome:
        """From the head to the upstream: `end` is where its blank line begins in `data`."""
        try:
            self.read(data, end)
            refusing = self.guard()
            if refusing is not None:
                return refusing
            if self.length > self.snapshot.longest_body:
                return RejectedError(413, "The body is larger than this edge accepts")
            if not self.find():
                return self.park(AWAITS_KEY, data, end)
            return self.proceed(data, end)
        except EdgeError as error:
            # The caller's frame is in the traceback, and the refusal in the frame: nothing would ever free either.
            return error.with_traceback(None)

    def proceed(self, data: bytes, end: int) -> Outcome:
        """From admission on; once more where the hub had to be asked first. Raises what `select` and `stamp` do."""
        refusing = self.admit()
        if refusing is not None:
            return self.park(AWAITS_CLAIMS, data, end) if refusing is PARKED else refusing
        self.select()
        self.stamp(data, end)
        client = self.client
        bare = self.head is PLAIN and not self.length and len(data) == end + 4
        if not bare:
            self.begin_body(data[end + 4 :])
            assert self.binding is not None
            most = self.binding.route.service.buffer
            if most is not None and self.gathers(most):
                return FORWARDED
        # Nothing of the request is still to come. What the connections have to say against it is asked later.
        self.whole = (bare or (self.head is PLAIN and client.body is None)) and self.method != b"HEAD"
        self.relay()
        if client.body is not None and self.server is not None:
            client.deadline = monotonic() + self.snapshot.body_idle
        return FORWARDED

    def begin_body(self, data: bytes) -> None:
        """There is a body, or another request behind this one; `data` follows the head."""
        assert self.binding is not None
        metered_by = self.binding.metering
        if metered_by is not None:
            self.inward = metering.list_counters(metered_by.admitted, self.metered(), self.runtime)
        self.client.begin_body(self, data)

    def read(self, data: bytes, end: int) -> None:
        """What the head says. The meaning of a block of fields seen before is remembered, and that of a head whose
        block was."""
        client, snapshot = self.client, self.snapshot
        alone = len(data) == end + 4 and not client.traces
        if alone:
            seen = snapshot.whole_heads[client.trusted].get(data)
            if seen is not None:
                self.method, self.path, self.first, fields = seen
                self.identity, self.site, self.credentials, self.keep, self.length, self.trace, self.head = fields
                return
        usual = snapshot.usual_line(data)
        begin = data.find(b"\r\n") + 2 if usual is None else usual.end()
        block = data[begin : end + 2]
        # Who traces one request traces them all, and none of those is remembered.
        known = None if client.traces else snapshot.heads[client.trusted].get(block)
        meaning = known
        if meaning is None:
            meaning = snapshot.understand(block, client.trusted)
            client.traces = meaning[5] is not None
        self.identity, self.site, self.credentials, self.keep, self.length, self.trace, self.head = meaning
        if usual is None or self.site is NO_SITE or begin - 2 > snapshot.sizes.line:
            self.read_unusual(data[: begin - 2], block)
            return
        method, path, query = usual.groups()
        if method not in METHODS:
            self.read_unusual(data[: begin - 2], block)
            return
        self.method = method
        if is_plain(path):
            self.first = data[:begin]
            if alone and known is not None:
                store_bytes(snapshot.whole_heads[client.trusted], data, (method, path, self.first, known))
        else:
            path = normalize_target(path)
            self.first = b"%b %b%b HTTP/1.1\r\n" % (method, path, query or b"")
            snapshot.paths.check(path, method, self.site)
        self.path = path

    def guard(self) -> LimitSet | None:
        """The coarse limit of the address, charged alone and before any key is looked at."""
        client = self.client
        if client.trusted:
            client.on_behalf(self.head)
            if not client.address.admitted:
                raise RejectedError(403, "This address may not come here", close=False)
        guard = client.address.guard
        if guard is None:
            return None
        left = guard.left(self.now)
        if left < 1:
            self.shown, self.left = guard, 0
            return client.address.guarded
        guard.charge()
        # What an answer tells of, unless a policy of the customer's held the request as well.
        self.shown, self.left = guard, left - 1
        return None

    def find(self) -> bool:
        """The route, then the binding of who asks on it; False where the supervisor was asked whose the key is.

        Raises RejectedError where there is no route, or who asks may not use it.
        """
        try:
            self.route = route = self.site.match(self.path, self.method)
        except RejectedError as error:
            self.route = route = self.find_preflight_route(error)
        if route.door is not None:
            self.enter(route.door)
        identity = self.identity
        if identity.valid_until < self.now:
            known = self.identify(identity, route)
            if known is None:
                self.inquire(self.identity)
                return False
            identity = known
        self.binding = identity.bindings[route]
        return True

    def admit(self) -> LimitSet | Literal[Progress.PARKED] | None:
        """All that holds the route binding is charged, or nothing is: None, and the request goes on.

        Else the limits of which one refuses, or PARKED where it waits for claims. Raises RejectedError where load is
        shed.
        """
        binding = self.binding
        assert binding is not None
        limit_set = binding.limit_set or self.client.address.limit_set(binding)
        pays_credits = self.runtime.overload.shedding and self.shed(limit_set)
        if limit_set.applies:
            admission = admit_fast(limit_set, self.now) if limit_set.simple else None
            if admission is None:
                if limit_set.may_ask and (held := self.ask(limit_set)) is not None:
                    return held
                admission = admit(limit_set, self.now, self.shut)
                if limit_set.shares:
                    notify_hosts(limit_set, self.now, admission[0], admission[3])
            refused, shown, left, noted = admission
            if shown is not None:
                self.shown, self.left = shown, left
            if refused:
                return limit_set
            if pays_credits and spend_credits(limit_set, self.now, alone=self.runtime.claim_waiter.alone):
                self.runtime.metrics.credited(binding.tier)
            if limit_set.has_end_work:
                self.limit_set = limit_set
            if noted is not None:
                self.notes = self.note(noted)
        for counter in binding.admitted:
            counter.add(1)
        return None

    def ask(self, limit_set: LimitSet) -> LimitSet | Literal[Progress.PARKED] | None:
        """Whether other hosts leave room for it: None where they do, or credits are to pay for what they do not; else
        PARKED, or the limits where it is refused."""
        claim_waiter = self.runtime.claim_waiter
        while (held := find_blocking_gate(limit_set, self.now, self.shut)) is not None:
            policy, gate = held
            if claim_waiter.alone and gate.mode != "strict" and not gate.is_away:
                return None
            # What it waited for whose key it has is no part of this.
            seconds = claim_waiter.left(gate, self.started + self.away - (self.waited or 0.0))
            in_vain = seconds <= 0 or claim_waiter.alone or gate.is_asking_useless(self.now)
            # Who waits already keeps its place; who comes finds one while there may be room for all.
            if not in_vain and (self.waited is not None or gate.waiting < policy.left(self.now)):
                if self.waited is None:
                    self.waited = 0.0
                    self.runtime.metrics.limit_waits(policy.name)
                claim_waiter.wait(gate, policy.cost, self, seconds)
                self.awaited_gate = gate
                return PARKED
            gate.record_refusal(self.now)
            if policy is limit_set.credits:
                self.shut = list_exhausted(limit_set, self.now, self.shut)
                self.shown, self.left = self.shut[0], 0
                return limit_set
            self.shut = (*self.shut, policy)
            if not can_credits_cover(limit_set, self.now, self.shut):
                self.shown, self.left = policy, 0
                return limit_set
        return None

    def park(self, state: State, data: bytes, end: int) -> Progress:
        """Keep what has come of it until it goes on."""
        self.state = state
        self.parked = data, end
        self.away_since = monotonic()
        self.client.deadline = NEVER  # Waiting has an end of its own.
        return PARKED

    def go_on(self) -> None:
        """There is an answer of the hub, or of the supervisor, or the wait is over: decide anew."""
        client, runtime, parked = self.client, self.runtime, self.parked
        assert parked is not None
        data, end = parked
        now = monotonic()
        self.now = now + runtime.offset
        self.away += now - self.away_since
        waited = None
        if self.awaited_gate is not None and self.waited is not None:
            self.waited = waited = self.waited + now - self.away_since
        awaited_key = self.state is AWAITS_KEY
        self.awaited_gate = self.awaited_key = None
        self.state = DECIDING
        # What has come meanwhile is of its body, or of requests to come.
        data, client.buffer = data + client.buffer, b""
        outcome: Outcome
        try:
            outcome = self.meet(data, end) if awaited_key else self.proceed(data, end)
        except EdgeError as error:
            outcome = error.with_traceback(None)
        if waited is not None and self.awaited_gate is None:
            runtime.metrics.limit_waited(waited)
        if outcome is FORWARDED:
            client.resume()
        elif outcome is not PARKED:
            client.buffer = client.turn_away(self, outcome, data, end)
            client.next()

    def inquire(self, identity: "Identity") -> None:
        """Have the supervisor asked for whose the key is; raises RejectedError(503) where nobody says so in time."""
        runtime = self.runtime
        assert isinstance(identity, UnresolvedIdentity)
        if not runtime.key_lookup.ask(identity.digest, self, runtime.key_lookup.left(self.started)):
            runtime.metrics.auth_failure("untold")
            why = "This edge cannot tell at the moment whose this API key is"
            raise RejectedError(503, why, close=False, fields=b"Retry-After: 1\r\n")
        self.awaited_key = identity.digest

    def meet(self, data: bytes, end: int) -> Outcome:
        """From who asks on: once more where the supervisor had to be asked first. Raises what `begin` catches."""
        serving = self.runtime.snapshot
        if self.snapshot is not serving:
            # The one before knows nobody any more, and nothing has come of the request but the guard's charge.
            self.snapshot = serving
            self.read(data, end)
        if not self.find():
            return self.park(AWAITS_KEY, data, end)
        return self.proceed(data, end)

    def identify(self, identity: "Identity", route: "Route") -> "Identity | None":
        """Who asks, where the field lines do not settle it: their key may be in the query, a certificate may say who
        they are, and they may be known no longer. None where the supervisor has to be asked. Raises RejectedError where
        the query has several keys."""
        snapshot = self.snapshot
        directory = snapshot.directory
        if identity is directory.anonymous and snapshot.query_key is not None:
            identity = self.identity = directory.resolve(find_key(self.first, snapshot.query_key), b"")
            if identity.valid_until >= self.now:
                return identity
        if identity is directory.anonymous and route.certified:
            identity = self.identity = directory.certified(self.client.certificate(), self.now)
            if identity.valid_until >= self.now:
                return identity
        return directory.refresh(identity, route, self.now)

    def stamp(self, data: bytes, end: int) -> None:
        """The head that the upstream gets: kept lines, stamps, request id and trace. Arguments as in `begin`."""
        binding = self.binding
        assert binding is not None
        self.rid, closing, span = self.runtime.ids.next(self.now + EPOCH)
        if self.head is not PLAIN or binding.unusual:
            self.stamp_unusual(binding, data, end)
        if self.trace is not None:
            closing = format_continued_trace(self.trace, span)
        self.message = b"".join((self.first, self.keep, binding.stamps, self.client.forwarded, self.rid, closing))

    def select(self) -> None:
        """The endpoint that the request goes to. Raises UpstreamError where there is none that may be asked."""
        binding = self.binding
        assert binding is not None
        service, prefer = binding.route.service, binding.prefer
        try:
            self.endpoint = endpoint = service.select() if prefer is None else service.select_in(prefer)
        except UpstreamError as error:
            self.runtime.metrics.upstream_error(service.name, error.error)
            raise
        endpoint.outstanding += 1

    def relay(self) -> None:
        """Send it on: over an idle connection, else over a new one."""
        endpoint = self.endpoint
        assert endpoint is not None
        assert self.binding is not None
        idle = endpoint.idle
        while idle:
            server = idle.pop()
            # One that was reset in this turn of the loop learns it in the next: what is written would be lost.
            if not server.transport.is_closing() and (self.method == b"GET" or self.may_take(server)):
                self.server = server
                server.exchange = self
                server.write(self.message)
                self.state = SENT
                self.sent_at = now = monotonic()
                self.client.deadline = now + self.binding.route.head_timeout
                if self.client.choked:
                    server.pause()
                return
        self.connect()

    def may_take(self, server: "UpstreamSide[Exchange]") -> bool:
        """Whether a kept connection may have a request that, once lost, could not be sent again."""
        if self.method in IDEMPOTENT and self.client.body is None and self.overflow is None:
            return True
        assert self.endpoint is not None
        if monotonic() - server.idle_since > self.endpoint.idle_lifetime.trusted:
            # It may be closed at this moment. The others are older still.
            server.close()
            return False
        if is_readable(server.transport):
            # Nobody asked it anything: it is about to close, or of no use.
            server.abort()
            return False
        return True

    def respond_whole(self, server: "UpstreamSide[Exchange]", plain: "PlainResponse", data: bytes, end: int) -> None:
        """An ordinary answer that came in one piece: count it, write it, and both connections are free again."""
        client, binding, endpoint = self.client, self.binding, self.endpoint
        assert binding is not None
        assert endpoint is not None
        arrived = monotonic()
        status, _, keep, rate, flags, _ = plain
        # As `meter` does: a call less on the way of most answers.
        for counter in binding.counters[status]:
            counter.add(1)
        limit_set, metered_by = self.limit_set, binding.metering
        if limit_set is not None:
            self.reported(keep)
        if metered_by is not None:
            size = len(data) - end - 4
            keep = metered_by.read_whole(status, keep, self.bytes_in, size, self.metered(), self.runtime)
        if limit_set is not None:
            self.settle(status)
        if flags >= NAMES_PLACES and binding.route.reverse is not None:
            keep = self.map_places(keep)
        rate = (self.rate_fields() or rate) + self.notes
        if self.snapshot.legacy_headers:
            keep = self.remove_legacy_fields(keep)
        if self.snapshot.security_headers:
            rate += security_fields.MISSING_LINES[self.is_secure()][flags]
        # Before the write: a client that takes no more must not stop a connection that is about to be another's.
        self.server = server.exchange = None
        if len(data) - end <= COPIED_BYTES_MAX:
            client.write(b"".join((keep, rate, b"X-Request-Id: ", self.rid, data[end:])))
        else:
            lines = b"".join((keep, rate, b"X-Request-Id: ", self.rid))
            client.writelines((lines, memoryview(data)[end:]))
        waited = arrived - self.sent_at
        endpoint.outstanding -= 1
        self.endpoint = None
        if status >= 500 or endpoint.watched:
            endpoint.record_response(status, self.sent_at, arrived)
        if not server.reused:
            server.learn(data[: end + 2])
        server.idle_again(arrived)
        done = monotonic()
        total = done - self.started
        binding.route.observe(total, total - waited - self.away, waited)
        if self.snapshot.access is not None:
            self.status, self.bytes_out, self.arrived = status, len(data) - end - 4, arrived
            self.snapshot.access.over(self, endpoint)
        self.state = OVER
        client.exchange = None
        client.deadline = done + self.snapshot.keepalive_idle
        if client.buffer or client.choked:
            client.next()

    # ---- what holds a request, beyond the ordinary

    def shed(self, limit_set: LimitSet) -> bool:
        """The worker has too much to do: raise RejectedError(503) for as many as must wait, the lowest priority first.

        True where burst credits are to buy passage, once nothing else refuses: those of a plan without limits do.
        """
        runtime, binding = self.runtime, self.binding
        assert binding is not None
        if not runtime.overload.is_full:
            if not runtime.overload.sheds(binding.priority):
                return False
            if can_afford(limit_set, self.now, alone=runtime.claim_waiter.alone):
                return True
        runtime.metrics.shed(binding.priority)
        why = binding.message or "There is more to do than this edge can"
        raise RejectedError(503, why, close=False, fields=b"Retry-After: 1\r\n")

    def note(self, noted: AdmissionNotes) -> bytes:
        """The fields that an answer has besides: which limits would have refused, which soft quotas are passed."""
        metrics, (_, tier) = self.runtime.metrics, self.labels()
        for shadow in noted.shadows:
            metrics.shadowed(tier, shadow.name)
        if noted.paid:
            metrics.credited(tier)
        lines = b""
        if noted.shadows:
            lines = b"X-Edge-Shadow: %b\r\n" % b", ".join([b'"%b"' % each.name.encode() for each in noted.shadows])
        if noted.over:
            lines += b"X-Quota: %b\r\n" % b", ".join([b'"%b";over' % each.name.encode() for each in noted.over])
        return lines

    def reported(self, head: bytes) -> None:
        """Charge what the upstream's answer says that the request has cost; what it does not say is what was asked."""
        limit_set, binding = self.limit_set, self.binding
        if limit_set is not None and binding is not None and binding.limits.headers:
            costs = [parse_cost(head, field) for field in binding.limits.headers]
            # As of now: the answer may have taken longer than a window.
            for policy, left in charge_reported_costs(limit_set, monotonic() + self.runtime.offset, costs).items():
                if policy is self.shown or left < self.left:
                    self.shown, self.left = policy, left

    def settle(self, status: int) -> None:
        """The request is over: give back what it held, and what of its quotas this status does not count for."""
        limit_set, self.limit_set = self.limit_set, None
        if limit_set is not None:
            limit_set.release()
            if limit_set.quotas:
                limit_set.refund(self.now, lambda when: when == "admitted" or is_billed(when, status))
                if limit_set.sharing.totals:
                    # It may have been long since it was admitted, and nobody looks at quotas that nobody uses.
                    notify_totals(limit_set, monotonic() + self.runtime.offset)

    # ---- requests that the upstream gets whole

    def gathers(self, most: int) -> bool:
        """Whether the body is taken in first; no endpoint waits for it meanwhile. False where it is there already.

        Raises RejectedError where it is larger than `most` bytes.
        """
        if max(self.length, self.bytes_in) > most:
            raise RejectedError(413, "The body is larger than this service accepts")
        client = self.client
        if client.body is None:
            return False
        self.give_back()
        self.state = GATHERING
        self.away_since = now = monotonic()
        client.deadline = now + self.snapshot.body_idle
        if self.head.expect and self.minor:
            # Nobody else would tell the client to go on.
            client.write(message.CONTINUE)
        return True

    def gather_more(self, data: bytes) -> None:
        """A piece of the body: into memory, or behind what is on disk."""
        client, overflow = self.client, self.overflow
        assert self.binding is not None
        most = self.binding.route.service.buffer
        assert most is not None
        if self.bytes_in > most:
            self.fail(RejectedError(413, "The body is larger than this service accepts"))
            return
        if overflow is None and len(self.message) + len(data) <= GATHERED_BYTES_MAX:
            self.message += data
        else:
            runtime = self.runtime
            if not runtime.body_space.has_room(len(data), self.snapshot.buffered):
                runtime.metrics.shed(self.binding.priority)
                self.fail(create_no_room_error())
                return
            if overflow is None:
                overflow = BodyFile(runtime.folder, runtime.body_space, runtime.tasks, self.stored, self.unstored)
                self.overflow = overflow
            overflow.add(data)
            if overflow.waiting > GATHERED_BYTES_MAX:
                client.pause()
        if client.body is None and (overflow is None or not overflow.busy):
            self.gathered()

    def stored(self) -> None:
        """What has come of the body is on disk."""
        if self.client.body is None:
            self.gathered()
        else:
            self.client.resume()

    def unstored(self, failure: OSError) -> None:
        """The disk does not take the body, or does not give it back."""
        about, request_id = str(self.runtime.folder), self.request_id().decode()
        self.runtime.endpoint_log.error("a body cannot be kept on disk", about, why=str(failure), request_id=request_id)
        self.fail(create_no_room_error())

    def gathered(self) -> None:
        """The body is whole: send it on."""
        self.away += monotonic() - self.away_since
        try:
            self.select()
        except UpstreamError as error:
            self.fail(error.with_traceback(None))
            return
        assert self.endpoint is not None
        if self.endpoint.sent_host is not None:
            self.message = replace_host(self.message, self.endpoint.sent_host)
        self.whole = self.head is PLAIN and self.overflow is None and self.method != b"HEAD"
        self.relay()
        if self.server is not None:
            self.send_overflow(self.server)
        self.client.resume()

    def send_overflow(self, server: "UpstreamSide[Exchange]") -> None:
        """Send what is on disk, behind what was in memory."""
        if self.overflow is None:
            return
        self.streamed = True

        def write(piece: bytes) -> bool:
            if self.server is not server:
                return True
            server.write(piece)
            if not self.answered:
                assert self.route is not None
                self.client.deadline = monotonic() + self.route.head_timeout
            return not server.full

        self.overflow.send(write)

    def give_back(self) -> None:
        """Let the endpoint go."""
        endpoint = self.endpoint
        if endpoint is not None:
            endpoint.outstanding -= 1
            if not self.answered:
                endpoint.service.record_response()
            self.endpoint = None

    # ---- requests out of the ordinary

    def enter(self, door: "PreAuthPolicy") -> None:
        """Whom a route lets in, and what it answers itself, before anybody's key is looked at."""
        door.admit(self)
        door.answer(self)

    def find_preflight_route(self, refusal: RejectedError) -> "Route":
        """The route that a preflight asks about, where its own method has none; raises the refusal for all others."""
        if refusal.status != 405 or not is_preflight(self):
            raise refusal
        route = self.site.match(self.path, find_requested_method(self) or b"")
        if route.cors is None:
            raise refusal
        return route

    def read_unusual(self, line: bytes, block: bytes) -> None:
        """A head that the usual look does not settle: read its line, and its fields, with every rule."""
        snapshot, client = self.snapshot, self.client
        check_sizes(len(line), 0, snapshot.sizes)
        request = read_request_line(line)
        self.method, self.minor = request.method, request.version[1]
        if self.minor == 0:
            # Nothing after this request: what HTTP/1.0 says of persistence is not worth its rules.
            client.last = True
        head = read_head(block, client.trusted, snapshot.sizes.fields, self.minor, snapshot.lines)
        host, lines = check_host(request, head)
        if head.authority is None and not lines:
            authority = (head.forwarded_host or b"").partition(b",")[0].strip()
            lines = NO_HOST if parse_host(authority) is None else b"Host: %b\r\n" % authority
        self.keep = lines + head.keep
        self.head = PLAIN if head.plain else head
        self.length, self.trace, self.credentials = head.length, head.trace, head.credentials
        self.site = snapshot.router.site(host)
        target = normalize_target(request.target)
        self.first = b"%b %b HTTP/1.1\r\n" % (self.method, target)
        self.path = target.partition(b"?")[0]
        snapshot.paths.check(self.path, self.method, self.site)

    def stamp_unusual(self, binding: "RouteBinding", data: bytes, end: int) -> None:
        """Request ids that a trusted proxy made, credentials that are to be passed on, signed stamps, Max-Forwards."""
        head = self.head
        if head.request_id is not None:
            self.rid = head.request_id
        if head.forwards is not None:
            self.count_forwards(head.forwards)
        if binding.route.finish is not None and head is PLAIN:
            self.head = FINISHED
        assert self.endpoint is not None
        if self.endpoint.sent_host is not None:
            self.keep = replace_host(self.keep, self.endpoint.sent_host)
        if binding.route.total_timeout is not None:
            self.client.bound(self, self.started + binding.route.total_timeout)
        if binding.forwards_key:
            self.keep = self.credentials + self.keep
        else:
            if head.unkeyed:
                self.keep = head.unkeyed + self.keep
            if self.snapshot.query_key is not None:
                self.first = remove_key(self.first, self.snapshot.query_key)
        rewriter = binding.route.rewriter
        if rewriter is not None:
            self.first, self.keep = rewriter.first(self.first), rewriter.fields(self.keep)
        if head.upgrade:
            self.keep += message.format_upgrade(self.protocols())
        if self.snapshot.sign is not None:
            there = not head.chunked and len(data) - end - 4 >= self.length
            body = data[end + 4 : end + 4 + self.length] if there else None
            self.keep += self.snapshot.sign(self.rid, binding, self.now, self.first, body)

    def count_forwards(self, left: int) -> None:
        """RFC 9110 section 7.6.2: whoever asks how far its OPTIONS comes is answered here where it may not go on."""
        if self.method == b"OPTIONS":
            if not left:
                raise DirectResponse(204, "Max-Forwards ends here")
            left -= 1
        self.keep += b"Max-Forwards: %d\r\n" % left

    def interim(self, head: "ResponseHead") -> None:
        """A 1xx answer: passed on at once, to whom can be sent one (RFC 9110 section 15.2)."""
        self.interims += 1
        if self.interims > INTERIM_ANSWERS_MAX:
            raise UpstreamError("http_protocol_error", "The upstream sent too many interim answers")
        if self.minor:
            assert self.binding is not None
            keep, metered_by = head.keep, self.binding.metering
            self.client.write((keep if metered_by is None else metered_by.hide(keep)) + b"\r\n")

    def probe(self) -> bytes:
        """What the client may be sent at this moment that means nothing; nothing where there is no such thing.

        Before an answer that is 100, which every client of HTTP/1.1 must understand, asked for or not (RFC 9110
        section 15.2). Between two chunks it is a zero, with which the size of the next may begin (RFC 9112
        section 7.1).
        """
        if not self.answered:
            return message.CONTINUE if self.minor else b""
        return b"0" if self.server is not None and self.server.rechunks else b""

    def switch(self, head: "ResponseHead") -> None:
        """101: one request for billing, whatever passes through the tunnel after it."""
        self.record_response(101)
        self.meter(101)
        self.reported(head.keep)
        head.keep = self.meter_head(101, head.keep)
        if head.flags >= NAMES_PLACES:
            head.keep = self.map_places(head.keep)
        client = self.client
        client.last = True
        client.deadline = self.arrived + tunnel.IDLE_SECONDS
        assert self.binding is not None
        if self.binding.route.finish is not None:
            self.binding.route.finish.apply(head, self)
        offered = message.SWITCHING if head.upgrade is None else message.format_upgrade((head.upgrade,))
        client.write(self.head_of(head, offered))

    def protocols(self) -> tuple[bytes, ...]:
        """Those that the client has offered to switch to, and its route allows."""
        route = self.route
        assert route is not None
        return tuple(protocol for protocol in self.head.upgrade if protocol in route.protocols)

    def respond(self, server: "UpstreamSide[Exchange]", head: "ResponseHead") -> tuple[bytes, bool]:
        """The head, for the client, of an answer that is relayed piece by piece, and whether its pieces are chunks."""
        self.record_response(head.status)
        client = self.client
        bodiless = self.bodiless(head.status)
        endless = head.length < 0 and not bodiless
        chunked = endless and self.minor == 1
        if client.body is not None:
            # Answered before the request has ended: what is still to come cannot be told from the next request.
            client.last, server.reusable = True, False
        elif self.overflow is not None and not self.overflow.sent:
            server.reusable = False
        if self.runtime.connections.draining or (endless and not chunked):
            client.last = True
        if not head.dated:
            head.keep += self.runtime.date
        self.meter(head.status)
        self.reported(head.keep)
        head.keep = self.meter_head(head.status, head.keep)
        if head.flags >= NAMES_PLACES:
            head.keep = self.map_places(head.keep)
        assert self.binding is not None
        finish = self.binding.route.finish
        if finish is not None:
            server.compressor = finish.apply(head, self)
            chunked = chunked or server.compressor is not None
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        if client.last:
            framing += b"Connection: close\r\n"
        self.idle_timeout = self.binding.route.idle_timeout
        if endless and is_event_stream(head.keep):
            self.idle_timeout = NEVER
            event_stream.enable_keep_alive(client.transport, server.transport)
        client.deadline = self.arrived + self.idle_timeout
        return self.head_of(head, framing), chunked

    def map_places(self, lines: bytes) -> bytes:
        """The head of an answer that names places of its service, as the client has to ask for them."""
        assert self.route is not None
        assert self.endpoint is not None
        mapping = self.route.reverse
        if mapping is None and self.minor:
            return lines
        requested = find_values(self.keep, FORWARDED_HOST)
        if requested:
            authority = requested[0].partition(b",")[0].strip()
            return lines if mapping is None else mapping.apply(lines, authority, self.endpoint.authorities)
        # The service may say the name that was made up for it, which nobody asked for.
        return (mapping or SAME).apply(lines, None, (*self.endpoint.authorities, LOCALHOST))

    def head_of(self, head: "ResponseHead", framing: bytes) -> bytes:
        """An answer's head: kept lines, `framing`, RateLimit fields or else the upstream's, request id."""
        fields = (self.rate_fields() or head.rate) + self.notes
        keep = self.remove_legacy_fields(head.keep) if self.snapshot.legacy_headers else head.keep
        if self.snapshot.security_headers and head.status != 101:
            fields += security_fields.MISSING_LINES[self.is_secure()][head.flags]
        return b"%b%b%bX-Request-Id: %b\r\n\r\n" % (keep, framing, fields, self.rid)

    def bodiless(self, status: int) -> bool:
        """Whether an answer of this status has no body, whatever its fields say (RFC 9112 section 6.3)."""
        return self.method == b"HEAD" or status in (204, 304)

    def record_response(self, status: int) -> None:
        """The upstream's answer has begun."""
        endpoint = self.endpoint
        assert endpoint is not None
        self.status, self.arrived = status, monotonic()
        self.state = TUNNEL if status == 101 else ANSWERING
        endpoint.service.record_response()
        if status >= 500:
            endpoint.failed(self.arrived)

    def rate_fields(self) -> bytes:
        """The RateLimit lines of the policy closest to refusal, or nothing where no rate policy applied."""
        shown = self.shown
        if shown is None:
            return b""
        if self.snapshot.legacy_headers:
            return format_rate_limit(shown, self.left, self.now) + format_legacy(shown, self.left, self.now)
        return format_rate_limit(shown, self.left, self.now)

    def remove_legacy_fields(self, head: bytes) -> bytes:
        """An upstream's head where the edge speaks of limits in the fields of old: then the upstream does not."""
        return head if self.shown is None else remove_legacy(head)

    def is_secure(self) -> bool:
        """Whether the client is spoken with over TLS: here, or at the trusted proxy that says so."""
        scheme = self.head.forwarded_proto
        # Of a chain of proxies the first one speaks with the client.
        return self.client.secure if scheme is None else scheme.partition(b",")[0].strip().lower() == b"https"

    @property
    def streams_events(self) -> bool:
        """Whether its answer is a stream of events that has begun: only those may be silent for ever."""
        return self.state is ANSWERING and self.idle_timeout == NEVER

    def request_id(self) -> bytes:
        """The id of this request, made now where it was refused before it got one."""
        if not self.rid:
            self.rid = self.head.request_id or self.runtime.ids.bare(self.now + EPOCH)
        return self.rid

    def meter(self, status: int) -> None:
        """Count an answer, for billing and for Prometheus; before its head is written: what is received, counts."""
        assert self.binding is not None
        for counter in self.binding.counters[status]:
            counter.add(1)

    def metered(self) -> "metering.Metered":
        """The quotas of who asks that are charged what meters count."""
        return NOTHING if self.limit_set is None else self.limit_set.metered

    def meter_head(self, status: int, head: bytes) -> bytes:
        """Count what is known with the head of an answer that is relayed piece by piece; the head for the client."""
        assert self.binding is not None
        metered_by = self.binding.metering
        return head if metered_by is None else metered_by.relay(self, status, head)

    def read_trailers(self, trailers: list[bytes]) -> list[bytes]:
        """Count what an answer's trailer lines report, each without CRLF; returns those that the client is to get."""
        assert self.binding is not None
        if self.binding.metering is None:
            return trailers
        return self.metered_by.read_trailers(self.status, trailers, self.metered(), self.runtime)

    # ---- answers of the edge's own

    def own_answer(self, reason: Refusal, *, close: bool) -> bytes:
        """The answer to a request that an upstream failed, a rule refused, or one of these limits.

        It is counted and logged here, as what it is, before it is written; it is never billed.
        """
        if isinstance(reason, LimitSet):
            return self.limited(reason, close=close)
        made = local_reply.format_local_reply(
            reason,
            request_id=self.request_id(),
            date=self.runtime.date,
            limits=self.rate_fields() + self.notes,
            browsers=self.for_browsers(),
            close=close,
            # The method is unknown where the fields were refused; the answer to HEAD has no body then either.
            head_only=self.method == b"HEAD" or (not self.method and self.first.startswith(b"HEAD ")),
        )
        route, tier = self.labels()
        whose = None
        if isinstance(reason, RejectedCustomerError):
            tier, whose = reason.tier, (reason.customer, reason.tier)
        self.runtime.metrics.requests(route, tier, made.status).add(1)
        self.status, self.bytes_out = made.status, made.body_size
        self.over(made.why if made.status >= 400 else None, whose=whose)
        return made.data

    def limited(self, limit_set: LimitSet, *, close: bool) -> bytes:
        """429: something in these limits has no room. Retry-After is never earlier than when a retry can succeed. Or
        402: what was paid in advance is spent."""
        held, runtime = self.shut, self.runtime
        violated, retry_after = compute_gate_denial(limit_set, held) if held else compute_denial(limit_set, self.now)
        names = (violated[0].name,) if len(violated) == 1 else tuple([policy.name for policy in violated])
        route, tier = self.labels()
        status, why = 429, None
        for quota in limit_set.quotas:
            if quota in violated:
                status, why = (402 if isinstance(quota, Balance) else status), why or quota.why
        for counter in runtime.metrics.limited(route, tier, names, status):
            counter.add(1)
        if self.binding is not None and self.binding.refusals is not None:
            certain = is_certain(limit_set, self.now, violated, held)
            self.binding.refusals.note(names[0], certain=certain)
        limit_fields = self.rate_fields()
        if self.snapshot.speaks_to_browsers:
            limit_fields += self.for_browsers()
        detail = None if self.binding is None else self.binding.message
        if status == 402:
            fields = runtime.date + limit_fields
        elif retry_after:
            fields = b"%bRetry-After: %d\r\n%b" % (runtime.date, retry_after, limit_fields)
            detail = detail if why is None else f"{why}. {detail}" if detail else why
        else:
            fields, detail = (
                runtime.date + limit_fields,
                local_reply.describe_impossible_cost(find_impossible_costs(limit_set)[0], detail),
            )
        head_only = self.method == b"HEAD"
        answered = message.format_credits_spent if status == 402 else message.format_limited
        answer = answered(fields, names, self.request_id(), detail=detail, close=close, head_only=head_only)
        if self.snapshot.access is not None:
            self.status, self.bytes_out = status, local_reply.compute_body_size(answer)
            self.over(f"Over the limit {', '.join(names)}")
        return answer

    def labels(self) -> tuple[str, str]:
        """(route, tier) as metrics name them, as far as they are known."""
        route, binding = self.route, self.binding
        return NO_LABEL if route is None else route.label, NO_LABEL if binding is None else binding.tier

    def for_browsers(self) -> bytes:
        """What the edge's own answers say to browsers: security fields, and which pages may see them."""
        snapshot = self.snapshot
        if not snapshot.speaks_to_browsers:
            return b""
        fields = security_fields.OWN_LINES[self.is_secure()] if snapshot.security_headers else b""
        cors = self.cross_origin()
        return fields if cors is None else fields + cors.fields(find_value(self.keep, ORIGIN))

    def cross_origin(self) -> "CrossOrigin | None":
        """Which pages may see an answer of the edge's own; None where nothing is said of that."""
        if not self.path:
            return None  # The head was refused: nobody knows whose page it is.
        if self.route is not None:
            return self.route.cors
        try:
            # It was refused before anybody looked.
            return self.site.match(self.path, self.method).cors
        except RejectedError:
            return self.snapshot.cors

    # ---- connecting

    def connect(self) -> None:
        """Have a connection opened to the endpoint; `connected` or `unreachable` hears what comes of it."""
        self.state = CONNECTING
        self.runtime.connector.connect(self)

    def connected(self, server: "UpstreamSide[Exchange]") -> None:
        """A new connection is there: send what there is of the request, unless nobody waits for it any more."""
        client = self.client
        if client.exchange is not self:
            server.idle_again(monotonic())
        elif server.transport.is_closing():
            # Nothing was written, so this may be done again with any request.
            fault = UpstreamError("connection_terminated", "The upstream closed the connection at once")
            if self.retry(fault, same=True):
                self.connect()
            else:
                self.fail(fault)
        else:
            assert self.endpoint is not None
            self.server, server.exchange = server, self
            server.write(self.message)
            if self.head.upgrade and client.ended and not client.buffer:
                server.end()
            self.state = SENT
            self.sent_at = now = monotonic()
            # As far as the edge's own time is concerned, this was the upstream's.
            self.away += now - self.away_since
            assert self.binding is not None
            head_timeout = self.binding.route.head_timeout
            client.deadline = now + (head_timeout if client.body is None else self.snapshot.body_idle)
            self.send_overflow(server)
            client.resume()
            if client.choked:
                server.pause()

    def unreachable(self, fault: UpstreamError) -> None:
        """The endpoint could not be reached. Nothing was sent, so another one is asked, or it once more."""
        if not self.retry(fault, same=fault.error in UNREACHED):
            self.fail(fault)

    def retry(self, fault: UpstreamError, *, same: bool) -> bool:
        """Choose the endpoint to which the request is sent once more; False where it must not be, or there is none.

        Rather another one than the same, which is taken only if `same` allows it. `fault` is what the last one is to
        blame for. The caller knows that doing it twice does no harm.
        """
        endpoint, metrics = self.endpoint, self.runtime.metrics
        assert endpoint is not None
        service = endpoint.service
        tried = (*self.tried, endpoint)
        other = service.other_than(tried) or (endpoint if same else None)
        if other is None or len(tried) >= service.attempts or not service.budget.spend():
            return False
        metrics.upstream_error(service.name, fault.error)
        if not fault.is_local:
            endpoint.failed(monotonic())
        metrics.upstream_retry(service.name)
        endpoint.outstanding -= 1
        other.outstanding += 1
        if other.sent_host is not None and other.sent_host != endpoint.sent_host:
            self.message = replace_host(self.message, other.sent_host)
        self.endpoint, self.tried, self.server = other, tried, None
        return True

    @property
    def answered(self) -> bool:
        """Whether the head of a final answer has begun to go out, piece by piece."""
        return self.state is ANSWERING or self.state is TUNNEL

    # ---- ends

    def complete(self) -> None:
        """The answer has gone out whole."""
        # Once the head has gone up, a piecewise answer takes the time that its upstream takes.
        own = self.sent_at - self.started - self.away
        assert self.route is not None
        self.route.observe(monotonic() - self.started, own, self.arrived - self.sent_at)
        self.passed()
        self.over()
        self.release()
        self.client.next()

    def lost(self, *, fresh: bool, begun: bool) -> None:
        """The upstream connection is gone with the answer unfinished. `begun`: some of its head had come.

        Before any byte of the answer, the request is sent once more over a new connection if doing it twice does no
        harm (RFC 9110 section 9.2.2) and all of it is still here. A kept connection, one that is not `fresh`, has
        probably been closed as idle while the request was on its way: nobody is to blame for that, so nobody is
        charged for it (RFC 9112 section 9.3.1).
        """
        error = "http_response_incomplete" if self.answered else "connection_terminated"
        fault = UpstreamError(error, "The upstream closed the connection before its answer was complete")
        self.server = None
        held = self.client.body is None and not self.streamed
        silent = not (begun or self.answered or self.interims)
        again = silent and held and self.method in IDEMPOTENT
        if again and not fresh:
            assert self.endpoint is not None
            self.runtime.metrics.upstream_stale(self.endpoint.service.name)
            self.connect()
        elif again and self.retry(fault, same=True):
            self.connect()
        else:
            self.fail(fault)

    def fail(self, error: EdgeError) -> None:
        """It cannot go on: an answer where none has begun, else an abort, so that no part passes for a whole."""
        client, endpoint = self.client, self.endpoint
        if endpoint is not None and isinstance(error, UpstreamError):
            self.runtime.metrics.upstream_error(endpoint.service.name, error.error)
            failed_already = self.answered and self.status >= 500  # By its status.
            if not error.is_local and not failed_already:
                endpoint.failed(monotonic())
        server = self.server
        if server is not None:
            server.abort()
        if self.answered:
            self.over(error.error if isinstance(error, UpstreamError) else error.detail)
            self.release()
            client.exchange = None
            client.cut()
            return
        # A client that waits for 100 may or may not send its body now; where the next request begins is unclear. So it
        # is where nobody has looked yet at what has come behind the head.
        unclear = client.body is not None or self.head.expect or self.state is AWAITS_CLAIMS
        close = client.last or unclear
        client.answer(self.own_answer(error, close=close), close=close)
        client.next()

    def end_tunnel(self) -> None:
        """The upstream's side of a tunnel has closed. How long it stood says nothing of how long requests take."""
        self.server = None
        self.over()
        self.passed()
        self.release()
        self.client.next()

    def abandon(self, *, cut: bool = False) -> None:
        """The client is gone: so is the reason to bother the upstream. `cut`: it was the edge that ended it."""
        server = self.server
        if self.state in (AWAITS_KEY, AWAITS_CLAIMS):
            self.request_id()  # It waited, and had none yet.
        if cut:
            self.over(CUT)
        else:
            self.over(aborted=server is None or not (server.tunnel and self.client.ended))
            self.passed()
        self.release()
        if server is None:
            return
        if server.tunnel and self.client.ended:
            server.close()  # After the last words: both sides of the tunnel have closed.
        else:
            server.abort()

    def passed(self) -> None:
        """As far as the endpoint is concerned it went well, if it has answered at all."""
        if self.answered and self.status < 500:
            assert self.endpoint is not None
            self.endpoint.passed(self.sent_at)

    def over(self, error: str | None = None, *, aborted: bool = False, whose: tuple[str, str] | None = None) -> None:
        """However it ended, nothing follows: tell the access log, before what was selected is given back. `whose`:
        the customer and the tier where there is no binding that says so."""
        access = self.snapshot.access
        if access is not None:
            access.over(self, self.endpoint, error=error, aborted=aborted, whose=whose)

    def release(self) -> None:
        """Give back what admission and selection took."""
        if self.awaited_gate is not None:
            self.runtime.claim_waiter.leave(self.awaited_gate, self)
            self.awaited_gate = None
        if self.awaited_key is not None:
            self.runtime.key_lookup.leave(self.awaited_key, self)
            self.awaited_key = None
        if self.limit_set is not None:
            if not self.answered:
                self.reported(b"")
            self.settle(self.status if self.answered else UNANSWERED)
        if self.endpoint is not None:
            self.give_back()
        if self.overflow is not None:
            self.overflow.close()
            self.overflow = None
        self.server = None
        self.state = OVER
