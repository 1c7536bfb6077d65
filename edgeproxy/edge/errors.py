"""Errors of a request, with the three facts that decide what to do: kind, side at fault, retry or not.

`RejectedError` is a refusal by the edge: nothing was forwarded. `UpstreamError` is an upstream's failure: a part may
have been forwarded. Their tracebacks are never read, so both are plain values that are raised.
"""

from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.edge.problem_codes import BY_KEY_FAULT, UPSTREAM_UNAVAILABLE, KeyFault


class EdgeError(Exception):
    """An error that the edge itself answers."""

    status: int
    detail: str
    code: ProblemCode | None = None
    """The code of the problem; None if it is the one of the status."""


class RejectedError(EdgeError):
    """The client's request is not forwarded.

    `status` is the HTTP status of the answer, `detail` one sentence for the person who reads it. `close` says that the
    connection ends with the answer; it must end if the beginning of the next request is unclear. `fields` are further
    lines of the answer's head, each with its CRLF (`Allow`, `WWW-Authenticate`).
    """

    def __init__(
        self, status: int, detail: str, *, close: bool = True, fields: bytes = b"", code: ProblemCode | None = None
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.close = close
        self.fields = fields
        self.code = code


class RejectedCustomerError(RejectedError):
    """A request that is not served though its customer is known, by name and tier.

    `counted_as` is the name, with the residency unless that is the edge's own.
    """

    def __init__(
        self, status: int, detail: str, code: ProblemCode | None, *, customer: str, tier: str, counted_as: str
    ) -> None:
        super().__init__(status, detail, close=False, code=code)
        self.customer, self.tier, self.counted_as = customer, tier, counted_as


class UnidentifiedError(RejectedError):
    """A request without a known key, on a route that needs one. `reason` is the label of the metric."""

    def __init__(self, reason: KeyFault, detail: str, *, fields: bytes) -> None:
        super().__init__(401, detail, close=False, fields=fields, code=BY_KEY_FAULT[reason])
        self.reason = reason


class DirectResponseError(RejectedError):
    """The configuration has the answer, and no upstream is asked. `content` is its body, `fields` include its type."""

    def __init__(self, status: int, detail: str, *, fields: bytes = b"", content: bytes = b"") -> None:
        super().__init__(status, detail, close=False, fields=fields)
        self.content = content


class UpstreamError(EdgeError):
    """An upstream failed the request.

    `error` is a proxy error type of RFC 9209 section 2.3 (`connection_refused`, `http_protocol_error`, …), shown
    in Proxy-Status and counted in `edge_upstream_errors_total`. `status` is 502, 503 or 504. `is_local`:
    the upstream is not to blame.
    """

    def __init__(self, error: str, detail: str, *, status: int = 502, is_local: bool = False) -> None:
        super().__init__(error, detail)
        self.status = status
        self.error = error
        self.detail = detail
        if status == 503:
            self.code = UPSTREAM_UNAVAILABLE
        self.is_local = is_local
