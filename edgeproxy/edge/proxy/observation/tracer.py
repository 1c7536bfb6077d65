"""Tracing of requests: the choice of recorded requests, and their spans.

The decision to record falls when `traceparent` reports it to the upstream. An ordinary request pays for one comparison;
all other work is for the few recorded requests.
"""

import os
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeproxy.base.clock import EPOCH
from edgeproxy.base.lru_cache import LRUCache
from edgeproxy.edge.proxy.observation import span_attributes
from edgeproxy.edge.proxy.observation.exchange_states import AWAITS_BODY, AWAITS_CLAIMS, AWAITS_KEY
from edgeproxy.edge.proxy.observation.request_ids import SAMPLED, SAMPLED_AT, SPAN_ID, TRACE_ID, format_trace
from edgeproxy.edge.proxy.observation.request_span import Attempt, RequestSpan, create_span_id
from edgeproxy.tracing.sampling import ParentBudget
from edgeproxy.tracing.spans import (
    CLIENT,
    INTERNAL,
    IS_REMOTE,
    SERVER,
    SpanBatch,
    encode_attributes,
    encode_recurring,
    set_attributes,
    set_failure,
)

if TYPE_CHECKING:
    from edgeproxy.config.tracing import Tracing
    from edgeproxy.edge.proxy.observation.request_span import TracedExchange
    from edgeproxy.edge.proxy.routing.binding import RouteBinding
    from edgeproxy.edge.proxy.upstreams.pool import Endpoint

PARTS_MAX: Final = 4096
"""Route bindings and endpoints whose encoded attributes are cached."""
WAITS: Final = {AWAITS_CLAIMS: "hub wait", AWAITS_KEY: "key lookup", AWAITS_BODY: "body wait"}
"""The names of spans of waits, by the state of a request that waits."""
LIMIT_DECISION: Final = "limit decision"
LIMIT_STATUSES: Final = frozenset((402, 429))
"""The statuses of answers to requests that limits refuse."""
CLIENT_GONE: Final = "client_gone"
"""The error.type of a request whose client left. It is neither the edge's nor the upstream's error."""


class Tracer:
    """The tracing of one configuration in a worker."""

    def __init__(self, settings: "Tracing") -> None:
        self.settings = settings
        self._respects_parent = settings.parent == "respect"
        self._budget = ParentBudget(settings.parent_rate)
        self._bindings: LRUCache[RouteBinding, bytes] = LRUCache(PARTS_MAX)
        self._endpoints: LRUCache[Endpoint, bytes] = LRUCache(PARTS_MAX)

    # ---- the choice of recorded requests

    def begin(self, exchange: "TracedExchange", closing: bytes) -> bytes:
        """Decide about a request that goes to an upstream. Return the closing lines of its head.

        `closing`: the lines of a trace begun here. Their flags have the random decision, and their span is the first
        attempt's.
        """
        trace, span_id = exchange.trace, closing[SPAN_ID]
        is_sampled = closing[SAMPLED_AT] == SAMPLED
        if trace is None:
            trace_id, parent_id = closing[TRACE_ID], b""
        else:
            trace_id, parent_id, flags = trace
            is_sampled = self._follows(exchange, flags, drawn=is_sampled)
            closing = format_trace(trace_id, span_id, b"0%d" % ((flags[1] & 2) | is_sampled))
        if is_sampled:
            exchange.span = span = RequestSpan(trace_id, create_span_id(), parent_id)
            span.decided = now = monotonic()
            assert exchange.endpoint is not None
            span.attempts.append(Attempt(span_id, exchange.endpoint, now))
        return closing

    def _begin_own(self, exchange: "TracedExchange") -> RequestSpan | None:
        """Decide about a request that the edge answers itself."""
        drawn = random() < self.settings.sample
        trace = exchange.trace if exchange.path else None  # If the head was refused, its trace is ignored.
        if trace is None:
            return RequestSpan(os.urandom(16).hex().encode(), create_span_id(), b"") if drawn else None
        trace_id, parent_id, flags = trace
        is_sampled = self._follows(exchange, flags, drawn=drawn)
        return RequestSpan(trace_id, create_span_id(), parent_id) if is_sampled else None

    def _follows(self, exchange: "TracedExchange", flags: bytes, *, drawn: bool) -> bool:
        """Return whether a request with a trace is recorded."""
        if not self._respects_parent:
            return drawn
        if not flags[1] & 1:
            return False
        return exchange.client.trusted or self._budget.take(exchange.started) or drawn

    # ---- their spans

    def end(self, exchange: "TracedExchange", *, error: str | None = None, aborted: bool = False) -> None:
        """Hand over the spans of a request that is over, if it is recorded.

        `error`: why it failed. `aborted`: its client left.
        """
        span = exchange.span
        if span is None:
            if exchange.message:
                return  # It was forwarded, and not chosen.
            exchange.span = span = self._begin_own(exchange)
            if span is None:
                return
        now, batch = monotonic(), SpanBatch(span.trace_id)
        self._add_request(batch, exchange, span, now, error, aborted)
        self._add_decision(batch, exchange, span, now)
        for number in range(len(span.attempts)):
            self._add_attempt(batch, exchange, span, number, now)
        exchange.runtime.spans.add(batch.encode(), batch.count)

    def _add_request(
        self,
        batch: SpanBatch,
        exchange: "TracedExchange",
        span: RequestSpan,
        now: float,
        error: str | None,
        aborted: bool,
    ) -> None:
        """Add the span of the request as its client sees it."""
        status, route, binding = exchange.status, exchange.route, exchange.binding
        is_failed = not aborted and (status >= 500 or (error is not None and not 400 <= status < 500))
        error_type = None
        if aborted:
            error_type = CLIENT_GONE
        elif is_failed:
            cause = span.attempts[-1].error if span.attempts else None
            error_type = span_attributes.get_error_type(cause or error, status)
        attributes = span_attributes.list_request_attributes(exchange)
        attributes |= span_attributes.list_outcome_attributes(status, error_type)
        name = span_attributes.get_method(exchange)
        if route is not None:
            name += f" {route.path.decode('ascii', 'backslashreplace')}"
        call = span_attributes.find_call(exchange)
        if call is not None:
            name = call
            attributes |= span_attributes.list_call_attributes(call, span.grpc_status)
        message = batch.add(span.span_id, span.parent_id, name, SERVER, format_times(exchange, exchange.started, now))
        message.MergeFromString(encode_recurring(tuple(attributes.items())))
        own = span_attributes.list_own_attributes(exchange, with_address=self.settings.client_address)
        set_attributes(message.attributes, own)
        if binding is not None:
            message.MergeFromString(self._encode_binding(binding))
        if is_failed:
            set_failure(message, error or "")
        if span.parent_id:
            message.flags |= IS_REMOTE
            message.trace_state = span_attributes.find_trace_state(exchange)

    def _add_decision(self, batch: SpanBatch, exchange: "TracedExchange", span: RequestSpan, now: float) -> None:
        """Add the spans of the request's waits, and of the limit decision if there was one."""
        wait = exchange.wait
        periods = [] if wait is None else list(wait.periods)
        if exchange.state in WAITS:
            periods.append((exchange.state, exchange.waiting_since, now))
        for state, since, until in periods:
            times = format_times(exchange, since, until)
            batch.add(create_span_id(), span.span_id, WAITS[state], INTERNAL, times)
        if exchange.binding is None:
            return
        times = format_times(exchange, exchange.started, span.decided or now)
        message = batch.add(create_span_id(), span.span_id, LIMIT_DECISION, INTERNAL, times)
        is_refused = not span.attempts and exchange.status in LIMIT_STATUSES
        attributes = span_attributes.list_decision_attributes(exchange, is_refused=is_refused)
        message.MergeFromString(encode_recurring(tuple(attributes.items())))

    def _add_attempt(
        self, batch: SpanBatch, exchange: "TracedExchange", span: RequestSpan, number: int, now: float
    ) -> None:
        """Add the span of an attempt, sent or not; `number` is 0 for the first."""
        attempt = span.attempts[number]
        attributes = span_attributes.list_attempt_attributes(exchange, number)
        name, status, failure = span_attributes.get_method(exchange), 0, attempt.error
        if attempt is span.attempts[-1]:
            status = exchange.status if exchange.arrived else 0
            if status >= 400:
                failure = failure or str(status)
            if span.usage is not None:
                attributes |= span_attributes.list_model_attributes(exchange, span.usage)
                name = span_attributes.name_operation(attributes)
            call = span_attributes.find_call(exchange)
            if call is not None:
                name = call
                attributes |= span_attributes.list_call_attributes(call, span.grpc_status)
        attributes |= span_attributes.list_outcome_attributes(status, failure)
        times = format_times(exchange, attempt.started, attempt.ended or now)
        message = batch.add(attempt.span_id, span.span_id, name, CLIENT, times)
        message.MergeFromString(encode_recurring(tuple(attributes.items())))
        set_attributes(message.attributes, {"url.full": span_attributes.format_url(exchange, attempt.endpoint)})
        message.MergeFromString(self._encode_endpoint(attempt.endpoint))
        if failure is not None:
            set_failure(message, "")

    def _encode_binding(self, binding: "RouteBinding") -> bytes:
        encoded = self._bindings[binding]
        if encoded is None:
            attributes = span_attributes.list_customer_attributes(binding, self.settings)
            encoded = self._bindings.store(binding, encode_attributes(attributes))
        return encoded

    def _encode_endpoint(self, endpoint: "Endpoint") -> bytes:
        encoded = self._endpoints[endpoint]
        if encoded is None:
            attributes = span_attributes.list_endpoint_attributes(endpoint)
            encoded = self._endpoints.store(endpoint, encode_attributes(attributes))
        return encoded

    def clear_caches(self) -> None:
        """Drop the cached attributes of route bindings and endpoints, because a new configuration has others."""
        self._bindings.clear()
        self._endpoints.clear()


def format_times(exchange: "TracedExchange", start: float, end: float) -> tuple[int, int]:
    """Return a start and an end of the monotonic clock as Unix nanoseconds."""
    offset = exchange.runtime.offset + EPOCH
    return round((start + offset) * 1e9), round((end + offset) * 1e9)
