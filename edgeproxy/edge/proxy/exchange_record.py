"""The record of a request and its answer, and what it holds: limits, an endpoint, a place in a queue.

An exchange is one object, as every further one would cost each request. Its life is told in four modules, each of which
knows those before it: this record; response_relay.py, an answer on its way to the client; forwarding.py, a request on
its way to an upstream; exchange.py, from the head to the decision to forward it. What few requests need is in parts
that are made when they are: `Wait`, `BufferedBody`, and the functions of request_line_reader.py, own_response.py and
response_head.py.
"""

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from edgeproxy.base.clock import EPOCH
from edgeproxy.edge.http1.request import PLAIN
from edgeproxy.edge.limits.admission import charge_reported_costs, notify_totals
from edgeproxy.edge.limits.fields import format_legacy, format_rate_limit
from edgeproxy.edge.limits.limit_set import NOTHING
from edgeproxy.edge.limits.reported_cost import parse_cost
from edgeproxy.edge.proxy.deadlines import NEVER
from edgeproxy.edge.proxy.exchange_states import ANSWERING, DECIDING, GATHERING, OVER, TUNNEL
from edgeproxy.edge.proxy.labels import NO_LABEL
from edgeproxy.edge.proxy.metering import is_billed
from edgeproxy.edge.proxy.router import NO_SITE

if TYPE_CHECKING:
    from edgeproxy.edge.body_usage.collected_request import CollectedRequest
    from edgeproxy.edge.http1.grammar import TraceParent
    from edgeproxy.edge.limits.limit_set import LimitSet
    from edgeproxy.edge.limits.policy import Policy
    from edgeproxy.edge.proxy.buffered_body import BufferedBody
    from edgeproxy.edge.proxy.exchange_sides import ClientSide, UpstreamSide
    from edgeproxy.edge.proxy.exchange_states import State
    from edgeproxy.edge.proxy.identity import Identity
    from edgeproxy.edge.proxy.metering import Countable, Metered, Metering
    from edgeproxy.edge.proxy.pool import Endpoint
    from edgeproxy.edge.proxy.request_span import RequestSpan
    from edgeproxy.edge.proxy.request_wait import Wait
    from edgeproxy.edge.proxy.route_binding import Route, RouteBinding
    from edgeproxy.edge.proxy.router import Site
    from edgeproxy.edge.proxy.runtime import Runtime

NO_RESPONSE: Final = 599
"""The status by which limits are settled where there was no answer to be counted."""


class ExchangeRecord:
    """The record of one exchange. Times are seconds of the monotonic clock, `now` is edge time."""

    __slots__ = (
        "accepts_whole",
        "arrived",
        "binding",
        "buffered_body",
        "bytes_in",
        "bytes_out",
        "client",
        "collected",
        "credentials",
        "endpoint",
        "exhausted_policies",
        "head",
        "identity",
        "idle_timeout",
        "interim_count",
        "is_patient",
        "keep",
        "length",
        "limit_set",
        "message",
        "metering",
        "method",
        "minor",
        "notes",
        "now",
        "path",
        "received_lines",
        "refusals",
        "request_counters",
        "request_line",
        "response_counters",
        "rid",
        "route",
        "runtime",
        "sent_at",
        "server",
        "shown_left",
        "shown_policy",
        "site",
        "snapshot",
        "span",
        "started",
        "state",
        "status",
        "streamed_body",
        "trace",
        "tried_endpoints",
        "upstream_request_id",
        "usage_requested",
        "wait",
        "waiting_seconds",
        "waiting_since",
    )

    identity: "Identity"
    """The identity of who sends the request."""
    credentials: bytes
    keep: bytes
    trace: "TraceParent | None"
    """The values of the request's head that `RequestHead` has under these names."""
    metering: "Metering"
    """The meters of an answer that is relayed piece by piece, where anything but requests is counted."""
    usage_requested: bool
    """Whether the edge has asked for the usage that the answer's stream states, on a route where it may."""
    is_patient: bool
    """Whether its first upstream has all the time that others have, as the fallback of its route could not be asked."""
    received_lines: tuple[bytes, bytes]
    """The request line and the kept lines, not yet as the first upstream gets them, on a route with a fallback."""
    sent_at: float
    """The time at which the request was written to the upstream."""
    shown_left: int
    """The number that `shown_policy` has left."""
    server: "UpstreamSide[Any] | None"
    """The connection to the upstream, while it has one."""
    upstream_request_id: bytes | None
    """The upstream's own id of the request, for the access log, where its configuration names the field."""

    def __init__(self, client: "ClientSide[Any]", runtime: "Runtime") -> None:
        # In one piece, as it is on the way of every request.
        self.client = client
        self.runtime = runtime
        self.started = started = monotonic()
        self.now = started + runtime.offset
        self.snapshot = runtime.snapshot
        self.head = PLAIN
        self.minor = 1
        """The minor version of the request's HTTP."""
        self.length = self.interim_count = self.refusals = self.status = self.bytes_in = self.bytes_out = 0
        self.arrived = self.waiting_since = self.waiting_seconds = 0.0
        """The time at which the answer began; the time since which the request waits for a connection or for the hub,
        and for how long it has: none of that is the edge's own time."""
        self.idle_timeout = NEVER
        """Seconds between two pieces of its answer; known with its head."""
        self.buffered_body: BufferedBody | None = None
        """The body, where the upstream gets requests whole and this one was not."""
        self.collected: CollectedRequest | None = None
        """The body as far as an estimate needs it, where one may be made and the body was not all here at once."""
        self.streamed_body = False
        """Whether some of the body was sent after the head: then the request cannot be sent again."""
        self.accepts_whole = False
        """Whether the whole request was there when it was sent, and nothing forbids an answer in one piece."""
        self.state: State = DECIDING
        self.tried_endpoints: tuple[Endpoint, ...] = ()
        self.request_counters: tuple[Countable, ...] = ()
        self.response_counters: tuple[Countable, ...] = ()
        """The counters to which the bytes of the bodies, and of a tunnel, are added before they are passed on."""
        self.site: Site[Route] = NO_SITE
        self.route: Route | None = None
        self.binding: RouteBinding | None = None
        self.endpoint: Endpoint | None = None
        """Each None until the step that finds it."""
        self.server = None
        self.shown_policy: Policy | None = None
        """The policy closest to refusal, which RateLimit fields tell of."""
        self.span: RequestSpan | None = None
        """Its span, if it is recorded."""
        self.wait: Wait | None = None
        """The wait before the request is forwarded; None where it never had to."""
        self.exhausted_policies: tuple[Policy, ...] = ()
        """Policies without room for it though there seemed to be some: other hosts have used it."""
        self.limit_set: LimitSet | None = None
        """The limits to be settled at its end; None where nothing is."""
        self.notes = self.method = self.path = self.request_line = self.rid = self.message = b""

    # ---- derived values

    @property
    def has_begun_response(self) -> bool:
        """Whether the head of a final answer has begun to go out, piece by piece."""
        return self.state is ANSWERING or self.state is TUNNEL

    def is_streamed(self) -> bool:
        """Return whether the body of the request may come as slowly as it likes: its service takes calls in which both
        sides speak, and a slow one keeps neither a thread nor a connection of it; or it answers already."""
        binding = self.binding
        return self.has_begun_response or (
            self.state is not GATHERING and binding is not None and binding.route.service.speaks_http2
        )

    @property
    def streams_events(self) -> bool:
        """Whether its answer is a stream of events that has begun: only those may be silent for ever."""
        return self.state is ANSWERING and self.idle_timeout == NEVER

    def is_secure(self) -> bool:
        """Return whether the client is spoken with over TLS: here, or at the trusted proxy that says so."""
        scheme = self.head.forwarded_proto
        # Of a chain of proxies the first one speaks with the client.
        return self.client.secure if scheme is None else scheme.partition(b",")[0].strip().lower() == b"https"

    def get_request_id(self) -> bytes:
        """Return the id of this request, made now where it was refused before it got one."""
        if not self.rid:
            self.rid = self.head.request_id or self.runtime.ids.create_request_id(self.now + EPOCH)
        return self.rid

    def get_labels(self) -> tuple[str, str]:
        """Return (route, tier) as metrics name them, as far as they are known."""
        route, binding = self.route, self.binding
        return NO_LABEL if route is None else route.label, NO_LABEL if binding is None else binding.tier

    def get_metered_quotas(self) -> "Metered":
        """Return the customer's quotas that are charged what meters count."""
        return NOTHING if self.limit_set is None else self.limit_set.metered

    def format_rate_fields(self) -> bytes:
        """Format the RateLimit lines of the policy closest to refusal; nothing where no rate policy applied."""
        shown = self.shown_policy
        if shown is None:
            return b""
        if self.snapshot.legacy_headers:
            return format_rate_limit(shown, self.shown_left, self.now) + format_legacy(shown, self.shown_left, self.now)
        return format_rate_limit(shown, self.shown_left, self.now)

    # ---- what it holds

    def charge_reported(self, head: bytes) -> None:
        """Charge the costs that an answer's head reports; a cost that it does not report is what was charged."""
        limit_set, binding = self.limit_set, self.binding
        if limit_set is not None and binding is not None and binding.limits.terms.headers:
            costs = [parse_cost(head, field) for field in binding.limits.terms.headers]
            # As of now: the answer may have taken longer than a window.
            for policy, left in charge_reported_costs(limit_set, monotonic() + self.runtime.offset, costs).items():
                if policy is self.shown_policy or left < self.shown_left:
                    self.shown_policy, self.shown_left = policy, left

    def settle_limits(self, status: int) -> None:
        """Release what the limits hold of it, and refund those quotas that do not count an answer of this status."""
        limit_set, self.limit_set = self.limit_set, None
        if limit_set is not None:
            limit_set.release()
            if limit_set.quotas:
                self._refund_quotas(limit_set, status)

    def _refund_quotas(self, limit_set: "LimitSet", status: int) -> None:
        """Refund the quotas that do not count an answer of this status."""
        limit_set.refund(self.now, lambda when: when == "admitted" or is_billed(when, status))
        if limit_set.sharing.totals:
            # It may have been long since it was admitted, and nobody looks at quotas that nobody uses.
            notify_totals(limit_set, monotonic() + self.runtime.offset)

    def release_endpoint(self) -> None:
        """Release the endpoint; for its breaker, a request that was not answered by now will not be."""
        endpoint = self.endpoint
        if endpoint is not None:
            endpoint.outstanding -= 1
            if not self.has_begun_response:
                endpoint.service.record_response_start()
            self.endpoint = None

    def release(self) -> None:
        """Release what admission and selection took; nothing follows."""
        if self.wait is not None:
            self.wait.leave(self.runtime)
        if self.limit_set is not None:
            if not self.has_begun_response:
                self.charge_reported(b"")
            self.settle_limits(self.status if self.has_begun_response else NO_RESPONSE)
        if self.endpoint is not None:
            self.release_endpoint()
        if self.buffered_body is not None:
            self.buffered_body.close()
            self.buffered_body = None
        self.server = None
        self.state = OVER
        if self.client.holding is not None:
            self.client.update_held()

    def log_end(
        self, error: str | None = None, *, aborted: bool = False, customer: tuple[str, str] | None = None
    ) -> None:
        """Hand over its spans and write it to the access log, before `release` forgets its endpoint.

        `error`: why it failed. `aborted`: the client left. `customer`: name and tier, where no binding has them.
        """
        tracer, access_log = self.snapshot.tracer, self.snapshot.access_log
        if tracer is not None:
            tracer.end(self, error=error, aborted=aborted)
        if access_log is not None:
            access_log.log_request(self, self.endpoint, error=error, aborted=aborted, customer=customer)
