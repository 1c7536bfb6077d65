"""The edge's own answers to requests: errors, redirects, fixed answers, and refusals by limits.

Each is counted and logged here by its kind before it is written; none is ever billed.
"""

from typing import TYPE_CHECKING

from edgeproxy.edge.errors import EdgeError, RejectedCustomerError
from edgeproxy.edge.http1 import message
from edgeproxy.edge.http1.error_bodies import ErrorBodies
from edgeproxy.edge.http1.field_values import find_value
from edgeproxy.edge.http1.request import PLAIN
from edgeproxy.edge.limits.admission import AdmissionNotes
from edgeproxy.edge.limits.denial import (
    Denial,
    compute_denial,
    compute_gate_denial,
    find_impossible_costs,
    is_certain,
)
from edgeproxy.edge.limits.limit_set import Bound, LimitSet
from edgeproxy.edge.limits.quota import Balance
from edgeproxy.edge.limits.refusal import add_message, describe_refusal, find_stated_bound, list_members
from edgeproxy.edge.proxy.exchange import local_reply
from edgeproxy.edge.proxy.exchange.record import ExchangeRecord
from edgeproxy.edge.proxy.exchange.refused_head import read_refused_head
from edgeproxy.edge.proxy.observation.request_ids import ID_BYTES
from edgeproxy.edge.proxy.routing.cors import ORIGIN
from edgeproxy.edge.proxy.transport.grpc_status import is_grpc

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.metering.meters import Countable
    from edgeproxy.edge.proxy.routing.binding import Route
    from edgeproxy.edge.proxy.routing.cors import CrossOrigin


def format_error(exchange: ExchangeRecord, error: EdgeError, *, close: bool) -> bytes:
    """Format the answer to a request that an upstream failed or a rule refused, or that the edge answers itself."""
    reply = local_reply.format_local_reply(
        error,
        request_id=exchange.get_request_id(),
        date=exchange.runtime.date_line,
        limits=exchange.format_rate_fields() + exchange.notes,
        own_fields=_format_own_fields(exchange),
        close=close,
        # If the fields were refused, the method is unknown; the answer to HEAD has no body then either.
        head_only=exchange.method == b"HEAD" or (not exchange.method and exchange.request_line.startswith(b"HEAD ")),
        error_bodies=_find_error_bodies(exchange),
    )
    route, tier = exchange.get_labels()
    customer = None
    metrics, binding = exchange.runtime.metrics, exchange.binding
    counted_as = None if binding is None else binding.counted_as
    # It has no binding, but its sender is known.
    if isinstance(error, RejectedCustomerError):
        tier, customer, counted_as = error.tier, (error.customer, error.tier), error.counted_as
    metrics.get_request_counter(route, tier, reply.status).add(1)
    if counted_as is not None:
        metrics.errors.count_own(counted_as, route, reply.status)
    exchange.status, exchange.bytes_out = reply.status, reply.body_size
    exchange.log_end(reply.why if reply.status >= 400 else None, customer=customer)
    return reply.data


def format_refusal(exchange: ExchangeRecord, limit_set: LimitSet, close: bool) -> bytes:
    """Format the answer to a request that a limit refuses: 429, or 402 if prepaid credits are spent.

    A retry before the time in Retry-After cannot succeed.
    """
    exhausted, snapshot, binding = exchange.exhausted_policies, exchange.snapshot, exchange.binding
    shown, rate = exchange.shown_policy, limit_set.rate
    if exhausted:
        denial = compute_gate_denial(limit_set, exhausted)
    else:
        known = exchange.shown_left if rate is not None and shown is rate else None
        denial = compute_denial(limit_set, exchange.now, known)
    violated, retry_after = denial
    own_fields = _format_own_fields(exchange)
    is_ordinary = retry_after and not limit_set.traits.quotas and exchange.head is PLAIN and exchange.method != b"HEAD"
    error_bodies = _find_error_bodies(exchange) if snapshot.has_error_bodies else None
    # A form whose body does not end with the id cannot be prepared.
    if error_bodies is not None and error_bodies.format_opening(429, "") is None:
        is_ordinary = False
    bound = find_stated_bound(denial, exchange.now) if len(violated) > 1 else violated[0]
    if binding is None or not is_ordinary:
        names, counters, answer = _format_refusal(exchange, limit_set, denial, bound, own_fields, error_bodies, close)
    else:
        # A client that ignores it gets an equal answer a thousand times a second, with a new request id each time.
        left, tail = (exchange.shown_left, shown.tail(exchange.now)) if shown is bound else (0, b"")
        key = (exchange.runtime.date_line, violated, retry_after, bound, left, tail, own_fields, close)
        latest = binding.latest_refusal
        if latest is None or latest[0] != key:
            binding.latest_refusal = latest = (
                key,
                *_prepare_refusal(exchange, denial, bound, own_fields, error_bodies, close),
            )
        _, names, counters, before, between = latest
        rid = exchange.get_request_id()
        answer = b"".join((before, rid, between, rid, message.LIMITED_END))
    for counter in counters:
        counter.add(1)
    rare = None if binding is None else binding.rare
    if rare is not None and rare.refusals is not None:
        # Meters of refusals state it, so that a refusal without all counts can be told apart.
        certain = is_certain(limit_set, exchange.now, violated, exhausted)
        rare.refusals.record_refusal(names[0], certain=certain)
    if snapshot.records_ends:
        # After `HTTP/1.1 `.
        exchange.status, exchange.bytes_out = int(answer[9:12]), local_reply.compute_body_size(answer)
        exchange.log_end(f"Over the limit {', '.join(names)}")
    return answer


def _prepare_refusal(
    exchange: ExchangeRecord,
    denial: Denial,
    bound: Bound,
    own_fields: bytes,
    error_bodies: ErrorBodies | None,
    close: bool,
) -> "tuple[tuple[str, ...], tuple[Countable, ...], bytes, bytes]":
    """Prepare the 429 of a customer on a route: the names of the limits that refuse, the counters of such an answer,
    and the answer without its ids (see `message.split_limited`).
    """
    binding, runtime = exchange.binding, exchange.runtime
    assert binding is not None
    violated, retry_after = denial
    names = tuple([policy.name for policy in violated])
    refusal = describe_refusal(bound, exchange.now, retry_after, legacy=exchange.snapshot.legacy_headers)
    fields = b"%bRetry-After: %d\r\n%b%b" % (runtime.date_line, retry_after, refusal.lines, own_fields)
    detail = add_message(refusal.sentence, binding.message, refusal.limit.kind)
    if error_bodies is None:
        limit = list_members(refusal.limit)
        before, between = message.split_limited(fields, names, ID_BYTES, detail=detail, limit=limit, close=close)
    else:
        opening = error_bodies.format_opening(429, detail) or b""
        before, between = message.split_error(429, error_bodies.line + fields, opening, ID_BYTES, close=close)
    return names, runtime.metrics.get_refusal_counters(*exchange.get_labels(), names), before, between


def _format_refusal(
    exchange: ExchangeRecord,
    limit_set: LimitSet,
    denial: Denial,
    bound: Bound,
    own_fields: bytes,
    error_bodies: ErrorBodies | None,
    close: bool,
) -> "tuple[tuple[str, ...], tuple[Countable, ...], bytes]":
    """Format any refusal.

    Return the names of the limits that refuse, the counters of such an answer, and the answer.
    """
    binding, runtime = exchange.binding, exchange.runtime
    violated, retry_after = denial
    names = tuple([policy.name for policy in violated])
    status = 402 if isinstance(bound, Balance) else 429
    impossible = None
    if status == 429 and not retry_after:
        impossible = find_impossible_costs(limit_set)[0]
        # The sentence is about this limit, so the fields are, too.
        bound = next((each for each in violated if each.name == impossible.name), bound)
    refusal = describe_refusal(bound, exchange.now, retry_after, legacy=exchange.snapshot.legacy_headers)
    if status == 402 and binding is not None:
        runtime.metrics.errors.count_own(binding.counted_as, binding.route.label, status)
    fields = runtime.date_line
    if status == 429 and retry_after:
        fields += b"Retry-After: %d\r\n" % retry_after
    sentence = refusal.sentence if impossible is None else local_reply.describe_impossible_cost(impossible)
    detail = add_message(sentence, None if binding is None else binding.message, refusal.limit.kind)
    fields, request_id = fields + refusal.lines + own_fields, exchange.get_request_id()
    head_only = exchange.method == b"HEAD"
    if error_bodies is not None:
        lines = b"%b%bX-Request-Id: %b\r\n" % (error_bodies.line, fields, request_id)
        body = error_bodies.format_body(status, detail, request_id)
        answer = message.format_response(status, lines, body, close=close, head_only=head_only)
    else:
        format_answer = message.format_credits_spent if status == 402 else message.format_limited
        limit = list_members(refusal.limit)
        answer = format_answer(fields, names, request_id, detail=detail, limit=limit, close=close, head_only=head_only)
    return names, runtime.metrics.get_refusal_counters(*exchange.get_labels(), names, status), answer


def record_notes(exchange: ExchangeRecord, noted: AdmissionNotes) -> bytes:
    """Count the notes of an admission.

    Return its fields: shadow limits that would have refused, exceeded soft quotas.
    """
    metrics, (_, tier) = exchange.runtime.metrics, exchange.get_labels()
    for shadow in noted.shadows:
        metrics.count_shadow_refusal(tier, shadow.name)
    if noted.paid:
        metrics.count_credit_spent(tier)
    lines = b""
    if noted.shadows:
        lines = b"X-Edge-Shadow: %b\r\n" % b", ".join([b'"%b"' % each.name.encode() for each in noted.shadows])
    if noted.over:
        lines += b"X-Quota: %b\r\n" % b", ".join([b'"%b";over' % each.name.encode() for each in noted.over])
    return lines


def _format_own_fields(exchange: ExchangeRecord) -> bytes:
    """Format the fields that a configuration adds to the edge's own answers: region, security and CORS fields."""
    snapshot = exchange.snapshot
    fields = snapshot.own_lines[exchange.is_secure()]
    if not snapshot.has_cors:
        return fields
    cors, origin = _find_cross_origin(exchange)
    return fields if cors is None else fields + cors.format_fields(origin)


def _find_error_bodies(exchange: ExchangeRecord) -> ErrorBodies | None:
    """Return the form of the body of an error; None if it is problem details, which gRPC statuses are derived from."""
    snapshot = exchange.snapshot
    if not snapshot.has_error_bodies:
        return None
    if exchange.binding is not None:
        error_bodies, lines = exchange.binding.route.error_bodies, exchange.keep
    else:
        route, lines = _find_route(exchange)
        # An error's form must not reveal a route that is hidden by a flag.
        error_bodies = snapshot.error_bodies if route is None or route.is_flagged else route.error_bodies
    return None if error_bodies is None or is_grpc(lines) else error_bodies


def _find_cross_origin(exchange: ExchangeRecord) -> "tuple[CrossOrigin | None, bytes | None]":
    """Return the pages that may see the answer, and the page that asks; None for each that is unknown."""
    route, lines = _find_route(exchange)
    cors = exchange.snapshot.cors if route is None else route.cors
    return cors, find_value(lines, ORIGIN)


def _find_route(exchange: ExchangeRecord) -> "tuple[Route | None, bytes]":
    """Return the route that decides the form of an answer, as far as the request states it, and the request's lines.

    None if the configuration's own settings apply.
    """
    if exchange.path:
        route = exchange.route or exchange.site.find_nearest(exchange.path, exchange.method, exchange)
        return route, exchange.keep
    head = read_refused_head(exchange.request_line)
    return exchange.snapshot.router.find_site(head.host).find_nearest(head.path, head.method, head), head.keep
