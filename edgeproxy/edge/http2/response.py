"""The lines of a field block as the head of an HTTP/1.1 answer, or the reason why they do not form one (RFC 9113
section 8.3.2).
"""

from typing import Final, NamedTuple, cast

from edgeproxy.edge.http2.errors import create_malformed_error
from edgeproxy.edge.http2.lines import TE, Line, Pseudo

CONTENT_LENGTH: Final = b"content-length: "
GRPC: Final = b"content-type: application/grpc"
BODILESS: Final = frozenset((b"204", b"304"))


class AnswerHead(NamedTuple):
    """A head with its blank line, whether the answer is interim, and whether its body comes in chunks."""

    head: bytes
    is_interim: bool
    is_chunked: bool


def is_interim(lines: list[Line]) -> bool:
    """Return whether these lines begin like an interim answer, malformed or not."""
    return bool(lines) and type(lines[0]) is tuple and lines[0][1][:1] == b"1"


def format_response_head(lines: list[Line], *, ended: bool, bodiless: bool = False) -> AnswerHead:
    """Format the head of an answer. `ended`: nothing follows it. `bodiless`: the request was HEAD.

    Raises Http2StreamError if the answer is malformed.
    """
    place, status = lines[0] if lines and type(lines[0]) is tuple else (Pseudo.MALFORMED, b"")
    if place is not Pseudo.STATUS or any(type(line) is not bytes or line is TE for line in lines[1:]):
        raise create_malformed_error("an answer without a status, or with a field that is malformed", "8.3.2")
    is_interim = status[:1] == b"1"
    if status == b"101" or (is_interim and ended):
        raise create_malformed_error("101, or an interim answer that is the last", "8.1 and 8.6")
    fields = cast("list[bytes]", lines[1:])
    has_body = not (is_interim or bodiless or status in BODILESS)
    has_length = any(line.startswith(CONTENT_LENGTH) for line in fields)
    if has_length and has_body and not ended and any(line.startswith(GRPC) for line in fields):
        # Its status is in trailers; in HTTP/1.1 no message of known length has trailers.
        fields, has_length = [line for line in fields if not line.startswith(CONTENT_LENGTH)], False
    is_chunked = has_body and not ended and not has_length
    if is_chunked:
        fields = [*fields, b"transfer-encoding: chunked"]
    elif has_body and ended and not has_length:
        fields = [*fields, b"content-length: 0"]
    head = b"\r\n".join((b"HTTP/1.1 %b " % status, *fields, b"\r\n"))
    return AnswerHead(head, is_interim, is_chunked)
