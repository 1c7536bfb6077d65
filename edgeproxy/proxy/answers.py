"""Answers that the edge makes itself: refusals, limits and upstream faults, as problem+json (RFC 9457).

Each is counted here, as what it is, before it is written; none is ever billed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeproxy.errors import EdgeError, Fault, Refused
from edgeproxy.http1 import message
from edgeproxy.limits.admission import denied
from edgeproxy.proxy.lane import NOBODY

if TYPE_CHECKING:
    from edgeproxy.limits.policies import Policy
    from edgeproxy.proxy.exchange import Exchange

PROBLEM = b"Content-Type: application/problem+json\r\n"


def of(exchange: "Exchange", reason: "EdgeError | Sequence[Policy]", *, close: bool) -> bytes:
    """The answer to a request that an upstream failed, a rule refused, or one of these policies."""
    if isinstance(reason, Fault):
        return _failed(exchange, reason, close)
    if isinstance(reason, Refused):
        return _problem(exchange, reason.status, reason.detail, reason.fields, close)
    assert not isinstance(reason, EdgeError)
    return _limited(exchange, reason, close)


def _failed(exchange: "Exchange", fault: Fault, close: bool) -> bytes:
    """502, 503 or 504, with the reason in Proxy-Status (RFC 9209)."""
    fields = b"Proxy-Status: edgeproxy; error=%b\r\n" % fault.error.encode()
    if fault.status == 503:
        fields += b"Retry-After: 1\r\n"
    return _problem(exchange, fault.status, fault.detail, fields, close)


def _limited(exchange: "Exchange", policies: "Sequence[Policy]", close: bool) -> bytes:
    """429: some of these policies have no room. Retry-After is never earlier than when a retry can succeed."""
    violated, retry_after = denied(policies, exchange.now)
    tier = NOBODY if exchange.lane is None else exchange.lane.tier
    for policy in violated:
        exchange.client.worker.counts.rate_limited(tier, policy.name)
    exchange.shown, exchange.left = violated[0], 0
    names = tuple([policy.name for policy in violated])
    detail = f"Over the limit {', '.join(names)}"
    return _problem(exchange, 429, detail, b"Retry-After: %d\r\n" % retry_after, close, names)


def _problem(
    exchange: "Exchange", status: int, detail: str, fields: bytes, close: bool, violated: tuple[str, ...] = ()
) -> bytes:
    route = NOBODY if exchange.route is None else exchange.route.label
    tier = NOBODY if exchange.lane is None else exchange.lane.tier
    exchange.client.worker.counts.requests(route, tier, status).add(1)
    request_id = exchange.request_id()
    body = message.problem(status, detail, request_id, violated)
    fields = b"%b%b%bX-Request-Id: %b\r\n" % (PROBLEM, fields, exchange.rate_fields(), request_id)
    return message.answer(status, fields, body, close=close, head_only=exchange.method == b"HEAD")
