"""The bytes of the edge's own answers: refusals, limits and upstream faults, as problem+json (RFC 9457)."""

from typing import NamedTuple

from edgeproxy.edge.errors import DirectResponseError, EdgeError, RejectedError, UpstreamError
from edgeproxy.edge.http1 import message
from edgeproxy.edge.http1.error_bodies import ErrorBodies
from edgeproxy.edge.limits.limit_set import ImpossibleCost


class LocalReply(NamedTuple):
    """An answer, with the size of its body and its reason for the access log."""

    status: int
    data: bytes
    body_size: int
    why: str


def format_local_reply(
    reason: EdgeError,
    *,
    request_id: bytes,
    date: bytes,
    limits: bytes,
    own_fields: bytes,
    close: bool,
    head_only: bool,
    error_bodies: ErrorBodies | None = None,
) -> LocalReply:
    """Format the answer to a request that an upstream failed or a rule refused.

    `date`, `limits` (RateLimit and other fields of limits) and `own_fields` (region, security and CORS fields) are
    lines with their CRLF, or empty. `error_bodies`: None if errors are problem details.
    """
    if isinstance(reason, UpstreamError):
        # 502, 503 or 504, with the reason in Proxy-Status (RFC 9209).
        status, why = reason.status, reason.error
        fields = b"Proxy-Status: edgeproxy; error=%b\r\n" % why.encode()
        if status == 503:
            fields += b"Retry-After: 1\r\n"
    else:
        assert isinstance(reason, RejectedError)
        status, why, fields = reason.status, reason.detail, reason.fields
    kind = b""
    if isinstance(reason, DirectResponseError):
        body = reason.content
    elif error_bodies is not None:
        kind, body = error_bodies.line, error_bodies.format_body(status, reason.detail, request_id)
    else:
        kind, body = message.PROBLEM, message.format_problem(status, reason.detail, request_id, reason.code)
    lines = b"%b%b%b%bX-Request-Id: %b\r\n%b" % (kind, date, fields, limits, request_id, own_fields)
    data = message.format_response(status, lines, body, close=close, head_only=head_only)
    return LocalReply(status, data, 0 if head_only else len(body), why)


def compute_body_size(answer: bytes) -> int:
    """Return how many bytes of a whole answer are its body."""
    return len(answer) - answer.index(b"\r\n\r\n") - 4


def describe_impossible_cost(limit: ImpossibleCost) -> str:
    """Return the first sentence of a 429 for a request that no retry can help."""
    return f"Such a request counts for {limit.cost}, and {limit.name} never lets more than {limit.most} pass"
