"""Streams whose usage the edge requests in place of their clients: it changes the request, and removes the resulting
event from the answer.
"""

import re
from typing import TYPE_CHECKING, Final, Protocol

from edgeproxy.edge.body_usage.body_kind import BodyKind, describe_body
from edgeproxy.edge.body_usage.stream_options import (
    REQUEST_BYTES_MAX,
    UsageEventFilter,
    ask_for_usage,
    is_readable,
)
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1.field_values import remove_fields
from edgeproxy.edge.http1.request import RequestHead
from edgeproxy.edge.proxy.transport.compression import INVALID_WHEN_CHANGED

if TYPE_CHECKING:
    from edgeproxy.edge.http1.response import ResponseHead

BLANK: Final = b"\r\n\r\n"
COMPLETIONS: Final = b"/completions"
"""The end of the paths whose streams support `stream_options`: chats and text completions."""
LENGTH_LINE: Final = re.compile(rb"(?im)^content-length:[^\r\n]*")
PACKED_LINE: Final = re.compile(rb"(?im)^content-encoding:[ \t]*(?!identity)\S")
DIGEST_LINE: Final = re.compile(rb"(?im)^(?:content-digest|repr-digest|digest|content-md5):")
"""A field that lets the client vouch for its body. Such a request goes on unchanged."""


class StreamedExchange(Protocol):
    """An exchange whose answer may be a stream."""

    head: RequestHead
    keep: bytes
    length: int
    message: bytes
    method: bytes
    minor: int
    path: bytes
    usage_requested: bool


def may_request_usage(exchange: StreamedExchange) -> bool:
    """Return whether the body, once it is complete, may be changed to request usage.

    HTTP/1.0 has no chunks. Without them a stream of changed length could not be told from a truncated one.
    """
    is_read = 0 < exchange.length <= REQUEST_BYTES_MAX and not exchange.head.chunked
    is_of_streams = exchange.method == b"POST" and exchange.path.endswith(COMPLETIONS)
    return bool(is_read and is_of_streams and exchange.minor) and DIGEST_LINE.search(exchange.keep) is None


def check_request(exchange: StreamedExchange) -> None:
    """Raise RejectedError for a request on a stream's path whose body cannot be changed.

    Called if the route refuses these.
    """
    if exchange.method != b"POST" or not exchange.path.endswith(COMPLETIONS):
        return
    if exchange.head.chunked or exchange.length < 0:
        raise RejectedError(411, "Requests of this service need a Content-Length")
    if exchange.length > REQUEST_BYTES_MAX:
        raise RejectedError(413, f"The body is larger than the {REQUEST_BYTES_MAX} bytes that this service accepts")
    if not exchange.minor:
        raise RejectedError(505, "Requests of this service need HTTP/1.1")
    if PACKED_LINE.search(exchange.keep) is not None:
        raise RejectedError(415, "Requests of this service cannot be compressed")
    if DIGEST_LINE.search(exchange.keep) is not None:
        raise RejectedError(400, "Requests of this service cannot have a digest of their body")


def ask(exchange: StreamedExchange, *, refuses: bool = False) -> None:
    """Change the whole message of a request for a stream so that it requests usage, unless it does already.

    Raises RejectedError with `refuses` if its body is not a JSON object.
    """
    head, _, body = exchange.message.partition(BLANK)
    asking = ask_for_usage(body)
    if asking is None:
        if refuses and not is_readable(body):
            raise RejectedError(400, "The body is no JSON object")
        return
    exchange.message = replace_length(head, len(asking)) + BLANK + asking
    exchange.usage_requested = True


def replace_length(head: bytes, size: int) -> bytes:
    """Return the head of a message whose body has this size."""
    return LENGTH_LINE.sub(b"Content-Length: %d" % size, head)


def create_filter(head: "ResponseHead") -> UsageEventFilter | None:
    """Change the head for a stream whose usage event is removed, and return the filter; None if the answer stays
    unchanged.
    """
    if head.status != 200 or describe_body(head.keep) != (BodyKind.STREAM, b""):
        return None
    head.keep = remove_fields(head.keep, INVALID_WHEN_CHANGED)
    return UsageEventFilter()
