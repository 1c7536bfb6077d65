"""The edge's own answers to requests: errors, redirects, fixed answers, and what limits refuse.

Each is counted and logged here, as what it is, before it is written; none is ever billed.
"""

from typing import TYPE_CHECKING

from edgeproxy.edge.errors import EdgeError, RejectedCustomerError, RejectedError
from edgeproxy.edge.http1 import message, security_fields
from edgeproxy.edge.http1.field_values import find_value
from edgeproxy.edge.limits.admission import AdmissionNotes
from edgeproxy.edge.limits.denial import compute_denial, compute_gate_denial, find_impossible_costs, is_certain
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.quota import Balance
from edgeproxy.edge.proxy import local_reply
from edgeproxy.edge.proxy.cors import ORIGIN
from edgeproxy.edge.proxy.exchange_record import ExchangeRecord

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.cors import CrossOrigin


def format_error(exchange: ExchangeRecord, error: EdgeError, *, close: bool) -> bytes:
    """Format the answer to a request that an upstream failed or a rule refused, or that the edge answers itself."""
    reply = local_reply.format_local_reply(
        error,
        request_id=exchange.get_request_id(),
        date=exchange.runtime.date_line,
        limits=exchange.format_rate_fields() + exchange.notes,
        own_fields=_format_own_fields(exchange),
        close=close,
        # The method is unknown where the fields were refused; the answer to HEAD has no body then either.
        head_only=exchange.method == b"HEAD" or (not exchange.method and exchange.request_line.startswith(b"HEAD ")),
    )
    route, tier = exchange.get_labels()
    customer = None
    if isinstance(error, RejectedCustomerError):
        tier, customer = error.tier, (error.customer, error.tier)
    exchange.runtime.metrics.get_request_counter(route, tier, reply.status).add(1)
    exchange.status, exchange.bytes_out = reply.status, reply.body_size
    exchange.log_end(reply.why if reply.status >= 400 else None, customer=customer)
    return reply.data


def format_refusal(exchange: ExchangeRecord, limit_set: LimitSet, *, close: bool) -> bytes:
    """Format the answer to a request for which a limit has no room: 429, or 402 where prepaid credits are spent.

    Retry-After is never earlier than when a retry can succeed.
    """
    exhausted, runtime, binding = exchange.exhausted_policies, exchange.runtime, exchange.binding
    violated, retry_after = (
        compute_gate_denial(limit_set, exhausted) if exhausted else compute_denial(limit_set, exchange.now)
    )
    names = (violated[0].name,) if len(violated) == 1 else tuple([policy.name for policy in violated])
    route, tier = exchange.get_labels()
    status, why = 429, None
    for quota in limit_set.quotas:
        if quota in violated:
            status, why = (402 if isinstance(quota, Balance) else status), why or quota.why
    for counter in runtime.metrics.get_refusal_counters(route, tier, names, status):
        counter.add(1)
    if binding is not None and binding.refusals is not None:
        certain = is_certain(limit_set, exchange.now, violated, exhausted)
        binding.refusals.record_refusal(names[0], certain=certain)
    fields = exchange.format_rate_fields()
    if exchange.snapshot.has_own_fields:
        fields += _format_own_fields(exchange)
    detail = None if binding is None else binding.message
    if status == 402:
        fields = runtime.date_line + fields
    elif retry_after:
        fields = b"%bRetry-After: %d\r\n%b" % (runtime.date_line, retry_after, fields)
        detail = detail if why is None else f"{why}. {detail}" if detail else why
    else:
        fields = runtime.date_line + fields
        detail = local_reply.describe_impossible_cost(find_impossible_costs(limit_set)[0], detail)
    format_answer = message.format_credits_spent if status == 402 else message.format_limited
    head_only = exchange.method == b"HEAD"
    answer = format_answer(fields, names, exchange.get_request_id(), detail=detail, close=close, head_only=head_only)
    if exchange.snapshot.access_log is not None:
        exchange.status, exchange.bytes_out = status, local_reply.compute_body_size(answer)
        exchange.log_end(f"Over the limit {', '.join(names)}")
    return answer


def record_notes(exchange: ExchangeRecord, noted: AdmissionNotes) -> bytes:
    """Count what admission noted; return its fields: limits that would have refused, soft quotas that are passed."""
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
    """Format the fields that a configuration adds to the edge's own answers: the region, security fields, and which
    pages may see the answer."""
    snapshot = exchange.snapshot
    if not snapshot.has_own_fields:
        return b""
    fields = snapshot.region_lines
    if snapshot.security_headers:
        fields += security_fields.OWN_LINES[exchange.is_secure()]
    cors = _find_cross_origin(exchange)
    return fields if cors is None else fields + cors.format_fields(find_value(exchange.keep, ORIGIN))


def _find_cross_origin(exchange: ExchangeRecord) -> "CrossOrigin | None":
    """Return which pages may see the answer; None where nothing is said of that."""
    if not exchange.path:
        return None  # The head was refused: nobody knows whose page it is.
    if exchange.route is not None:
        return exchange.route.cors
    try:
        # It was refused before anybody looked.
        return exchange.site.match(exchange.path, exchange.method).cors
    except RejectedError:
        return exchange.snapshot.cors
