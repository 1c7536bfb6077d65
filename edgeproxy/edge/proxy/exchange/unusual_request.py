"""Requests that the quick readers and the usual stamps do not handle: every rule, applied to one exchange.

Examples are HTTP/1.0, rare methods, upgrades, forwarded credentials, rewritten paths and signed stamps.
"""

from typing import TYPE_CHECKING, Final

from edgeproxy.edge.errors import DirectResponseError
from edgeproxy.edge.http1.grammar import parse_host
from edgeproxy.edge.http1.path import normalize_target
from edgeproxy.edge.http1.request import PLAIN, check_host, read_head
from edgeproxy.edge.http1.request_line import check_sizes, read_request_line
from edgeproxy.edge.proxy.exchange.response_relay import ALTERED, LOCALHOST
from edgeproxy.edge.proxy.exchange.upstream_request import rewrite_lines
from edgeproxy.edge.proxy.metering import stream_usage
from edgeproxy.edge.proxy.routing.rewriting import DESTINATION_METHODS
from edgeproxy.edge.proxy.transport import grpc_status

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.exchange.forwarding import Forwarding
    from edgeproxy.edge.proxy.routing.binding import RouteBinding

NO_HOST: Final = b"Host: %b\r\n" % LOCALHOST
"""The upstream's Host line in an HTTP/1.0 request without a host, because HTTP/1.1 must have the field. No
X-Forwarded-Host goes with it, and clients never see this host.
"""


def read_unusual_request(exchange: "Forwarding", line: bytes, block: bytes) -> None:
    """Read a request line, without its CRLF, and the field lines of `block`. Raises RejectedError as the readers do."""
    snapshot, client = exchange.snapshot, exchange.client
    check_sizes(len(line), 0, snapshot.head_limits)
    request = read_request_line(line)
    exchange.method, exchange.minor = request.method, request.version[1]
    if exchange.minor == 0:
        # The connection ends after this request: HTTP/1.0's persistence is not worth its rules.
        client.serve_no_more()
    head = read_head(block, client.trusted, snapshot.head_limits.fields, exchange.minor, snapshot.lines)
    host, lines = check_host(request, head)
    if head.authority is None and not lines:
        authority = (head.forwarded_host or b"").partition(b",")[0].strip()
        lines = NO_HOST if parse_host(authority) is None else b"Host: %b\r\n" % authority
    exchange.keep = lines + head.keep
    exchange.head = PLAIN if head.plain else head
    exchange.length, exchange.trace, exchange.credentials = head.length, head.trace, head.credentials
    exchange.site = snapshot.router.find_site(host)
    target = normalize_target(request.target)
    exchange.request_line = b"%b %b HTTP/1.1\r\n" % (exchange.method, target)
    exchange.path = target.partition(b"?")[0]
    snapshot.paths.check(exchange.path, exchange.method, exchange.site, exchange)


def prepare_unusual_head(exchange: "Forwarding", binding: "RouteBinding", data: bytes, end: int) -> None:
    """Change the request line and the kept lines for the upstream; arguments as in `Exchange.begin`."""
    head, route = exchange.head, binding.route
    if head.request_id is not None:
        exchange.rid = head.request_id
    if head.forwards is not None:
        _count_forwards(exchange, head.forwards)
    if (route.response_policy is not None or binding.fallback is not None) and head is PLAIN:
        exchange.head = ALTERED
    if route.total_timeout is not None:
        exchange.client.limit_duration(exchange, exchange.started + route.total_timeout)
    if route.service.speaks_http2:
        _limit_call(exchange)
        if head is PLAIN and binding.metering is not None and binding.metering.counts_messages:
            exchange.head = ALTERED  # Messages are counted only in answers that come piece by piece.
    if route.settings.response_usage is not None:
        exchange.usage_requested = False
        if binding.refuses_unasked:
            stream_usage.check_request(exchange)
    if binding.fallback is not None:
        exchange.received_lines, exchange.is_patient = (exchange.request_line, exchange.keep), False
        if (rewriter := binding.fallback.route.rewriter) is not None:
            # A path that cannot be rewritten is refused now, not once the first upstream has failed.
            rewriter.rewrite_line(exchange.request_line)
            if exchange.method in DESTINATION_METHODS:
                rewriter.rewrite_destination(exchange.keep)
    body = None
    if exchange.snapshot.sign is not None and not head.chunked and len(data) - end - 4 >= exchange.length:
        body = data[end + 4 : end + 4 + exchange.length]
    rewrite_lines(exchange, binding, body)


def _limit_call(exchange: "Forwarding") -> None:
    """End a gRPC call at its caller's timeout or at the route's, whichever is sooner."""
    seconds = grpc_status.parse_timeout(exchange.keep)
    assert exchange.route is not None
    if seconds is not None and seconds <= (exchange.route.total_timeout or seconds):
        exchange.client.limit_duration(exchange, exchange.started + seconds)


def _count_forwards(exchange: "Forwarding", left: int) -> None:
    """Apply Max-Forwards (RFC 9110 section 7.6.2). The edge answers an OPTIONS that may not go on.

    Raises DirectResponseError for it.
    """
    if exchange.method == b"OPTIONS":
        if not left:
            raise DirectResponseError(204, "Max-Forwards ends here")
        left -= 1
    exchange.keep += b"Max-Forwards: %d\r\n" % left
