"""The edge's own answers to gRPC clients, and the timeouts of their calls (gRPC over HTTP/2).

A gRPC client reads the status of a call from `grpc-status`. From an answer without that field it learns little more
than that the call has failed. So the edge's own answers to calls are 200 with that field, in one block
("Trailers-Only").
"""

import re
from typing import Final
from urllib.parse import quote

import orjson

from edgeproxy.edge.http1.field_values import find_value
from edgeproxy.edge.http1.grammar import parse_field_name

CONTENT_TYPE: Final = b"application/grpc"

GRPC_ANSWER: Final = re.compile(rb"(?i)\r\ncontent-type:[ \t]*application/grpc[ \t]*[+;\r]")
"""The line that marks the head of a gRPC answer, with any encoding of messages. gRPC-Web has another form."""

UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, PERMISSION_DENIED = 2, 3, 4, 7
RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE, UNAUTHENTICATED = 8, 12, 14, 16

NAMES: Final = dict(
    enumerate(
        (
            *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
            *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE"),
            *("UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
        )
    )
)
"""The names of statuses."""

CODES: Final = {
    400: INVALID_ARGUMENT,
    401: UNAUTHENTICATED,
    402: RESOURCE_EXHAUSTED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    405: UNIMPLEMENTED,
    408: DEADLINE_EXCEEDED,
    413: RESOURCE_EXHAUSTED,
    429: RESOURCE_EXHAUSTED,
    431: RESOURCE_EXHAUSTED,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
"""The status of a call by the status of the edge's answer."""

UNESCAPED: Final = " !#$&'()*+,/:;=?@[]<>^`{|}\"\\"
"""The characters that need no escape in `grpc-message`, beside letters, digits and `-._~`: ASCII without the percent
sign.
"""

OF_BODIES: Final = frozenset((b"content-type", b"content-length", b"connection"))

UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")


def is_grpc(lines: bytes) -> bool:
    """Return whether a request with these field lines is a call."""
    kind = find_value(lines, b"content-type")
    return kind is not None and kind.startswith(CONTENT_TYPE)


def is_grpc_answer(head: bytes) -> bool:
    """Return whether this head of an answer is gRPC: its status line, and lines with their CRLF."""
    return GRPC_ANSWER.search(head) is not None


def parse_timeout(lines: bytes) -> float | None:
    """Return how many seconds a caller waits; None if it states no valid timeout."""
    value = find_value(lines, b"grpc-timeout")
    match = None if value is None else TIMEOUT.fullmatch(value)
    return None if match is None else int(match[1]) * UNITS[match[2]]


def format_refusal(answer: bytes) -> bytes:
    """Convert an answer of the edge's own from HTTP/1.1 to gRPC: a head alone, with the detail as the message."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status_line, *lines = head.split(b"\r\n")
    problem = orjson.loads(body) if body.startswith(b"{") else {}
    detail = problem.get("detail") or problem.get("title") or status_line[13:].decode()
    code = CODES.get(int(status_line[9:12]), UNKNOWN)
    others = [line for line in lines if parse_field_name(line) not in OF_BODIES]
    own = [
        b"HTTP/1.1 200 OK",
        b"Content-Type: application/grpc",
        b"grpc-status: %d" % code,
        b"grpc-message: %b" % quote(detail, safe=UNESCAPED).encode(),
    ]
    return b"\r\n".join((*own, *others, b"\r\n"))
