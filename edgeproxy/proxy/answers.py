"""Answers that the edge makes itself: refusals, limits and upstream faults, as problem+json (RFC 9457).

Each is counted and logged here, as what it is, before it is written; none is ever billed.
"""

from typing import TYPE_CHECKING

from edgeproxy.errors import EdgeError, Fault, Refused
from edgeproxy.http1 import message, security
from edgeproxy.limits.admission import denied, denied_at_gates
from edgeproxy.proxy.route_binding import NO_LABEL

if TYPE_CHECKING:
    from edgeproxy.limits.admission import LimitSet
    from edgeproxy.proxy.exchange import Exchange


def of(exchange: "Exchange", reason: "EdgeError | LimitSet", *, close: bool) -> bytes:
    """The answer to a request that an upstream failed, a rule refused, or one of the limits in these terms."""
    if isinstance(reason, Fault):
        return _failed(exchange, reason, close)
    if isinstance(reason, Refused):
        if reason.status == 204:
            return _answer(exchange, 204, reason.fields, b"", close, reason.detail)
        body = message.problem(reason.status, reason.detail, exchange.request_id())
        return _answer(exchange, reason.status, reason.fields, body, close, reason.detail)
    assert not isinstance(reason, EdgeError)
    return _limited(exchange, reason, close)


def _failed(exchange: "Exchange", fault: Fault, close: bool) -> bytes:
    """502, 503 or 504, with the reason in Proxy-Status (RFC 9209)."""
    fields = b"Proxy-Status: edgeproxy; error=%b\r\n" % fault.error.encode()
    if fault.status == 503:
        fields += b"Retry-After: 1\r\n"
    body = message.problem(fault.status, fault.detail, exchange.request_id())
    return _answer(exchange, fault.status, fields, body, close, fault.error)


def _limited(exchange: "Exchange", terms: "LimitSet", close: bool) -> bytes:
    """429: something in these terms has no room. Retry-After is never earlier than when a retry can succeed."""
    held = exchange.held
    violated, retry_after = denied_at_gates(terms, held) if held else denied(terms, exchange.now)
    worker = exchange.client.worker
    names = tuple([policy.name for policy in violated])
    for counter in worker.counts.limited(_route(exchange), _tier(exchange), names):
        counter.add(1)
    fields = b"%bRetry-After: %d\r\n%b" % (worker.date, retry_after, exchange.rate_fields())
    if exchange.snapshot.security_headers:
        fields += security.OWN[exchange.is_secure()]
    head_only = exchange.method == b"HEAD"
    detail, instance = message_of(exchange), exchange.request_id()
    answer = message.limited(fields, names, instance, detail=detail, close=close, head_only=head_only)
    if exchange.snapshot.access is not None:
        exchange.status, exchange.bytes_out = 429, len(answer) - answer.index(b"\r\n\r\n") - 4
        exchange.over(f"Over the limit {', '.join(names)}")
    return answer


def message_of(exchange: "Exchange") -> str | None:
    """What the operator has to say to those who are refused."""
    return None if exchange.binding is None else exchange.binding.message


def _answer(exchange: "Exchange", status: int, fields: bytes, body: bytes, close: bool, why: str) -> bytes:
    worker = exchange.client.worker
    worker.counts.requests(_route(exchange), _tier(exchange), status).add(1)
    kind = message.PROBLEM if body else b""
    parts = (kind, worker.date, fields, exchange.rate_fields(), exchange.notes, exchange.rid)
    fields = b"%b%b%b%b%bX-Request-Id: %b\r\n" % parts
    if exchange.snapshot.security_headers:
        fields += security.OWN[exchange.is_secure()]
    # The method is unknown where the fields were refused; the answer to HEAD has no body then either.
    head_only = exchange.method == b"HEAD" or (not exchange.method and exchange.first.startswith(b"HEAD "))
    exchange.status, exchange.bytes_out = status, 0 if head_only else len(body)
    exchange.over(why)
    return message.answer(status, fields, body, close=close, head_only=head_only)


def _route(exchange: "Exchange") -> str:
    return NO_LABEL if exchange.route is None else exchange.route.label


def _tier(exchange: "Exchange") -> str:
    return NO_LABEL if exchange.binding is None else exchange.binding.tier
