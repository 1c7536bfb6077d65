"""The record of a request and its answer, and the resources that it holds: limits, an endpoint, a place in a queue.

An exchange is one object, because each further object would cost every request. Four modules describe its life, and
each knows the ones before it: this record; response_relay.py, an answer on its way to the client; forwarding.py, a
request on its way to an upstream; exchange.py, from the head to the decision to forward. Data that few requests need is
in objects created on demand: `Wait`, `BufferedBody`, and the functions of unusual_request.py and own_response.py.
"""

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from edgeproxy.base.clock import EPOCH
from edgeproxy.edge.http1.request import PLAIN
from edgeproxy.edge.limits.admission import charge_reported_costs, notify_totals
from edgeproxy.edge.limits.fields import format_legacy, format_rate_limit
from edgeproxy.edge.limits.limit_set import NOTHING
from edgeproxy.edge.limits.reported_cost import parse_cost
from edgeproxy.edge.proxy.metering.labels import NO_LABEL
from edgeproxy.edge.proxy.metering.meters import is_billed
from edgeproxy.edge.proxy.observation.exchange_states import ANSWERING, DECIDING, GATHERING, OVER, TUNNEL
from edgeproxy.edge.proxy.routing.router import NO_SITE
from edgeproxy.edge.proxy.transport.deadlines import NEVER

if TYPE_CHECKING:
    from edgeproxy.edge.body_usage.collected_request import CollectedRequest
    from edgeproxy.edge.http1.grammar import TraceParent
    from edgeproxy.edge.limits.limit_set import LimitSet
    from edgeproxy.edge.limits.policy import Policy
    from edgeproxy.edge.proxy.exchange.buffered_body import BufferedBody
    from edgeproxy.edge.proxy.exchange.request_wait import Wait
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.exchange.sides import ClientSide, UpstreamSide
    from edgeproxy.edge.proxy.metering.meters import Countable, Metered, Metering
    from edgeproxy.edge.proxy.observation.exchange_states import State
    from edgeproxy.edge.proxy.observation.request_span import RequestSpan
    from edgeproxy.edge.proxy.routing.binding import Route, RouteBinding
    from edgeproxy.edge.proxy.routing.identity import Identity
    from edgeproxy.edge.proxy.routing.router import Site
    from edgeproxy.edge.proxy.upstreams.pool import Endpoint

NO_RESPONSE: Final = 599
"""The status that settles limits if there was no answer to count."""


class ExchangeRecord:
    """The record of one exchange. Times are seconds of the monotonic clock; `now` is edge time."""

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
    """The identity of the sender."""
    credentials: bytes
    keep: bytes
    trace: "TraceParent | None"
    """The values that `RequestHead` has under these names."""
    metering: "Metering"
    """The meters of an answer that is relayed piece by piece, if any count more than requests."""
    usage_requested: bool
    """True if the edge asked for the usage of a stream, on a route that allows this."""
    is_patient: bool
    """True if the first upstream gets the full timeout, because the route's fallback could not take the request."""
    received_lines: tuple[bytes, bytes]
    """The request line and kept lines before they are changed for the first upstream, on a route with a fallback."""
    sent_at: float
    """When the request was written to the upstream."""
    shown_left: int
    """The number that `shown_policy` has left."""
    server: "UpstreamSide[Any] | None"
    """The connection to the upstream, while there is one."""
    upstream_request_id: bytes | None
    """The upstream's own id of the request, for the access log, if the configuration names its field."""

    def __init__(self, client: "ClientSide[Any]", runtime: "Runtime") -> None:
        # One long function, because every request runs it.
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
        """When the answer began; since when the request waits for a connection or the hub; its total wait so far. Waits
        do not count as the edge's own time.
        """
        self.idle_timeout = NEVER
        """Maximum of seconds between two pieces of the answer; known once its head has come."""
        self.buffered_body: BufferedBody | None = None
        """The body, if the upstream gets whole requests and this one came in parts."""
        self.collected: CollectedRequest | None = None
        """The part of the body that an estimate needs, if one may be made and the body did not come at once."""
        self.streamed_body = False
        """True if a part of the body was sent after the head, so that the request cannot be sent again."""
        self.accepts_whole = False
        """True if the whole request was there when it was sent, and nothing forbids an answer in one piece."""
        self.state: State = DECIDING
        self.tried_endpoints: tuple[Endpoint, ...] = ()
        self.request_counters: tuple[Countable, ...] = ()
        self.response_counters: tuple[Countable, ...] = ()
        """The counters of bytes of the bodies and of a tunnel. They count bytes before these are passed on."""
        self.site: Site[Route] = NO_SITE
        self.route: Route | None = None
        self.binding: RouteBinding | None = None
        self.endpoint: Endpoint | None = None
        """Each is None until the step that finds it."""
        self.server = None
        self.shown_policy: Policy | None = None
        """The policy closest to refusal, which the RateLimit fields report."""
        self.span: RequestSpan | None = None
        """Its span, if it is recorded."""
        self.wait: Wait | None = None
        """The wait before the request is forwarded; None if it never waited."""
        self.exhausted_policies: tuple[Policy, ...] = ()
        """Policies that had room here but not on all hosts: other hosts have used it up."""
        self.limit_set: LimitSet | None = None
        """The limits to settle at the end; None without any."""
        self.notes = self.method = self.path = self.request_line = self.rid = self.message = b""

    # ---- derived values

    @property
    def has_begun_response(self) -> bool:
        """True once the head of a final answer has begun to go out, piece by piece."""
        return self.state is ANSWERING or self.state is TUNNEL

    def is_streamed(self) -> bool:
        """Return whether the body of the request may arrive at any pace.

        That holds for HTTP/2 services, whose calls may be bidirectional: a slow body occupies no thread or connection
        there. It also holds once the answer has begun.
        """
        binding = self.binding
        return self.has_begun_response or (
            self.state is not GATHERING and binding is not None and binding.route.service.speaks_http2
        )

    @property
    def streams_events(self) -> bool:
        """True if the answer is an event stream that has begun. Only those may stay silent for any time."""
        return self.state is ANSWERING and self.idle_timeout == NEVER

    def is_secure(self) -> bool:
        """Return whether the client uses TLS, towards this edge or towards a trusted proxy that says so."""
        scheme = self.head.forwarded_proto
        # In a chain of proxies the first one speaks with the client.
        return self.client.secure if scheme is None else scheme.partition(b",")[0].strip().lower() == b"https"

    def get_request_id(self) -> bytes:
        """Return the id of this request. A request that was refused before it got one gets it now."""
        if not self.rid:
            self.rid = self.head.request_id or self.runtime.ids.create_request_id(self.now + EPOCH)
        return self.rid

    def get_labels(self) -> tuple[str, str]:
        """Return the known ones of (route, tier), under their names in metrics."""
        route, binding = self.route, self.binding
        return NO_LABEL if route is None else route.label, NO_LABEL if binding is None else binding.tier

    def get_metered_quotas(self) -> "Metered":
        """Return the customer's quotas that the meters charge."""
        return NOTHING if self.limit_set is None else self.limit_set.traits.metered

    def format_rate_fields(self) -> bytes:
        """Format the RateLimit lines of the policy closest to refusal; empty if no rate policy applied."""
        shown = self.shown_policy
        if shown is None:
            return b""
        if self.snapshot.legacy_headers:
            return format_rate_limit(shown, self.shown_left, self.now) + format_legacy(shown, self.shown_left, self.now)
        return format_rate_limit(shown, self.shown_left, self.now)

    # ---- held resources

    def charge_reported(self, head: bytes) -> None:
        """Charge the costs that an answer's head reports.

        A missing cost defaults to the amount charged at admission.
        """
        limit_set, binding = self.limit_set, self.binding
        if limit_set is not None and binding is not None and (headers := binding.terms.limits.headers):
            costs = [parse_cost(head, field) for field in headers]
            # As of now: the answer may have taken longer than a window.
            for policy, left in charge_reported_costs(limit_set, monotonic() + self.runtime.offset, costs).items():
                if policy is self.shown_policy or left < self.shown_left:
                    self.shown_policy, self.shown_left = policy, left

    def settle_limits(self, status: int) -> None:
        """Release the request's limits, and refund the quotas that do not count an answer of this status."""
        limit_set, self.limit_set = self.limit_set, None
        if limit_set is not None:
            # As `LimitSet.release`, without its call.
            if limit_set.slot is not None:
                limit_set.slot.release()
            for slot in limit_set.several[1]:
                slot.release()
            if limit_set.traits.quotas:
                self._refund_quotas(limit_set, status)

    def _refund_quotas(self, limit_set: "LimitSet", status: int) -> None:
        """Refund the quotas that do not count an answer of this status."""
        limit_set.refund(self.now, lambda when: when == "admitted" or is_billed(when, status))
        if limit_set.traits.sharing.totals:
            # Admission may be long ago, and without requests no other code reports the quota's change.
            notify_totals(limit_set, monotonic() + self.runtime.offset)

    def release_endpoint(self) -> None:
        """Release the endpoint. If no answer has begun, its breaker stops counting the request as pending."""
        endpoint = self.endpoint
        if endpoint is not None:
            endpoint.outstanding -= 1
            if not self.has_begun_response:
                endpoint.service.record_response_start()
            self.endpoint = None

    def release(self) -> None:
        """Release everything that admission and selection took. This is the end of the exchange."""
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
        """Hand over the spans and write the access log, before `release` forgets the endpoint.

        `error`: why it failed. `aborted`: the client left. `customer`: name and tier, if no binding has them.
        """
        tracer, access_log = self.snapshot.tracer, self.snapshot.access_log
        if tracer is not None:
            tracer.end(self, error=error, aborted=aborted)
        if access_log is not None:
            access_log.log_request(self, self.endpoint, error=error, aborted=aborted, customer=customer)
