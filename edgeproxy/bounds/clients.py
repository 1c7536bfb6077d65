"""The bounds of what clients send to an edge."""

from typing import Final

from edgeproxy.bounds.bound import BOTH, HTTP1, HTTP2, Bound, Protocol, Reader, Side, Unit, get_default
from edgeproxy.config.edge.settings import Limits
from edgeproxy.config.edge.timeouts import Timeouts
from edgeproxy.edge.http1 import chunked, grammar
from edgeproxy.edge.http2 import connection, frames, hpack, patience, sender
from edgeproxy.edge.proxy.connections import client_input, http2_client
from edgeproxy.edge.proxy.exchange import tunnel
from edgeproxy.edge.proxy.process import acceptor
from edgeproxy.edge.proxy.routing import basic_credentials, password_verifier, rewriting, token_verifier
from edgeproxy.edge.proxy.transport import tls

HELD: Final = http2_client.HELD_BYTES_MAX >> 20
SHARE: Final = http2_client.STREAM_SHARE_BYTES >> 10
CALM: Final = "the connection ends with ENHANCE_YOUR_CALM"


def _bound_by_setting(
    name: str, setting: str, subject: str, unit: Unit, status: int | None, reason: str, effect: str = ""
) -> Bound:
    return Bound(
        f"client {name}",
        Reader.CLIENTS,
        BOTH,
        subject,
        get_default(Limits, setting),
        unit,
        Side.CLIENT,
        reason,
        setting=f"limits.{setting}",
        status=status,
        effect=effect,
    )


def _bound(
    name: str,
    protocols: tuple[Protocol, ...],
    subject: str,
    number: float,
    unit: Unit,
    reason: str,
    status: int | None = None,
    effect: str = "",
) -> Bound:
    return Bound(
        f"client {name}",
        Reader.CLIENTS,
        protocols,
        subject,
        number,
        unit,
        Side.CLIENT,
        reason,
        status=status,
        effect=effect,
    )


HEADS: Final = (
    _bound_by_setting(
        "target",
        "head",
        "the request line: method, target and version",
        Unit.BYTES,
        414,
        "RFC 9112 section 3. Over HTTP/2 `:method` and `:path` count as the line that they become",
    ),
    _bound(
        "password",
        BOTH,
        "a user's password on a route with `auth: {basic: FILE}`",
        basic_credentials.PASSWORD_BYTES_MAX,
        Unit.BYTES,
        "bcrypt ignores the rest",
        401,
    ),
    _bound(
        "passwords",
        BOTH,
        "passwords that wait in a worker to be checked; an address has a fifth",
        password_verifier.PENDING_MAX,
        Unit.ITEMS,
        "a check takes up to a quarter of a second of CPU",
        503,
        "429 if the address has its fifth",
    ),
    _bound(
        "rewritten path",
        BOTH,
        "a path before and after the regular expression of its route",
        rewriting.REWRITTEN_BYTES_MAX,
        Unit.BYTES,
        "matching takes time linear in the path ([safe patterns](../edge/rewrites.md#safe-patterns))",
        414,
    ),
    _bound_by_setting(
        "head",
        "head",
        "a head without its blank line",
        Unit.BYTES,
        431,
        "RFC 6585 section 5. Over HTTP/2 the head that the fields become counts, with one Cookie of all crumbs (RFC "
        "9113 section 8.2.3). One field may take all of it",
    ),
    _bound_by_setting(
        "fields",
        "fields",
        "field lines of a head",
        Unit.FIELDS,
        431,
        "RFC 6585 section 5. Over HTTP/2 `:authority` counts as Host, the other pseudo-header fields do not count, and "
        "all crumbs of a Cookie count as one",
    ),
    _bound_by_setting(
        "trailer bytes", "head", "a trailer section without its blank line", Unit.BYTES, 431, "as a head"
    ),
    _bound_by_setting("trailer fields", "fields", "field lines of a trailer section", Unit.FIELDS, 431, "as a head"),
    _bound(
        "edges on the way",
        BOTH,
        "edges in Via, through which the request has come",
        grammar.PASSES_MAX,
        Unit.ITEMS,
        "more are a loop. A status from 500 on would have the edges before it eject each other",
        status=400,
    ),
    _bound(
        "digits of a length",
        BOTH,
        "digits of Content-Length",
        grammar.LENGTH_DIGITS_MAX,
        Unit.ITEMS,
        "larger numbers are the length of nothing (RFC 9110 section 8.6)",
        status=400,
        effect="over HTTP/2 the stream is reset with PROTOCOL_ERROR, as with any malformed request",
    ),
    _bound(
        "token",
        BOTH,
        "a JWT",
        token_verifier.TOKEN_BYTES_MAX,
        Unit.BYTES,
        "a signature over more is never checked",
        status=401,
    ),
)

BODIES: Final = (
    _bound_by_setting("body", "body", "a body", Unit.BYTES, 413, "bodies stream, so the default is any size"),
    _bound(
        "chunk line",
        (HTTP1,),
        "the line of a chunk: size and extensions",
        chunked.CHUNK_LINE_BYTES_MAX,
        Unit.BYTES,
        "RFC 9112 section 7.1.1. DATA frames of HTTP/2 have no such line",
        status=400,
        effect="the connection ends",
    ),
    _bound(
        "chunk extensions",
        (HTTP1,),
        f"chunk extensions of a body, beyond twice its content and {chunked.LINE_BYTES_FREE} bytes a chunk",
        chunked.EXCESS_BYTES_MAX,
        Unit.BYTES,
        "RFC 9112 section 7.1.1. HTTP/2 has none",
        status=400,
        effect="the connection ends",
    ),
)

TIMES: Final = (
    _bound_by_setting(
        "head time",
        "header_timeout",
        "the time for a whole head",
        Unit.SECONDS,
        408,
        "slow heads hold memory",
        f"over HTTP/2 a field block that takes longer keeps everything else out: {CALM}",
    ),
    _bound_by_setting(
        "body pause",
        "body_idle",
        "the time between two pieces of a body",
        Unit.SECONDS,
        408,
        "a slow client may hold a connection to its upstream",
        "in an answer the connection or stream is reset",
    ),
    _bound_by_setting(
        "body rate",
        "body_rate",
        "the least rate of a body of known length, and of an answer that is taken",
        Unit.BYTES_PER_SECOND,
        408,
        "one byte now and then would hold the upstream for ever",
        "in an answer the connection or stream is reset",
    ),
    _bound_by_setting(
        "idle connection",
        "keepalive_idle",
        "the time between two requests",
        Unit.SECONDS,
        None,
        "idle connections cost memory",
        "the connection closes; over HTTP/2 with a GOAWAY",
    ),
)

CONNECTIONS: Final = (
    _bound_by_setting(
        "held bytes",
        "held",
        "bytes held for all clients of a worker; an address and an HTTP/2 connection have half",
        Unit.BYTES,
        503,
        "[memory](bounds.md#memory)",
        "in an answer the connection or stream is reset",
    ),
    _bound_by_setting(
        "connections",
        "connections",
        "open connections of all workers",
        Unit.ITEMS,
        503,
        "descriptors and memory",
        "under TLS the connection closes",
    ),
    _bound_by_setting(
        "connections of an address",
        "connections_per_ip",
        "open connections of an address",
        Unit.ITEMS,
        429,
        "one address must not take all connections",
        "under TLS the connection closes",
    ),
    _bound(
        "read ahead",
        BOTH,
        "bytes that are read before the upstream takes them, or behind the request under way",
        client_input.READ_AHEAD_BYTES,
        Unit.BYTES,
        "memory",
        effect="the client is read no further until some of it was taken",
    ),
    Bound(
        "client pipelined requests",
        Reader.CLIENTS,
        (HTTP1,),
        "requests of a connection that are read before the current one is answered",
        get_default(Limits, "pipelined"),
        Unit.ITEMS,
        Side.CLIENT,
        "memory. HTTP/2 has streams",
        setting="limits.pipelined",
        effect="the client is read no further",
    ),
    _bound(
        "streams",
        (HTTP2,),
        "streams of a connection at a time",
        connection.STREAMS_MAX,
        Unit.ITEMS,
        "RFC 9113 section 5.1.2. HTTP/1.1 serves one request after another",
        effect="the stream is reset with REFUSED_STREAM",
    ),
    _bound(
        "handshake",
        (Protocol.TLS,),
        "bytes of a TLS handshake",
        acceptor.HANDSHAKE_BYTES_MAX,
        Unit.BYTES,
        "chains of client certificates cost CPU",
        effect="the connection closes",
    ),
    _bound(
        "empty records",
        (Protocol.TLS,),
        "records without content: updates of keys, padding",
        tls.EMPTY_BYTES_PER_SECOND,
        Unit.BYTES_PER_SECOND,
        "they cost CPU and carry nothing",
        effect="the connection closes",
    ),
)

FRAMES: Final = (
    _bound(
        "field block",
        (HTTP2,),
        "a field block, as a multiple of `limits.head`. A block below it that is longer than a head is 431",
        connection.BLOCK_EXCESS,
        Unit.ITEMS,
        "CVE-2024-27316: the table must know each block, so it is read to its end",
        effect=CALM,
    ),
    _bound(
        "continuations",
        (HTTP2,),
        f"CONTINUATION frames of a block, and one more for each {connection.CONTINUATION_BYTES} bytes",
        connection.CONTINUATIONS_MAX,
        Unit.ITEMS,
        "CVE-2024-27316",
        effect=CALM,
    ),
    _bound(
        "frame",
        (HTTP2,),
        "the payload of a frame",
        frames.FRAME_BYTES_MAX,
        Unit.BYTES,
        "RFC 9113 section 4.2, the default of SETTINGS_MAX_FRAME_SIZE",
        effect="the connection ends with FRAME_SIZE_ERROR",
    ),
    _bound(
        "settings",
        (HTTP2,),
        "settings in a frame",
        connection.SETTINGS_MAX,
        Unit.ITEMS,
        "RFC 9113 section 10.5",
        effect=CALM,
    ),
    _bound(
        "table",
        (HTTP2,),
        "the dynamic table of HPACK",
        hpack.TABLE_BYTES,
        Unit.BYTES,
        "RFC 7541 section 4.2",
        effect="the connection ends with COMPRESSION_ERROR",
    ),
    _bound(
        "table sizes",
        (HTTP2,),
        "changes of the table's size in a block",
        hpack.RESIZES_MAX,
        Unit.ITEMS,
        "RFC 7541 section 4.2",
        effect="the connection ends with COMPRESSION_ERROR",
    ),
    _bound(
        "body window",
        (HTTP2,),
        "bytes of a body that wait to be taken",
        sender.STREAM_WINDOW,
        Unit.BYTES,
        "RFC 9113 section 6.9. Over HTTP/1.1 the socket is read no further",
        effect="the stream is reset with FLOW_CONTROL_ERROR",
    ),
    _bound(
        "idle frames",
        (HTTP2,),
        f"frames without content beside ordinary use, and {2 * patience.SWEEP} a second",
        patience.PATIENCE_MAX,
        Unit.ITEMS,
        f"CVE-2019-9511 to 9518. A trusted proxy has {patience.TRUSTED_SCALE} times as many",
        effect=CALM,
    ),
    _bound(
        "resets",
        (HTTP2,),
        f"streams that either side resets, and {2 * patience.SWEEP // patience.RESET} a second; heads and trailers "
        "that are too large count as well",
        patience.PATIENCE_MAX // patience.RESET,
        Unit.ITEMS,
        f"CVE-2023-44487, CVE-2025-8671. A trusted proxy has {patience.TRUSTED_SCALE} times as many",
        effect=CALM,
    ),
    _bound(
        "unread answer",
        (HTTP2,),
        f"bytes of an answer that wait for a window; {SHARE} KiB beyond {HELD} MiB of the connection",
        http2_client.STREAM_BYTES_MAX,
        Unit.BYTES,
        "CVE-2019-9517",
        effect="the upstream of that stream is read no further",
    ),
    _bound(
        "unsent bytes",
        (HTTP2,),
        "bytes that the socket does not take",
        http2_client.UNSENT_BYTES_MAX,
        Unit.BYTES,
        "heads and answers to pings have no window",
        effect="the client is read no further",
    ),
)

TUNNELS: Final = (
    Bound(
        "tunnel silence",
        Reader.CLIENTS,
        (Protocol.WEBSOCKET,),
        "the silence of a WebSocket in both directions",
        get_default(Timeouts, "tunnel"),
        Unit.SECONDS,
        Side.EDGE,
        "a connection whose ends are gone holds memory and a place in `concurrency`",
        setting="upstreams.NAME.timeouts.tunnel",
        effect="both sides get a close frame (1001)",
    ),
    Bound(
        "tunnel close",
        Reader.CLIENTS,
        (Protocol.WEBSOCKET,),
        "the time for both sides to close once one has",
        tunnel.CLOSE_SECONDS,
        Unit.SECONDS,
        Side.EDGE,
        "frames and messages have no bound: they pass as they come",
        effect="the connections end",
    ),
)

CLIENTS: Final = (*HEADS, *BODIES, *TIMES, *CONNECTIONS, *FRAMES, *TUNNELS)
