"""An answer on its way to the client: counted, given the edge's fields, and written, whole or piece by piece."""

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.http1 import message
from edgeproxy.edge.http1.field_values import find_value, find_values
from edgeproxy.edge.http1.region_fields import remove_region
from edgeproxy.edge.http1.request import RequestHead
from edgeproxy.edge.http1.security_fields import NAMES_PLACES, NAMES_REGION
from edgeproxy.edge.limits.fields import remove_legacy
from edgeproxy.edge.proxy.exchange import event_stream
from edgeproxy.edge.proxy.exchange.event_stream import is_event_stream
from edgeproxy.edge.proxy.exchange.record import ExchangeRecord
from edgeproxy.edge.proxy.metering import stream_usage
from edgeproxy.edge.proxy.metering.messages import MeteredTransport
from edgeproxy.edge.proxy.observation.exchange_states import ANSWERING, OVER, TUNNEL
from edgeproxy.edge.proxy.routing.reverse_mapping import SAME
from edgeproxy.edge.proxy.transport.deadlines import NEVER
from edgeproxy.edge.proxy.transport.turns import PIECE_BYTES

if TYPE_CHECKING:
    from edgeproxy.edge.http1.response import PlainResponse, ResponseHead
    from edgeproxy.edge.proxy.exchange.sides import UpstreamSide
    from edgeproxy.edge.proxy.metering.meters import Countable
    from edgeproxy.edge.proxy.upstreams.pool import Endpoint

INTERIM_ANSWERS_MAX: Final = 32
"""1xx answers to one request; an upstream that sends more is not answering."""

ALTERED: Final = RequestHead()
"""Replaces a plain head if the route alters the answer's head. The answer is then relayed piece by piece."""

FORWARDED_HOST: Final = b"x-forwarded-host"
LOCALHOST: Final = b"localhost"
"""The authority that an upstream sees in an HTTP/1.0 request without a host."""


class ResponseRelay(ExchangeRecord):
    """The answer's half of an exchange. The reception counts: each answer is counted before its head is written."""

    __slots__ = ()

    # ---- an answer in one piece

    def respond_whole(self, server: "UpstreamSide[Any]", plain: "PlainResponse", data: bytes, end: int) -> None:
        """Count and write an ordinary answer that came in one read; both connections are free again.

        `data` is all of it, and `end` is the position of its blank line. Most answers take this path, so the steps of
        `begin_response` and `complete` are written out, and the function is longer than a screen.
        """
        client, binding, endpoint = self.client, self.binding, self.endpoint
        assert binding is not None
        assert endpoint is not None
        rare = binding.rare
        if rare is not None and rare.body_metering is not None and len(data) > PIECE_BYTES:
            server.begin_answer(data, end)  # The usage that a long answer states is read in slices.
            return
        arrived = monotonic()
        status, _, keep, rate, flags, _ = plain
        if status != binding.latest_status:
            binding.select_counters(status)
        binding.latest_counter.add(1)
        binding.latest_usage.add(1)
        limit_set = self.limit_set
        if limit_set is not None:
            self.charge_reported(keep)
        if rare is not None:
            if (metering := rare.metering) is not None:
                size = len(data) - end - 4
                keep = metering.read_whole(status, keep, self.bytes_in, size, self.get_metered_quotas(), self.runtime)
            if rare.body_metering is not None:
                rare.body_metering.read_whole(self, status, keep, data[end + 4 :])
        if limit_set is not None:
            self.settle_limits(status)
        if flags >= NAMES_PLACES:
            if binding.route.reverse_mapping is not None:
                keep = self.map_references(keep)
            if flags >= NAMES_REGION and self.snapshot.sets_region:
                keep = remove_region(keep)
        rate = (self.format_rate_fields() or rate) + self.notes
        if self.snapshot.legacy_headers:
            keep = self.remove_legacy_fields(keep)
        security_lines = binding.route.security_lines
        if security_lines is not None:
            rate += security_lines[self.is_secure()][flags]
        # Before the write: a client that takes no more must not pause a connection that another request may get next.
        self.server = server.exchange = None
        if len(data) - end <= client.copied_bytes_max:
            client.write(b"".join((keep, rate, endpoint.answer_lines, self.rid, data[end:])))
        elif client.is_http2:
            client.write_whole(keep, rate, endpoint.answer_lines, self.rid, data, end + 4)
        else:
            lines = b"".join((keep, rate, endpoint.answer_lines, self.rid))
            client.writelines((lines, memoryview(data)[end:]))
        upstream_seconds = arrived - self.sent_at
        endpoint.outstanding -= 1
        self.endpoint = None
        if status >= 500 or endpoint.wants_results:
            endpoint.record_response(status, self.sent_at, arrived)
        if not server.reused:
            server.learn_idle_timeout(data[: end + 2])
        server.release(arrived)
        written = monotonic()
        total = written - self.started
        binding.route.record_times(total, total - upstream_seconds - self.waiting_seconds, upstream_seconds)
        if self.span is not None or self.snapshot.access_log is not None:
            self.status, self.bytes_out, self.arrived = status, len(data) - end - 4, arrived
            self._record_whole(endpoint, data[: end + 2])
        self.state = OVER
        client.exchange = None
        client.deadline = written + self.snapshot.keepalive_idle
        if client.buffer or client.write_paused:
            client.serve_next()

    def _record_whole(self, endpoint: "Endpoint", head: bytes) -> None:
        """Hand over the spans of a request whose answer came whole, and write it to the access log."""
        tracer, access_log = self.snapshot.tracer, self.snapshot.access_log
        if self.span is not None and tracer is not None:
            self.span.read_fields(head)
            tracer.end(self)
        if access_log is not None:
            if endpoint.service.request_id_field is not None:
                self.upstream_request_id = find_value(head, endpoint.service.request_id_field)
            access_log.log_request(self, endpoint)

    # ---- an answer piece by piece

    def begin_response(self, server: "UpstreamSide[Any]", head: "ResponseHead") -> tuple[bytes, bool]:
        """Count an answer that is relayed piece by piece. Return its head for the client, and whether it is chunked."""
        client, binding = self.client, self.binding
        assert binding is not None
        self.record_response_start(head.status)
        bodiless = self.is_bodiless(head.status)
        endless = head.length < 0 and not bodiless
        chunked = endless and self.minor == 1 and not client.is_http2
        if client.body is not None:
            # Answered before the end of the request: the rest of its body cannot be told from the next request.
            client.serve_no_more()
            server.reusable = False
        elif self.buffered_body is not None and not self.buffered_body.is_sent:
            server.reusable = False
        if self.runtime.connections.draining or (endless and not chunked):
            client.serve_no_more()
        # RFC 9110 section 6.6.1: a recipient with a clock adds a missing Date.
        if not head.dated:
            head.keep += self.runtime.date_line
        if self.span is not None:
            self.span.read_fields(head.keep)
        self._count_head(head)
        response_policy = binding.route.response_policy
        if response_policy is not None:
            server.body_filter = response_policy.apply(head, self)
        if binding.asks_for_usage and self.usage_requested:
            server.body_filter = stream_usage.create_filter(head)
        chunked = chunked or (server.body_filter is not None and not client.is_http2)
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        if client.is_last:
            framing += b"Connection: close\r\n"
        self.idle_timeout = binding.route.idle_timeout
        if endless and is_event_stream(head.keep):
            self.idle_timeout = NEVER
            event_stream.enable_keep_alive(client.transport, server.transport)
        client.deadline = self.arrived + self.idle_timeout
        return self._format_head(head, framing), chunked

    def check_websocket(self, status: int) -> None:
        """Raise UpstreamError if a final answer would look like an open WebSocket, as any 2xx does over HTTP/2.

        Its body would become the messages (RFC 8441 section 5).
        """
        if status < 300 and self.head.upgrade and self.client.is_http2:
            raise UpstreamError("http_upgrade_failed", "The upstream has opened no WebSocket")

    def switch_protocols(self, head: "ResponseHead") -> None:
        """Pass a 101 on. For billing it is one request, whatever passes through the tunnel after it."""
        client, binding = self.client, self.binding
        assert binding is not None
        self.record_response_start(101)
        self._count_head(head)
        client.serve_no_more()
        client.deadline = self.arrived + binding.route.tunnel_timeout
        if binding.route.response_policy is not None:
            binding.route.response_policy.apply(head, self)
        offered = message.SWITCHING if head.upgrade is None else message.format_upgrade((head.upgrade,))
        client.write(self._format_head(head, offered))

    def relay_interim(self, head: "ResponseHead") -> None:
        """Pass a 1xx answer on at once, to clients that support it (RFC 9110 section 15.2).

        Raises UpstreamError if there are too many.
        """
        self.interim_count += 1
        if self.interim_count > INTERIM_ANSWERS_MAX:
            detail = f"The upstream sent more than {INTERIM_ANSWERS_MAX} interim answers"
            raise UpstreamError("http_response_incomplete", detail, is_local=True)
        if self.minor:
            assert self.binding is not None
            keep, metering = head.keep, self.binding.metering
            self.client.write((keep if metering is None else metering.remove_hidden_fields(keep)) + b"\r\n")

    def read_trailers(self, trailers: list[bytes]) -> list[bytes]:
        """Count the values that an answer's trailer lines report.

        Lines have no CRLF. Return the lines for the client.
        """
        assert self.binding is not None
        if self.span is not None:
            self.span.read_fields(b"".join([b"%b\r\n" % line for line in trailers]))
        if self.binding.metering is None:
            return trailers
        return self.metering.read_trailers(self.status, trailers, self.get_metered_quotas(), self.runtime)

    def record_response_start(self, status: int) -> None:
        """Record that the upstream's final answer has begun."""
        endpoint = self.endpoint
        assert endpoint is not None
        self.status, self.arrived = status, monotonic()
        self.state = TUNNEL if status == 101 else ANSWERING
        endpoint.service.record_response_start()
        if status >= 500:
            endpoint.record_failure(self.arrived)

    def _count_head(self, head: "ResponseHead") -> None:
        """Count an answer and the values its head reports, and map the references in it."""
        binding = self.binding
        assert binding is not None
        for counter in binding.find_counters(head.status):
            counter.add(1)
        self.charge_reported(head.keep)
        if binding.metering is not None:
            head.keep = binding.metering.read_head(self, head.status, head.keep)
        if head.flags >= NAMES_PLACES:
            head.keep = self.map_references(head.keep)

    def count_messages(self, inward: "tuple[Countable, ...]", outward: "tuple[Countable, ...]") -> None:
        """Count the messages of a gRPC call, by direction: the request's messages so far, and all from now on."""
        assert self.server is not None
        stream = self.server.transport
        if isinstance(stream, MeteredTransport) and stream.messages is not None:
            stream.messages.begin_answer(inward, outward)

    def _format_head(self, head: "ResponseHead", framing: bytes) -> bytes:
        """Format an answer's head: kept lines, `framing`, RateLimit fields or the upstream's, region, request id."""
        assert self.endpoint is not None
        fields = (self.format_rate_fields() or head.rate) + self.notes
        keep = self.remove_legacy_fields(head.keep) if self.snapshot.legacy_headers else head.keep
        security_lines = None if self.route is None else self.route.security_lines
        if security_lines is not None and head.status != 101:
            fields += security_lines[self.is_secure()][head.flags]
        if head.flags >= NAMES_REGION and self.snapshot.sets_region:
            keep = remove_region(keep)
        return b"".join((keep, framing, fields, self.endpoint.answer_lines, self.rid, b"\r\n\r\n"))

    def map_references(self, lines: bytes) -> bytes:
        """Convert the references in an answer's head from the service's URLs to the client's."""
        assert self.route is not None
        assert self.endpoint is not None
        mapping = self.route.reverse_mapping
        if mapping is None and self.minor:
            return lines
        requested = find_values(self.keep, FORWARDED_HOST)
        if requested:
            authority = requested[0].partition(b",")[0].strip()
            return lines if mapping is None else mapping.apply(lines, authority, self.endpoint.authorities)
        # The service may repeat the authority that the edge made up, which no client requested.
        return (mapping or SAME).apply(lines, None, (*self.endpoint.authorities, LOCALHOST))

    def remove_legacy_fields(self, head: bytes) -> bytes:
        """Remove an upstream's legacy limit fields from its head if the edge sends its own."""
        return head if self.shown_policy is None else remove_legacy(head)

    # ---- properties of the answer

    def is_bodiless(self, status: int) -> bool:
        """Return whether an answer of this status has no body, whatever its fields say (RFC 9112 section 6.3)."""
        return self.method == b"HEAD" or status in (204, 304)

    def list_protocols(self) -> tuple[bytes, ...]:
        """Return the protocols that the client has offered to switch to, and its route allows."""
        route = self.route
        assert route is not None
        return tuple(protocol for protocol in self.head.upgrade if protocol in route.protocols)

    def get_probe(self) -> bytes:
        """Return bytes without a meaning that the client may get at this moment; empty if there are none.

        Before an answer these are a 100, which every HTTP/1.1 client must understand even unasked (RFC 9110 section
        15.2). Between two chunks they are a zero, which the size of the next chunk may begin with (RFC 9112 section
        7.1).
        """
        if not self.has_begun_response:
            return message.CONTINUE if self.minor else b""
        return b"0" if self.server is not None and self.server.rechunks else b""

    # ---- the answer's end

    def complete(self) -> None:
        """End an exchange whose answer has gone out whole, piece by piece."""
        # Once the head is sent, the rest of a piecewise answer takes the upstream's time.
        own_seconds = self.sent_at - self.started - self.waiting_seconds
        assert self.route is not None
        self.route.record_times(monotonic() - self.started, own_seconds, self.arrived - self.sent_at)
        self._end_well()

    def end_tunnel(self) -> None:
        """End a tunnel whose upstream has closed its side. Its duration is not a time of requests."""
        self.server = None
        self._end_well()

    def _end_well(self) -> None:
        self.record_success()
        self.log_end()
        self.release()
        self.client.serve_next()

    def record_success(self) -> None:
        """Record that the endpoint succeeded, if it has answered at all."""
        if self.has_begun_response and self.status < 500:
            assert self.endpoint is not None
            self.endpoint.record_success(self.sent_at)
