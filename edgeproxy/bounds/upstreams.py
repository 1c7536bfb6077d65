"""The bounds of what upstreams answer: to requests, to health checks, and to the look-up of their names."""

from typing import Final

from edgeproxy.base import http_peer
from edgeproxy.bounds.bound import BOTH, HTTP1, HTTP2, Bound, Protocol, Reader, Side, Unit, get_default
from edgeproxy.config.edge.response_usage import ResponseUsage
from edgeproxy.config.edge.timeouts import Timeouts
from edgeproxy.config.edge.upstreams import Upstream
from edgeproxy.edge.body_usage import content_coding, json_text
from edgeproxy.edge.http1 import chunked
from edgeproxy.edge.http2 import connection, frames, requester, reset_budget, sender
from edgeproxy.edge.proxy.connections import http2_upstream
from edgeproxy.edge.proxy.exchange import forwarding, response_relay
from edgeproxy.edge.supervisor import grpc_probe, probe, resolver

HEAD: Final = get_default(Upstream, "head")
HEAD_SETTING: Final = "upstreams.NAME.head"


def _bound_answer(
    name: str,
    protocols: tuple[Protocol, ...],
    subject: str,
    number: float | None,
    error: str,
    reason: str,
    unit: Unit = Unit.BYTES,
    setting: str | None = None,
    effect: str = "",
) -> Bound:
    """Return a bound of the edge's own: the answer fails alone, and its endpoint is not charged."""
    return Bound(
        f"upstream {name}",
        Reader.UPSTREAMS,
        protocols,
        subject,
        number,
        unit,
        Side.EDGE,
        reason,
        setting=setting,
        status=502,
        error=error,
        effect=effect,
    )


def _bound_time(name: str, setting: str, subject: str, status: int | None, error: str, effect: str = "") -> Bound:
    return Bound(
        f"upstream {name}",
        Reader.UPSTREAMS,
        BOTH,
        subject,
        get_default(Timeouts, setting),
        Unit.SECONDS,
        Side.UPSTREAM,
        "requests hold a connection and memory",
        setting=f"upstreams.NAME.timeouts.{setting}",
        status=status,
        error=error,
        effect=effect,
    )


ANSWERS: Final = (
    _bound_answer(
        "head",
        BOTH,
        "a head without its blank line, interim or final, with any number of fields",
        HEAD,
        "http_response_header_section_size",
        "memory of each request under way. Over HTTP/2 the head that the fields become counts",
        setting=HEAD_SETTING,
    ),
    _bound_answer(
        "trailers",
        BOTH,
        "a trailer section without its blank line, with any number of fields",
        HEAD,
        "http_response_trailer_section_size",
        "as a head",
        setting=HEAD_SETTING,
        effect="the answer has begun, so the client's connection or stream is reset",
    ),
    _bound_answer(
        "interim answers",
        BOTH,
        "1xx answers to a request",
        response_relay.INTERIM_ANSWERS_MAX,
        "http_response_incomplete",
        "an upstream that sends more is not answering",
        unit=Unit.ITEMS,
    ),
    _bound_answer(
        "chunk line",
        (HTTP1,),
        "the line of a chunk: size and extensions",
        chunked.CHUNK_LINE_BYTES_MAX,
        "http_response_transfer_coding",
        "RFC 9112 section 7.1.1, as of clients. HTTP/2 has none",
        effect="if the answer has begun, the client's connection or stream is reset",
    ),
    _bound_answer(
        "chunk extensions",
        (HTTP1,),
        f"chunk extensions of a body, beyond twice its content and {chunked.LINE_BYTES_FREE} bytes a chunk",
        chunked.EXCESS_BYTES_MAX,
        "http_response_transfer_coding",
        "RFC 9112 section 7.1.1, as of clients. HTTP/2 has none",
        effect="if the answer has begun, the client's connection or stream is reset",
    ),
    _bound_answer(
        "field block",
        (HTTP2,),
        "a field block, as a multiple of `head`. A block below it that is longer than a head fails its request alone",
        requester.BLOCK_EXCESS,
        "http_response_header_section_size",
        "CVE-2024-27316. The bound is larger than for clients, as the connection that ends is everybody's",
        unit=Unit.ITEMS,
        effect="the connection ends, and its requests with it; those that may be repeated are sent again",
    ),
    _bound_answer(
        "settings",
        (HTTP2,),
        "settings in a frame",
        connection.SETTINGS_MAX,
        "http_protocol_error",
        "as of clients",
        unit=Unit.ITEMS,
        effect="the connection ends, as above",
    ),
    Bound(
        "upstream frame",
        Reader.UPSTREAMS,
        (HTTP2,),
        "the payload of a frame",
        frames.FRAME_BYTES_MAX,
        Unit.BYTES,
        Side.UPSTREAM,
        "RFC 9113 section 4.2, the default of SETTINGS_MAX_FRAME_SIZE: the upstream breaks a rule",
        status=502,
        error="http_protocol_error",
        effect="the connection ends",
    ),
    Bound(
        "upstream body window",
        Reader.UPSTREAMS,
        (HTTP2,),
        "bytes of a body that wait to be taken",
        sender.STREAM_WINDOW,
        Unit.BYTES,
        Side.UPSTREAM,
        "RFC 9113 section 6.9: the upstream breaks a rule",
        status=502,
        error="http_protocol_error",
        effect="the stream is reset",
    ),
)

REQUESTS: Final = (
    Bound(
        "upstream streams",
        Reader.UPSTREAMS,
        (HTTP2,),
        "streams of a connection at a time, or fewer if the upstream says so",
        requester.STREAMS_MAX,
        Unit.ITEMS,
        Side.EDGE,
        "RFC 9113 section 5.1.2",
        effect="another connection opens",
    ),
    Bound(
        "upstream refused streams",
        Reader.UPSTREAMS,
        (HTTP2,),
        "refused streams after each of which a request is sent again",
        forwarding.REFUSALS_MAX,
        Unit.ITEMS,
        Side.EDGE,
        "RFC 9113 section 8.7: the upstream has done nothing of it, so the endpoint is not charged",
        status=503,
        error="destination_unavailable",
    ),
    Bound(
        "upstream kept request",
        Reader.UPSTREAMS,
        (HTTP2,),
        "bytes of a request that are kept while its stream may be refused",
        forwarding.KEPT_BYTES_MAX,
        Unit.BYTES,
        Side.EDGE,
        "a larger request cannot be sent again once it streams",
        status=503,
        error="destination_unavailable",
    ),
    Bound(
        "upstream resets",
        Reader.UPSTREAMS,
        (HTTP2,),
        f"resets of a connection, and {reset_budget.RESETS_PER_SECOND} a second",
        reset_budget.RESETS_MAX,
        Unit.ITEMS,
        Side.EDGE,
        "CVE-2023-44487: services end connections with many",
        effect="the stream stays open unread, and is reset later",
    ),
    Bound(
        "upstream first settings",
        Reader.UPSTREAMS,
        (HTTP2,),
        "the time for the first SETTINGS",
        http2_upstream.SETTINGS_SECONDS,
        Unit.SECONDS,
        Side.EDGE,
        "they tell how many streams there may be",
        effect="the upstream takes the default",
    ),
    Bound(
        "upstream buffered body",
        Reader.UPSTREAMS,
        BOTH,
        "a body that the upstream gets whole",
        get_default(Upstream, "buffer"),
        Unit.BYTES,
        Side.CLIENT,
        "disk of the state directory",
        setting="upstreams.NAME.buffer",
        status=413,
    ),
)

TIMES: Final = (
    _bound_time("connect", "connect", "the time until a connection is made", 504, "connection_timeout"),
    _bound_time(
        "answer time",
        "response_head",
        "the time from a request to its answer's head",
        504,
        "http_response_timeout",
    ),
    _bound_time(
        "answer pause",
        "idle",
        "the time between two pieces of an answer",
        None,
        "http_response_timeout",
        "the answer has begun, so the client's connection or stream is reset",
    ),
    _bound_time("total time", "total", "the time for the whole exchange", 504, "http_response_timeout"),
)


def _bound_check(
    name: str,
    protocol: Protocol,
    subject: str,
    number: float | None,
    unit: Unit,
    reason: str,
    setting: str | None = None,
) -> Bound:
    return Bound(
        f"health check {name}",
        Reader.HEALTH_CHECKS,
        (protocol,),
        subject,
        number,
        unit,
        Side.UPSTREAM,
        reason,
        setting=setting,
        effect="the probe fails, and names the bound; after two the address is down",
    )


HEALTH_CHECKS: Final = (
    _bound_check(
        "head", HTTP1, "a head without its blank line", HEAD, Unit.BYTES, "as of other answers", setting=HEAD_SETTING
    ),
    _bound_check(
        "interim answers",
        HTTP1,
        "1xx answers",
        http_peer.INTERIM_ANSWERS_MAX,
        Unit.ITEMS,
        "as of other answers",
    ),
    _bound_check(
        "call head",
        Protocol.GRPC,
        "a head, and a trailer section",
        HEAD,
        Unit.BYTES,
        "as of other answers",
        setting=HEAD_SETTING,
    ),
    _bound_check(
        "call bytes",
        Protocol.GRPC,
        "all frames beside head and trailers",
        grpc_probe.WIRE_BYTES_MAX,
        Unit.BYTES,
        "a service that answers sends a few hundred",
    ),
    _bound_check(
        "time",
        HTTP1,
        "the time for a probe, or `health.every` if that is less",
        probe.PROBE_SECONDS_MAX,
        Unit.SECONDS,
        "an answer that comes later is of no use",
    ),
    Bound(
        "health check body",
        Reader.HEALTH_CHECKS,
        (HTTP1,),
        "bytes of a body",
        probe.PEER.body_bytes_max,
        Unit.BYTES,
        Side.EDGE,
        "only the status counts",
        effect="nothing more is read, and the probe passes",
    ),
)

DISCOVERY: Final = (
    Bound(
        "discovery look-up",
        Reader.DISCOVERY,
        (Protocol.DNS,),
        "the time for a look-up of a name",
        resolver.LOOKUP_TIMEOUT,
        Unit.SECONDS,
        Side.PEER,
        "names are looked up in a thread",
        effect="the last known addresses stay; a name without any is 502, `dns_error`",
    ),
    Bound(
        "discovery addresses",
        Reader.DISCOVERY,
        (Protocol.DNS,),
        "the addresses of a name",
        resolver.ADDRESSES_MAX,
        Unit.ITEMS,
        Side.PEER,
        "each address has health checks, and a place in every worker",
        effect="the first ones in numeric order are used, and the log has a line",
    ),
)


def _bound_usage(
    name: str, subject: str, number: float | None, unit: Unit, reason: str, effect: str, setting: str | None = None
) -> Bound:
    """Return a bound of the reader of usage: the answer passes whatever its usage is."""
    return Bound(
        f"usage {name}", Reader.USAGE, BOTH, subject, number, unit, Side.EDGE, reason, setting=setting, effect=effect
    )


ESTIMATED: Final = "[the usage is estimated](../edge/ai.md#what-is-not-stated)"

USAGE: Final = (
    _bound_usage(
        "text",
        f"a JSON text or event, read whole; of a longer one, this and its last {json_text.END_BYTES_MAX >> 10} KiB",
        json_text.WHOLE_BYTES_MAX,
        Unit.BYTES,
        "memory",
        "a number elsewhere is not seen",
    ),
    _bound_usage(
        "decompression",
        "bytes for each compressed byte",
        content_coding.RATIO_MAX,
        Unit.ITEMS,
        "decompression bombs",
        ESTIMATED,
    ),
    _bound_usage(
        "window",
        "the window of zstd",
        content_coding.ZSTD_WINDOW_BYTES_MAX,
        Unit.BYTES,
        "memory",
        ESTIMATED,
    ),
    _bound_usage(
        "members", "members of gzip", content_coding.MEMBERS_MAX, Unit.ITEMS, "members of nothing cost CPU", ESTIMATED
    ),
    _bound_usage(
        "read on",
        "the rest of an answer whose client has left",
        get_default(ResponseUsage, "read_on_size"),
        Unit.BYTES,
        "an upstream may never end",
        ESTIMATED,
        setting="routes.response_usage.read_on_size",
    ),
)

UPSTREAMS: Final = (*ANSWERS, *REQUESTS, *TIMES, *HEALTH_CHECKS, *DISCOVERY, *USAGE)
