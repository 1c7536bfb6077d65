"""The upstream's message of a request whose head needs more than joining: its lines are changed for the route's
upstream, or for its fallback.
"""

from functools import partial
from typing import TYPE_CHECKING, Final

from edgeproxy.edge.http1 import message
from edgeproxy.edge.http1.field_values import remove_field
from edgeproxy.edge.http1.host import replace_host
from edgeproxy.edge.proxy.exchange.rewrite_variables import compute_variable
from edgeproxy.edge.proxy.metering.stream_usage import BLANK, replace_length
from edgeproxy.edge.proxy.observation.exchange_states import GATHERING
from edgeproxy.edge.proxy.routing.basic_credentials import AUTHORIZATION
from edgeproxy.edge.proxy.routing.query_key import remove_key
from edgeproxy.edge.proxy.routing.rewriting import DESTINATION_METHODS

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.exchange.response_relay import ResponseRelay
    from edgeproxy.edge.proxy.routing.binding import RouteBinding

IDENTITY: Final = b"Accept-Encoding: identity\r\n"
"""The field that asks an upstream not to compress (RFC 9110 section 12.5.3)."""


def rewrite_lines(exchange: "ResponseRelay", binding: "RouteBinding", body: bytes | None) -> None:
    """Change the received request line and kept lines into the lines for the binding's upstream.

    `body`: None if nothing is signed or the body is incomplete.
    """
    head, route = exchange.head, binding.route
    assert exchange.endpoint is not None
    if exchange.endpoint.sent_host is not None:
        exchange.keep = replace_host(exchange.keep, exchange.endpoint.sent_host)
    if binding.forwards_key:
        exchange.keep = exchange.credentials + exchange.keep
    else:
        if head.unkeyed:
            exchange.keep = head.unkeyed + exchange.keep
        if route.users is not None:
            exchange.keep = remove_field(exchange.keep, AUTHORIZATION)
        if exchange.snapshot.query_key is not None:
            exchange.request_line = remove_key(exchange.request_line, exchange.snapshot.query_key)
    if route.rewriter is not None:
        exchange.request_line = route.rewriter.rewrite_line(exchange.request_line)
        if exchange.method in DESTINATION_METHODS:
            exchange.keep = route.rewriter.rewrite_destination(exchange.keep)
        exchange.keep = route.rewriter.rewrite_fields(exchange.keep, partial(compute_variable, exchange, binding))
    if route.settings.response_usage is not None:
        exchange.keep = remove_field(exchange.keep, b"accept-encoding") + IDENTITY
    if head.upgrade:
        exchange.keep += message.format_upgrade(exchange.list_protocols())
    if exchange.snapshot.sign is not None:
        exchange.keep += exchange.snapshot.sign(exchange.rid, binding, exchange.now, exchange.request_line, body)


def get_bytes_held(exchange: "ResponseRelay", binding: "RouteBinding", otherwise: int) -> int:
    """Return the largest size of a body that is held until it is complete; 0 if it passes in pieces.

    The size is also 0 if the upstream always gets complete bodies. `otherwise` is the result if the fallback needs no
    body held.
    """
    fallback = binding.route.settings.fallback
    if binding.route.service.max_buffered_bytes is not None:
        return 0
    if fallback is None or exchange.head.upgrade or exchange.head.chunked:
        return otherwise
    return fallback.buffer if 0 < exchange.length <= fallback.buffer else otherwise


def is_repeatable(exchange: "ResponseRelay") -> bool:
    """Return whether the edge has the whole request and can send it again, and no byte of an answer has gone out."""
    if exchange.has_begun_response or exchange.head.upgrade or exchange.client.body is not None:
        return False
    body = exchange.buffered_body
    if body is None or not body.is_on_disk:
        return not exchange.streamed_body
    return exchange.state is not GATHERING or body.is_stored


def rewrite_message(exchange: "ResponseRelay", fallback: "RouteBinding") -> bytes:
    """Return the request's message, rewritten for its fallback.

    It has the lines for the fallback instead of the lines for the first upstream. Stamps, id and trace stay.
    """
    head, blank, body = exchange.message.partition(BLANK)
    buffered = exchange.buffered_body
    is_whole = buffered is None or not buffered.is_on_disk
    stamps = head[head.rindex(exchange.client.forwarded_lines + exchange.rid) :]
    exchange.request_line, exchange.keep = exchange.received_lines
    rewrite_lines(exchange, fallback, body if is_whole and not exchange.head.chunked else None)
    head = b"".join((exchange.request_line, exchange.keep, fallback.stamps, stamps))
    if fallback.asks_for_usage and exchange.usage_requested:
        head = replace_length(head, len(body))
    return head + blank + body
