"""The edge's own answers, as bytes."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import orjson

from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.edge.problem_codes import BY_LIMIT, CODES, CREDITS_SPENT, GENERAL

REASONS: Final[dict[int, str]] = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    301: "Moved Permanently",
    302: "Found",
    303: "See Other",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    410: "Gone",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    414: "URI Too Long",
    417: "Expectation Failed",
    421: "Misdirected Request",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}
"""Reason phrases of the statuses that the edge gives (RFC 9110 section 15, RFC 6585)."""

SWITCHING: Final = b"Connection: upgrade\r\n"
"""The lines of a 101 that does not say to what protocol."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""The interim answer that asks for the body (RFC 9110 section 15.2.1)."""

QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
QUOTA_EXCEEDED_TITLE: Final = "Request cannot be satisfied as assigned quota has been exceeded"
"""The problem type of draft-ietf-httpapi-ratelimit-headers-10 section 5.1."""

LimitMembers = tuple[tuple[str, object], ...]
"""The members of a problem's `limit`: the limit that refused, each with its name."""

QUOTE, BACKSLASH = b'"\\'
"""The bytes that would have to be escaped in a JSON string; as integers, the fastest to search for in bytes."""


def format_response(
    status: int, fields: bytes = b"", body: bytes = b"", *, close: bool = False, head_only: bool = False
) -> bytes:
    """Format a whole response: status line, `fields` (lines with their CRLF), Content-Length and `body`.

    `close` adds Connection: close. `head_only` leaves the body out and its length in, for HEAD (RFC 9110 section
    9.3.2). A 204 has neither body nor Content-Length (section 8.6).
    """
    reason = REASONS.get(status, "").encode("ascii")
    length = b"" if status == 204 else b"Content-Length: %d\r\n" % len(body)
    ending = b"Connection: close\r\n" if close else b""
    content = b"" if head_only or status == 204 else body
    return b"HTTP/1.1 %d %b\r\n%b%b%b\r\n%b" % (status, reason, fields, length, ending, content)


def format_problem(status: int, detail: str, instance: bytes, code: ProblemCode | None = None) -> bytes:
    """Format the body of an error, `application/problem+json` (RFC 9457).

    `instance` is the request id: 1 to 128 visible ASCII characters. `code`: None for the code of the status.
    """
    return _append_instance(_format_problem_opening(status, detail, None if code is None else code.name), instance)


def _append_instance(opening: bytes, instance: bytes) -> bytes:
    if QUOTE in instance or BACKSLASH in instance:
        # Without its quotes, which the format has.
        instance = orjson.dumps(instance.decode("ascii"))[1:-1]
    return b'%b,"instance":"%b"}' % (opening, instance)


def format_limited(
    fields: bytes,
    violated: tuple[str, ...],
    instance: bytes,
    *,
    detail: str | None = None,
    limit: LimitMembers = (),
    close: bool = False,
    head_only: bool = False,
) -> bytes:
    """Format a whole 429, with draft-ietf-httpapi-ratelimit-headers-10's problem type and the names of the policies.

    For `fields` and `instance` see `format_response` and `format_problem`; X-Request-Id is added. `detail`: a text that
    replaces the list of passed limits. `limit`: the members of `limit`, which is left out without any.
    """
    # The prepared parts are for a whole answer, with an id that JSON need not escape.
    if head_only or QUOTE in instance or BACKSLASH in instance:
        body = _append_instance(_format_quota_opening(violated, detail, limit), instance)
        fields = b"%b%bX-Request-Id: %b\r\n" % (PROBLEM, fields, instance)
        return format_response(429, fields, body, close=close, head_only=head_only)
    before, between = split_limited(fields, violated, len(instance), detail=detail, limit=limit, close=close)
    return b"".join((before, instance, between, instance, LIMITED_END))


def split_limited(
    fields: bytes,
    violated: tuple[str, ...],
    instance: int,
    *,
    detail: str | None,
    limit: LimitMembers = (),
    close: bool,
) -> tuple[bytes, bytes]:
    """Format a 429 for ids of `instance` bytes that JSON need not escape: the bytes before the first id, and the bytes
    between the two ids. LIMITED_END follows the second. For other arguments see `format_limited`.
    """
    return LIMITED + fields + b"X-Request-Id: ", _format_limited_middle(violated, detail, limit, instance, close)


def split_error(status: int, fields: bytes, opening: bytes, instance: int, *, close: bool) -> tuple[bytes, bytes]:
    """Format an error like `split_limited`; its body begins with `opening` and ends with an id and LIMITED_END."""
    ending = b"Connection: close\r\n" if close else b""
    before = b"HTTP/1.1 %d %b\r\n%bX-Request-Id: " % (status, REASONS[status].encode(), fields)
    length = len(opening) + instance + len(LIMITED_END)
    return before, b"\r\nContent-Length: %d\r\n%b\r\n%b" % (length, ending, opening)


def format_credits_spent(
    fields: bytes,
    violated: tuple[str, ...],
    instance: bytes,
    *,
    detail: str | None = None,
    limit: LimitMembers = (),
    close: bool = False,
    head_only: bool = False,
) -> bytes:
    """Format a whole 402: the credits paid in advance are spent. For arguments see `format_limited`."""
    body = _append_instance(_format_spent_opening(violated, detail, limit), instance)
    fields = b"%b%bX-Request-Id: %b\r\n" % (PROBLEM, fields, instance)
    return format_response(402, fields, body, close=close, head_only=head_only)


PROBLEM: Final = b"Content-Type: application/problem+json\r\n"
LIMITED: Final = b"HTTP/1.1 429 Too Many Requests\r\n" + PROBLEM
LIMITED_END: Final = b'"}'


@lru_cache(maxsize=1024)
def _format_limited_middle(
    violated: tuple[str, ...], detail: str | None, limit: LimitMembers, instance: int, close: bool
) -> bytes:
    """Format the bytes between the two places of the request id, which has `instance` bytes."""
    opening = _format_quota_opening(violated, detail, limit) + b',"instance":"'
    ending = b"Connection: close\r\n" if close else b""
    return b"\r\nContent-Length: %d\r\n%b\r\n%b" % (len(opening) + instance + len(LIMITED_END), ending, opening)


@lru_cache(maxsize=1024)
def _format_spent_opening(violated: tuple[str, ...], detail: str | None, limit: LimitMembers) -> bytes:
    members = {
        "type": CREDITS_SPENT.type,
        "code": CREDITS_SPENT.name,
        "title": "Prepaid credits are spent",
        "status": 402,
        "detail": detail or "Prepaid credits are spent",
        "violated-policies": violated,
    }
    return _dump_opening(members, limit)


def _dump_opening(members: dict[str, object], limit: LimitMembers) -> bytes:
    return orjson.dumps({**members, "limit": dict(limit)} if limit else members)[:-1]


# A problem without its instance repeats again and again while a limit refuses or an upstream is down.


@lru_cache(maxsize=1024)
def _format_problem_opening(status: int, detail: str, name: str | None) -> bytes:
    code = GENERAL[status] if name is None else CODES[name]
    members = {
        "type": code.type,
        "code": code.name,
        "title": REASONS[status],
        "status": status,
        "detail": detail,
    }
    return orjson.dumps(members)[:-1]


@lru_cache(maxsize=1024)
def _format_quota_opening(violated: tuple[str, ...], detail: str | None, limit: LimitMembers) -> bytes:
    members = {
        "type": QUOTA_EXCEEDED,
        "code": BY_LIMIT[str(dict(limit).get("kind", "rate"))].name,
        "title": QUOTA_EXCEEDED_TITLE,
        "status": 429,
        "detail": detail or f"Over the limit {', '.join(violated)}",
        "violated-policies": violated,
    }
    return _dump_opening(members, limit)


def format_upgrade(protocols: Sequence[bytes]) -> bytes:
    """Format the lines that ask to switch to one of these protocols, or name the chosen one; each with its CRLF (RFC
    9110 section 7.8).
    """
    return b"%bUpgrade: %b\r\n" % (SWITCHING, b", ".join(protocols)) if protocols else b""
