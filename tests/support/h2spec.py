"""The cases of h2spec 2.6 (github.com/summerwind/h2spec, `--strict`) as a table, in its order and words.

Its cases about a socket's end are here about the end of the connection. If it lets an endpoint choose, the choice is in
the last column. Requests ask the upstream of load tests for five bytes.
"""

from edgeproxy.edge.http2 import huffman
from edgeproxy.edge.http2.errors import ErrorCode
from tests.edge.http2.peer import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITIZED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    Fields,
    block,
    data,
    frame,
    integer,
    literal,
    reset,
    settings,
    update,
    word,
)

E = ErrorCode
METHOD, SCHEME, PATH, AUTHORITY = (
    (b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/?size=5"), (b":authority", b"127.0.0.1:8080")
)  # fmt: skip
COMMON: Fields = [METHOD, SCHEME, PATH, AUTHORITY]
POST: Fields = [(b":method", b"POST"), SCHEME, PATH, AUTHORITY]
BLOCK = block(COMMON)
DUMMY = block([(b"x-dummy0", b"x" * 100)])
LENGTH = (b"content-length", b"1")


def head(number: int = 1, fields: Fields = COMMON, more: bytes = b"", *, flags: int = END_HEADERS) -> bytes:
    """A request without a body."""
    return frame(HEADERS, flags | END_STREAM, number, block(fields) + more)


def open_head(number: int = 1, fields: Fields = COMMON, *, flags: int = END_HEADERS) -> bytes:
    """A request with a body, or with more of its fields to come."""
    return frame(HEADERS, flags, number, block(fields))


def go_on(number: int, part: bytes, *, last: bool = True) -> bytes:
    return frame(CONTINUATION, END_HEADERS if last else 0, number, part)


def priority(number: int, depends: int = 0, weight: int = 255) -> bytes:
    return frame(PRIORITY, 0, number, word(depends) + bytes([weight]))


def packed(text: bytes) -> bytes:
    encoded = huffman.encode(text)
    return integer(len(encoded), 7, 0x80) + encoded


PINGED = frame(PING, 0, 0, b"h2spec\0\0")
ALL = ((1, 4096), (2, 0), (3, 100), (4, 65535), (5, 16384), (6, 100))
USER_AGENT = integer(58, 6, 0x40)
TRAILERS = block([(b"x-test", b"ok")])

Expected = tuple[str] | tuple[str, ErrorCode]
PONG, HEAD, DATA_OF_1, ACKNOWLEDGED = ("pong",), ("head",), ("data of 1 byte",), ("settings acknowledged",)


def ended(code: ErrorCode) -> Expected:
    return "connection error", code


def refused(code: ErrorCode) -> Expected:
    return "stream error", code


INVALID_PREFACE = "http2/3.5 Sends invalid connection preface"

CASES: list[tuple[str, bytes, Expected]] = [
    # ---- generic
    ("generic/1 Sends a client connection preface", b"", ACKNOWLEDGED),
    ("generic/2 Sends a PRIORITY frame on idle stream", priority(1) + PINGED, PONG),
    ("generic/2 Sends a WINDOW_UPDATE frame on half-closed (remote) stream",
     settings((4, 0)) + head() + update(1, 1), DATA_OF_1),
    ("generic/2 Sends a PRIORITY frame on half-closed (remote) stream",
     settings((4, 0)) + head() + priority(1) + update(1, 1), DATA_OF_1),
    ("generic/2 Sends a RST_STREAM frame on half-closed (remote) stream", head() + reset(1) + PINGED, PONG),
    ("generic/2 Sends a PRIORITY frame on closed stream", head() + priority(1) + PINGED, PONG),
    ("generic/3.1 Sends a DATA frame", open_head() + data(1, b"test", ended=True), HEAD),
    ("generic/3.1 Sends multiple DATA frames", open_head() + data(1, b"test") + data(1, b"test", ended=True), HEAD),
    ("generic/3.1 Sends a DATA frame with padding",
     open_head() + frame(DATA, END_STREAM | PADDED, 1, b"\x05test" + b"\0" * 5), HEAD),
    ("generic/3.2 Sends a HEADERS frame", head(), HEAD),
    ("generic/3.2 Sends a HEADERS frame with padding",
     frame(HEADERS, 5 | PADDED, 1, b"\x05" + BLOCK + b"\0" * 5), HEAD),
    ("generic/3.2 Sends a HEADERS frame with priority",
     frame(HEADERS, 5 | PRIORITIZED, 1, word(0) + b"\xff" + BLOCK), HEAD),
    ("generic/3.3 Sends a PRIORITY frame with priority 1", priority(1, weight=0) + head(), HEAD),
    ("generic/3.3 Sends a PRIORITY frame with priority 256", priority(1) + head(), HEAD),
    ("generic/3.3 Sends a PRIORITY frame with stream dependency", priority(3, 1) + head(), HEAD),
    ("generic/3.3 Sends a PRIORITY frame with exclusive", priority(1, 1 << 31) + head(), HEAD),
    ("generic/3.3 Sends a PRIORITY frame for an idle stream, then send a HEADER frame for a lower stream ID",
     priority(3) + head(), HEAD),
    ("generic/3.4 Sends a RST_STREAM frame", open_head() + reset(1) + PINGED, PONG),
    ("generic/3.5 Sends a SETTINGS frame", settings(*ALL), ACKNOWLEDGED),
    ("generic/3.7 Sends a PING frame", PINGED, PONG),
    ("generic/3.8 Sends a GOAWAY frame", frame(GOAWAY, 0, 0, word(0) + word(0) + b"h2spec") + PINGED, PONG),
    ("generic/3.9 Sends a WINDOW_UPDATE frame with stream ID 0", update(0, 1) + PINGED, PONG),
    ("generic/3.9 Sends a WINDOW_UPDATE frame with stream ID 1", head() + update(1, 1), HEAD),
    ("generic/3.10 Sends a CONTINUATION frame",
     frame(HEADERS, END_STREAM, 1, BLOCK[:5]) + go_on(1, BLOCK[5:]), HEAD),
    ("generic/3.10 Sends multiple CONTINUATION frames",
     frame(HEADERS, END_STREAM, 1, BLOCK[:5]) + go_on(1, BLOCK[5:10], last=False) + go_on(1, BLOCK[10:]), HEAD),
    ("generic/4 Sends a GET request", head(), HEAD),
    ("generic/4 Sends a HEAD request", head(1, [(b":method", b"HEAD"), SCHEME, PATH, AUTHORITY]), HEAD),
    ("generic/4 Sends a POST request", open_head(1, POST) + data(1, b"test", ended=True), HEAD),
    ("generic/4 Sends a POST request with trailers",
     open_head(1, [*POST, (b"trailer", b"x-test")]) + data(1, b"test") + frame(HEADERS, 5, 1, TRAILERS), HEAD),
    ("generic/5 Sends a indexed header field representation", frame(HEADERS, 5, 1, b"\x82\x86\x84\x01\x01a"), HEAD),
    ("generic/5 Sends a literal header field with incremental indexing - indexed name",
     head(more=USER_AGENT + b"\x05value"), HEAD),
    ("generic/5 Sends a literal header field with incremental indexing - indexed name (with Huffman coding)",
     head(more=USER_AGENT + packed(b"value")), HEAD),
    ("generic/5 Sends a literal header field with incremental indexing - new name",
     head(more=literal(b"x-test", b"value", 0x40)), HEAD),
    ("generic/5 Sends a literal header field with incremental indexing - new name (with Huffman coding)",
     head(more=b"\x40" + packed(b"x-test") + packed(b"value")), HEAD),
    ("generic/5 Sends a literal header field without indexing - indexed name",
     head(more=integer(58, 4) + b"\x05value"), HEAD),
    ("generic/5 Sends a literal header field without indexing - indexed name (with Huffman coding)",
     head(more=integer(58, 4) + packed(b"value")), HEAD),
    ("generic/5 Sends a literal header field without indexing - new name",
     head(more=literal(b"x-test", b"value")), HEAD),
    ("generic/5 Sends a literal header field without indexing - new name (huffman encoded)",
     head(more=b"\0" + packed(b"x-test") + packed(b"value")), HEAD),
    ("generic/5 Sends a literal header field never indexed - indexed name",
     head(more=integer(58, 4, 0x10) + b"\x05value"), HEAD),
    ("generic/5 Sends a literal header field never indexed - indexed name (huffman encoded)",
     head(more=integer(58, 4, 0x10) + packed(b"value")), HEAD),
    ("generic/5 Sends a literal header field never indexed - new name",
     head(more=literal(b"x-test", b"value", 0x10)), HEAD),
    ("generic/5 Sends a literal header field never indexed - new name (huffman encoded)",
     head(more=b"\x10" + packed(b"x-test") + packed(b"value")), HEAD),
    ("generic/5 Sends a dynamic table size update", frame(HEADERS, 5, 1, integer(128, 5, 0x20) + BLOCK), HEAD),
    ("generic/5 Sends multiple dynamic table size update",
     frame(HEADERS, 5, 1, integer(128, 5, 0x20) + integer(4096, 5, 0x20) + BLOCK), HEAD),
    # ---- http2
    ("http2/3.5 Sends client connection preface", b"", ACKNOWLEDGED),
    (INVALID_PREFACE, b"INVALID CONNECTION PREFACE\r\n\r\n", ended(E.PROTOCOL_ERROR)),
    ("http2/4.1 Sends a frame with unknown type", frame(0x16, 0, 0, b"\0" * 8) + PINGED, PONG),
    ("http2/4.1 Sends a frame with undefined flag", frame(PING, 0x16, 0, b"h2spec\0\0"), PONG),
    ("http2/4.1 Sends a frame with reserved field bit", frame(PING, 0x16, 1 << 31, b"h2spec\0\0"), PONG),
    ("http2/4.2 Sends a DATA frame with 2^14 octets in length",
     open_head() + data(1, b"x" * 16384, ended=True), HEAD),
    ("http2/4.2 Sends a large size DATA frame that exceeds the SETTINGS_MAX_FRAME_SIZE",
     open_head() + data(1, b"x" * 16385, ended=True), ended(E.FRAME_SIZE_ERROR)),
    ("http2/4.2 Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE",
     head(more=block([(b"x-dummy%d" % i, b"x" * 4096) for i in range(5)])), ended(E.FRAME_SIZE_ERROR)),
    ("http2/4.3 Sends invalid header block fragment",
     b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\x40", ended(E.COMPRESSION_ERROR)),
    ("http2/4.3 Sends a PRIORITY frame while sending the header blocks",
     open_head(flags=0) + priority(1) + go_on(1, DUMMY), ended(E.PROTOCOL_ERROR)),
    ("http2/4.3 Sends a HEADERS frame to another stream while sending the header blocks",
     open_head(flags=0) + head(3) + go_on(1, DUMMY), ended(E.PROTOCOL_ERROR)),
    ("http2/5.1 idle: Sends a DATA frame", data(1, b"test", ended=True), ended(E.PROTOCOL_ERROR)),
    ("http2/5.1 idle: Sends a RST_STREAM frame", reset(1), ended(E.PROTOCOL_ERROR)),
    ("http2/5.1 idle: Sends a WINDOW_UPDATE frame", update(1, 100), ended(E.PROTOCOL_ERROR)),
    ("http2/5.1 idle: Sends a CONTINUATION frame", go_on(1, BLOCK), ended(E.PROTOCOL_ERROR)),
    ("http2/5.1 half closed (remote): Sends a DATA frame",
     settings((4, 0)) + head() + data(1, b"test", ended=True), refused(E.STREAM_CLOSED)),
    ("http2/5.1 half closed (remote): Sends a HEADERS frame",
     settings((4, 0)) + head() + head(), refused(E.STREAM_CLOSED)),
    ("http2/5.1 half closed (remote): Sends a CONTINUATION frame", head() + go_on(1, BLOCK), ended(E.PROTOCOL_ERROR)),
    ("http2/5.1 closed: Sends a DATA frame after sending RST_STREAM frame",
     open_head() + reset(1) + data(1, b"test", ended=True), refused(E.STREAM_CLOSED)),
    ("http2/5.1 closed: Sends a HEADERS frame after sending RST_STREAM frame",
     open_head() + reset(1) + head(), ended(E.STREAM_CLOSED)),
    ("http2/5.1 closed: Sends a CONTINUATION frame after sending RST_STREAM frame",
     open_head() + reset(1) + go_on(1, DUMMY), ended(E.PROTOCOL_ERROR)),
    ("http2/5.1 closed: Sends a DATA frame", head() + data(1, b"test", ended=True), refused(E.STREAM_CLOSED)),
    ("http2/5.1 closed: Sends a HEADERS frame", head() + head(), ended(E.STREAM_CLOSED)),
    ("http2/5.1 closed: Sends a CONTINUATION frame", head() + go_on(1, DUMMY), ended(E.PROTOCOL_ERROR)),
    ("http2/5.1.1 Sends even-numbered stream identifier", head(2), ended(E.PROTOCOL_ERROR)),
    # Nobody remembers which streams were left out, and these are closed by then (section 5.1.1).
    ("http2/5.1.1 Sends stream identifier that is numerically smaller than previous",
     head(5) + head(3), ended(E.STREAM_CLOSED)),
    ("http2/5.1.2 Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded",
     settings((4, 0)) + b"".join(head(number) for number in range(1, 203, 2)), refused(E.REFUSED_STREAM)),
    ("http2/5.3.1 Sends HEADERS frame that depends on itself",
     frame(HEADERS, 5 | PRIORITIZED, 1, word(1) + b"\xff" + BLOCK), ended(E.PROTOCOL_ERROR)),
    ("http2/5.3.1 Sends PRIORITY frame that depend on itself", priority(2, 2), ended(E.PROTOCOL_ERROR)),
    ("http2/5.4.1 Sends an invalid PING frame for connection close",
     frame(PING, 0, 3, b"\0" * 8), ended(E.PROTOCOL_ERROR)),
    ("http2/5.4.1 Sends an invalid PING frame to receive GOAWAY frame",
     frame(PING, 0, 3, b"\0" * 8), ended(E.PROTOCOL_ERROR)),
    ("http2/5.5 Sends an unknown extension frame", frame(0x16, 0, 0, b"\0" * 8) + PINGED, PONG),
    ("http2/5.5 Sends an unknown extension frame in the middle of a header block",
     head(flags=0) + frame(0x16, 0, 0, b"\0" * 8), ended(E.PROTOCOL_ERROR)),
    ("http2/6.1 Sends a DATA frame with 0x0 stream identifier", data(0, b"test", ended=True), ended(E.PROTOCOL_ERROR)),
    ('http2/6.1 Sends a DATA frame on the stream that is not in "open" or "half-closed (local)" state',
     settings((4, 0)) + head() + data(1, b"test", ended=True), refused(E.STREAM_CLOSED)),
    ("http2/6.1 Sends a DATA frame with invalid pad length",
     open_head(1, [*POST, (b"content-length", b"4")]) + frame(DATA, 9, 1, b"\x06\x54\x65\x73\x74"),
     ended(E.PROTOCOL_ERROR)),
    ("http2/6.2 Sends a HEADERS frame without the END_HEADERS flag, and a PRIORITY frame",
     open_head(flags=0) + priority(1) + go_on(1, DUMMY), ended(E.PROTOCOL_ERROR)),
    ("http2/6.2 Sends a HEADERS frame to another stream while sending a HEADERS frame",
     open_head(flags=0) + head(3) + go_on(1, DUMMY), ended(E.PROTOCOL_ERROR)),
    ("http2/6.2 Sends a HEADERS frame with 0x0 stream identifier", head(0), ended(E.PROTOCOL_ERROR)),
    ("http2/6.2 Sends a HEADERS frame with invalid pad length",
     frame(HEADERS, 5 | PADDED, 1, bytes([len(BLOCK) + 2]) + BLOCK), ended(E.PROTOCOL_ERROR)),
    ("http2/6.3 Sends a PRIORITY frame with 0x0 stream identifier", priority(0), ended(E.PROTOCOL_ERROR)),
    ("http2/6.3 Sends a PRIORITY frame with a length other than 5 octets",
     head() + frame(PRIORITY, 0, 1, b"\x80\x00\x00\x01"), refused(E.FRAME_SIZE_ERROR)),
    ("http2/6.4 Sends a RST_STREAM frame with 0x0 stream identifier", reset(0), ended(E.PROTOCOL_ERROR)),
    ("http2/6.4 Sends a RST_STREAM frame on a idle stream", reset(1), ended(E.PROTOCOL_ERROR)),
    ("http2/6.4 Sends a RST_STREAM frame with a length other than 4 octets",
     head() + frame(RST_STREAM, 0, 1, b"\0\0\0"), ended(E.FRAME_SIZE_ERROR)),
    ("http2/6.5 Sends a SETTINGS frame with ACK flag and payload",
     frame(SETTINGS, ACK, 0, b"\0"), ended(E.FRAME_SIZE_ERROR)),
    ("http2/6.5 Sends a SETTINGS frame with a stream identifier other than 0x0",
     settings((3, 100), number=1), ended(E.PROTOCOL_ERROR)),
    ("http2/6.5 Sends a SETTINGS frame with a length other than a multiple of 6 octets",
     frame(SETTINGS, 0, 0, b"\0\x03\0"), ended(E.FRAME_SIZE_ERROR)),
    ("http2/6.5.2 SETTINGS_ENABLE_PUSH (0x2): Sends the value other than 0 or 1",
     settings((2, 2)), ended(E.PROTOCOL_ERROR)),
    ("http2/6.5.2 SETTINGS_INITIAL_WINDOW_SIZE (0x4): Sends the value above the maximum flow control window size",
     settings((4, 1 << 31)), ended(E.FLOW_CONTROL_ERROR)),
    ("http2/6.5.2 SETTINGS_MAX_FRAME_SIZE (0x5): Sends the value below the initial value",
     settings((5, 16383)), ended(E.PROTOCOL_ERROR)),
    ("http2/6.5.2 SETTINGS_MAX_FRAME_SIZE (0x5): Sends the value above the maximum allowed frame size",
     settings((5, 16777216)), ended(E.PROTOCOL_ERROR)),
    ("http2/6.5.2 Sends a SETTINGS frame with unknown identifier", settings((0xFF, 1)) + PINGED, PONG),
    ("http2/6.5.3 Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE",
     settings((4, 100), (4, 1)) + head(), DATA_OF_1),
    ("http2/6.5.3 Sends a SETTINGS frame without ACK flag", settings((2, 0)), ACKNOWLEDGED),
    ("http2/6.7 Sends a PING frame", PINGED, PONG),
    ("http2/6.7 Sends a PING frame with ACK", frame(PING, ACK, 0, b"invalid\0") + PINGED, PONG),
    ("http2/6.7 Sends a PING frame with a stream identifier field value other than 0x0",
     frame(PING, 0, 1, b"\0" * 8), ended(E.PROTOCOL_ERROR)),
    ("http2/6.7 Sends a PING frame with a length field value other than 8",
     frame(PING, 0, 0, b"\0" * 6), ended(E.FRAME_SIZE_ERROR)),
    ("http2/6.8 Sends a GOAWAY frame with a stream identifier other than 0x0",
     frame(GOAWAY, 0, 1, b"\0" * 8), ended(E.PROTOCOL_ERROR)),
    ("http2/6.9 Sends a WINDOW_UPDATE frame with a flow control window increment of 0",
     update(0, 0), ended(E.PROTOCOL_ERROR)),
    ("http2/6.9 Sends a WINDOW_UPDATE frame with a flow control window increment of 0 on a stream",
     open_head() + update(1, 0), refused(E.PROTOCOL_ERROR)),
    ("http2/6.9 Sends a WINDOW_UPDATE frame with a length other than 4 octets",
     b"\x00\x00\x03\x08\x00\x00\x00\x00\x00\x00\x00\x01", ended(E.FRAME_SIZE_ERROR)),
    ("http2/6.9.1 Sends SETTINGS frame to set the initial window size to 1 and sends HEADERS frame",
     settings((4, 1)) + head(), DATA_OF_1),
    ("http2/6.9.1 Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1",
     update(0, (1 << 31) - 1) * 2, ended(E.FLOW_CONTROL_ERROR)),
    ("http2/6.9.1 Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream",
     open_head() + update(1, (1 << 31) - 1) * 2, refused(E.FLOW_CONTROL_ERROR)),
    ("http2/6.9.2 Changes SETTINGS_INITIAL_WINDOW_SIZE after sending HEADERS frame",
     settings((4, 0)) + head() + settings((4, 1)), DATA_OF_1),
    ("http2/6.9.2 Sends a SETTINGS frame for window size to be negative",
     settings((4, 3)) + head() + settings((4, 2)) + update(1, 2), DATA_OF_1),
    ("http2/6.9.2 Sends a SETTINGS_INITIAL_WINDOW_SIZE settings with an exceeded maximum window size value",
     settings((4, 1 << 31)), ended(E.FLOW_CONTROL_ERROR)),
    ("http2/6.10 Sends multiple CONTINUATION frames preceded by a HEADERS frame",
     head(flags=0) + go_on(1, DUMMY, last=False) + go_on(1, DUMMY), HEAD),
    ("http2/6.10 Sends a CONTINUATION frame followed by any frame other than CONTINUATION",
     open_head(flags=0) + go_on(1, DUMMY, last=False) + data(1, b"test", ended=True), ended(E.PROTOCOL_ERROR)),
    ("http2/6.10 Sends a CONTINUATION frame with 0x0 stream identifier",
     head(flags=0) + go_on(0, DUMMY), ended(E.PROTOCOL_ERROR)),
    ("http2/6.10 Sends a CONTINUATION frame preceded by a HEADERS frame with END_HEADERS flag",
     head() + go_on(1, DUMMY), ended(E.PROTOCOL_ERROR)),
    ("http2/6.10 Sends a CONTINUATION frame preceded by a CONTINUATION frame with END_HEADERS flag",
     head(flags=0) + go_on(1, DUMMY) + go_on(1, DUMMY), ended(E.PROTOCOL_ERROR)),
    ("http2/6.10 Sends a CONTINUATION frame preceded by a DATA frame",
     open_head(flags=0) + data(1, b"test", ended=True) + go_on(1, DUMMY, last=False), ended(E.PROTOCOL_ERROR)),
    ("http2/7 Sends a GOAWAY frame with unknown error code",
     frame(GOAWAY, 0, 0, word(0) + word(0xFF)) + PINGED, PONG),
    ("http2/7 Sends a RST_STREAM frame with unknown error code", open_head() + reset(1, 0xFF) + PINGED, PONG),
    ("http2/8.1 Sends a second HEADERS frame without the END_STREAM flag",
     open_head() + data(1, b"test") + frame(HEADERS, END_HEADERS, 1, TRAILERS), refused(E.PROTOCOL_ERROR)),
    ("http2/8.1.2 Sends a HEADERS frame that contains the header field name in uppercase letters",
     head(1, [*COMMON, (b"X-TEST", b"ok")]), refused(E.PROTOCOL_ERROR)),
    ("http2/8.1.2.1 Sends a HEADERS frame that contains a unknown pseudo-header field",
     head(1, [*COMMON, (b":test", b"ok")]), refused(E.PROTOCOL_ERROR)),
    ("http2/8.1.2.1 Sends a HEADERS frame that contains the pseudo-header field defined for response",
     head(1, [*COMMON, (b":status", b"200")]), refused(E.PROTOCOL_ERROR)),
    ("http2/8.1.2.1 Sends a HEADERS frame that contains a pseudo-header field as trailers",
     open_head() + data(1, b"test") + head(1, [METHOD]), refused(E.PROTOCOL_ERROR)),
    ("http2/8.1.2.1 Sends a HEADERS frame that contains a pseudo-header field that appears in a header block after a "
     "regular header field", head(1, [(b"x-test", b"ok"), *COMMON]), refused(E.PROTOCOL_ERROR)),
    ("http2/8.1.2.2 Sends a HEADERS frame that contains the connection-specific header field",
     head(1, [*COMMON, (b"connection", b"keep-alive")]), refused(E.PROTOCOL_ERROR)),
    ('http2/8.1.2.2 Sends a HEADERS frame that contains the TE header field with any value other than "trailers"',
     head(1, [*COMMON, (b"trailers", b"test"), (b"te", b"trailers, deflate")]), refused(E.PROTOCOL_ERROR)),
    ('http2/8.1.2.3 Sends a HEADERS frame with empty ":path" pseudo-header field',
     head(1, [METHOD, SCHEME, (b":path", b""), AUTHORITY]), refused(E.PROTOCOL_ERROR)),
    ('http2/8.1.2.3 Sends a HEADERS frame that omits ":method" pseudo-header field',
     head(1, COMMON[1:]), refused(E.PROTOCOL_ERROR)),
    ('http2/8.1.2.3 Sends a HEADERS frame that omits ":scheme" pseudo-header field',
     head(1, [METHOD, PATH, AUTHORITY]), refused(E.PROTOCOL_ERROR)),
    ('http2/8.1.2.3 Sends a HEADERS frame that omits ":path" pseudo-header field',
     head(1, [METHOD, SCHEME, AUTHORITY]), refused(E.PROTOCOL_ERROR)),
    ('http2/8.1.2.3 Sends a HEADERS frame with duplicated ":method" pseudo-header field',
     head(1, [*COMMON, METHOD]), refused(E.PROTOCOL_ERROR)),
    ('http2/8.1.2.3 Sends a HEADERS frame with duplicated ":scheme" pseudo-header field',
     head(1, [*COMMON, SCHEME]), refused(E.PROTOCOL_ERROR)),
    ('http2/8.1.2.3 Sends a HEADERS frame with duplicated ":path" pseudo-header field',
     head(1, [*COMMON, PATH]), refused(E.PROTOCOL_ERROR)),
    ('http2/8.1.2.6 Sends a HEADERS frame with the "content-length" header field which does not equal the DATA frame '
     "payload length", open_head(1, [*POST, LENGTH]) + data(1, b"test", ended=True), refused(E.PROTOCOL_ERROR)),
    ('http2/8.1.2.6 Sends a HEADERS frame with the "content-length" header field which does not equal the sum of the '
     "multiple DATA frames payload length",
     open_head(1, [*POST, LENGTH]) + data(1, b"test") + data(1, b"test", ended=True), refused(E.PROTOCOL_ERROR)),
    ("http2/8.2 Sends a PUSH_PROMISE frame",
     open_head() + frame(PUSH_PROMISE, END_HEADERS, 1, word(3) + BLOCK), ended(E.PROTOCOL_ERROR)),
    # ---- hpack
    ("hpack/2.3.3 Sends a indexed header field representation with invalid index",
     head(more=integer(70, 7, 0x80)), ended(E.COMPRESSION_ERROR)),
    ("hpack/2.3.3 Sends a literal header field representation with invalid index",
     head(more=integer(70, 6, 0x40) + b"\x05empty"), ended(E.COMPRESSION_ERROR)),
    ("hpack/4.2 Sends a dynamic table size update at the end of header block",
     head(more=b"\x21"), ended(E.COMPRESSION_ERROR)),
    ("hpack/5.2 Sends a Huffman-encoded string literal representation with padding longer than 7 bits",
     head(more=b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"), ended(E.COMPRESSION_ERROR)),
    ("hpack/5.2 Sends a Huffman-encoded string literal representation padded by zero",
     head(more=b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"), ended(E.COMPRESSION_ERROR)),
    ("hpack/5.2 Sends a Huffman-encoded string literal representation containing the EOS symbol",
     head(more=b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f"), ended(E.COMPRESSION_ERROR)),
    ("hpack/6.1 Sends a indexed header field representation with index 0",
     head(more=b"\x80"), ended(E.COMPRESSION_ERROR)),
    ("hpack/6.3 Sends a dynamic table size update larger than the value of SETTINGS_HEADER_TABLE_SIZE",
     frame(HEADERS, 5, 1, integer(4097, 5, 0x20) + BLOCK), ended(E.COMPRESSION_ERROR)),
]  # fmt: skip
