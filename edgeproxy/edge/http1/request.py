"""The meaning of a request's field lines together, and which of them are forwarded.

Two readers follow one set of rules. `read_fields` is the quick one: a look-up per line, for heads without anything
unusual. If it meets anything else, `read_head` reads the whole block, by every rule. If both can read a block they
agree (tests/edge/http1/test_request.py checks this).
"""

from itertools import filterfalse
from typing import Final

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1 import grammar
from edgeproxy.edge.http1.fields import PROTECTED_FIELDS, FieldKind
from edgeproxy.edge.http1.grammar import TraceParent
from edgeproxy.edge.http1.keys import read_keys
from edgeproxy.edge.http1.lines import PASSED, REQUESTS, Field, RequestLines
from edgeproxy.edge.http1.request_line import RequestLine

FIELDS_MAX: Final = grammar.LIMITS.fields


class RequestHead:
    """The meaning of a block of request field lines: a pure function of its bytes, `trusted` and the version's minor.

    An attribute that a request says nothing about keeps the value that it has here.
    """

    plain: bool = True
    """Nothing is unusual: host, key, length and trace say everything, and the head need not be looked at."""
    keep: bytes = b""
    """The lines to forward, each with its CRLF: without stamps, hop-by-hop fields and keys, with Host, Via continued,
    X-Forwarded-Host, and tracestate only beside a valid traceparent.
    """
    credentials: bytes = b""
    """The lines with keys, and Proxy-Authorization, each with its CRLF, for upstreams that may see them."""
    unkeyed: bytes = b""
    """The lines that replace `credentials` for all other upstreams: the rest of a cookie or a subprotocol with a
    key.
    """
    authority: bytes | None = None
    """Host in its sent spelling."""
    host: bytes | None = None
    """The host for routing: in lower case without port and trailing dot; None without Host."""
    key: bytes | None = None
    """The API key, from the first place that has one (keys.py); empty if only the place for it exists."""
    length: int = 0
    """Content-Length in bytes; 0 if it is absent."""
    has_length: bool = False
    chunked: bool = False
    close: bool = False
    """Connection: close."""
    keep_alive: bool = False
    """Connection: keep-alive, which matters for HTTP/1.0 only."""
    upgrade: tuple[bytes, ...] = ()
    """The protocols that the client offers to switch to, in lower case. They are not in `keep`: the route says which of
    them are allowed.
    """
    expect: bool = False
    """Expect: 100-continue."""
    trailers: bool = False
    """TE: trailers: the client wants trailer fields."""
    forwards: int | None = None
    """Max-Forwards, which is not in `keep` then; None if it is absent or no number. RFC 9110 section 7.6.2: OPTIONS is
    forwarded with one less, and not at all with 0.
    """
    trace: TraceParent | None = None
    """The parts of a valid traceparent."""
    request_id: bytes | None = None
    """X-Request-Id of a trusted peer, if it is 1 to 128 visible characters."""
    forwarded_for: bytes | None = None
    """X-Forwarded-For of a trusted peer, all its lines joined with ", "; the two below alike."""
    forwarded_proto: bytes | None = None
    forwarded_host: bytes | None = None


HOST, BEARER, API_KEY, LENGTH = FieldKind.HOST, FieldKind.BEARER, FieldKind.API_KEY, FieldKind.LENGTH
TRACEPARENT, ORIGIN = FieldKind.TRACEPARENT, FieldKind.ORIGIN
IN_PLACE: Final = frozenset((FieldKind.PASS, HOST, LENGTH, FieldKind.CREDENTIALS))
"""Kinds whose lines are forwarded, in their place, whatever their sender."""

CONNECTION_OPTIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))
"""Connection options that name no field to be removed, or one that is not forwarded anyway."""

PLAIN: Final = RequestHead()
"""The head of every block without anything unusual. It holds no host, key or lines of its own."""

RequestFields = tuple[bytes | None, bytes | None, bytes, bytes, int, TraceParent | None, RequestHead]
"""(host, key, credentials, keep, length, trace, head), each as RequestHead describes it; head is PLAIN or all of it."""


def read_fields(
    block: bytes, trusted: bool = False, most: int = FIELDS_MAX, request_lines: RequestLines = REQUESTS
) -> RequestFields:
    """Read the field lines of an HTTP/1.1 request.

    `block` is the lines, each with its CRLF, without the blank line. `trusted` says that the peer is a proxy whose word
    counts. `request_lines` has the rules of the configuration. The result depends on nothing else, so it may be
    remembered by the block's bytes. A missing Host is not refused here, as HTTP/1.0 has none: `host` is None and the
    head not plain, see `check_host`.

    Raises RejectedError: 400 malformed or ambiguous, 417, 431 more than `most` lines, 501 unknown transfer coding.
    """
    plain = None if trusted else read_plain_fields(block, most, request_lines)
    return _read_with_every_rule(block, trusted, most, request_lines) if plain is None else plain


def read_plain_fields(
    block: bytes, most: int = FIELDS_MAX, request_lines: RequestLines = REQUESTS
) -> RequestFields | None:
    """Read the field lines of an HTTP/1.1 request without anything unusual, so that no line changes the meaning of
    another; None for any other request. This is the quick part of `read_fields`: see there for arguments and raised
    errors. It is longer than a screen, as each call in the loop would cost every new head.
    """
    lines = block.split(b"\r\n")
    lines.pop()
    if len(lines) > most:
        raise RejectedError(431, "Too many header fields")
    host: Field | None = None
    key: bytes | None = None
    length: int | None = None
    trace: TraceParent | None = None
    credentials = b""
    dropped: list[bytes] = []
    # The price of every head not seen before: one look-up a line, and most lines pass unchanged.
    for line in filterfalse(request_lines.passes, lines):
        field = request_lines.recall(line) or request_lines.parse_field(line)
        if field is PASSED:
            continue
        kind = field.kind
        if kind is HOST and host is None:
            host = field
        elif (kind is BEARER or kind is API_KEY) and key is None:
            key = field.value
            credentials = field.tail
            dropped.append(line)
        elif field.dropped:
            dropped.append(line)
        elif kind is LENGTH and length is None:
            length = field.length
            if line != field.line:
                lines[lines.index(line)] = field.line
        elif kind is TRACEPARENT and trace is None and field.trace is not None:
            trace = field.trace
            dropped.append(line)
        else:
            host = None
            break
    if host is None:
        return None
    at = 0
    for line in dropped:
        at = lines.index(line, at)  # In their order: earlier lines have been looked at.
        del lines[at]
    lines.append(host.tail)
    return host.host, key, credentials, b"\r\n".join(lines), length or 0, trace, PLAIN


def _read_with_every_rule(block: bytes, trusted: bool, most: int, request_lines: RequestLines) -> RequestFields:
    head = read_head(block, trusted, most, request_lines=request_lines)
    shown = PLAIN if head.plain else head
    return head.host, head.key, head.credentials, head.keep, head.length, head.trace, shown


def read_head(
    block: bytes, trusted: bool = False, most: int = FIELDS_MAX, minor: int = 1, request_lines: RequestLines = REQUESTS
) -> RequestHead:
    """Read the field lines of a request by every rule; HTTP/1.0 (`minor` 0) has some of its own.

    For arguments and raised errors see `read_fields`; also 400 for Transfer-Encoding in HTTP/1.0.
    """
    keep, by_kind = _sort_lines(block, trusted, most, request_lines)
    head = RequestHead()
    _read_host(head, by_kind)
    _read_framing(head, by_kind, minor)
    connection_names = _read_connection(head, by_kind, minor)
    if connection_names:
        connection_names = {name for name in connection_names if request_lines.names[name] is not ORIGIN}
        keep = [line for line in keep if grammar.parse_field_name(line) not in connection_names]
    keep += _read_key(head, by_kind, connection_names, request_lines)
    _read_expectation(head, by_kind, minor)
    if b"max-forwards" not in connection_names and not _read_forwards(head, by_kind):
        keep += [field.line for field in by_kind.get(FieldKind.MAX_FORWARDS, ())]
    if _read_trace(head, by_kind):
        keep += [field.line for field in by_kind.get(FieldKind.TRACESTATE, ())]
    if trusted:
        _read_peer(head, by_kind)
    keep += _format_own_lines(head, by_kind, minor)
    head.keep = b"\r\n".join(keep)
    head.plain = head.plain and head.host is not None
    return head


FieldsByKind = dict[FieldKind, list[Field]]
"""The lines that are more than passed on, by kind, in their order."""


def _sort_lines(
    block: bytes, trusted: bool, most: int, request_lines: RequestLines
) -> tuple[list[bytes], FieldsByKind]:
    """Return the lines that are forwarded in their place, and the lines that are more than passed on, by kind."""
    lines = block.split(b"\r\n")
    lines.pop()
    if len(lines) > most:
        raise RejectedError(431, "Too many header fields")
    keep: list[bytes] = []
    by_kind: FieldsByKind = {}
    for line in lines:
        field = PASSED if request_lines.passes(line) else request_lines.recall(line) or request_lines.parse_field(line)
        if field is PASSED:
            keep.append(line)
            continue
        kind = field.kind
        by_kind.setdefault(kind, []).append(field)
        if kind in IN_PLACE or (trusted and kind is ORIGIN):
            keep.append(field.line)
    return keep, by_kind


def _get_single(by_kind: FieldsByKind, name: str, kind: FieldKind) -> Field | None:
    """Return the one field of this kind, None if it is absent; raises RejectedError if it is repeated."""
    fields = by_kind.get(kind)
    if fields is None:
        return None
    # Two readers could choose different lines, so the edge chooses none (RFC 9110 section 5.3).
    if len(fields) > 1:
        raise RejectedError(400, f"{name} is repeated")
    return fields[0]


def _collect_members(by_kind: FieldsByKind, kind: FieldKind) -> set[bytes]:
    """Return the members of all the lists of this kind, in lower case."""
    return {member for field in by_kind.get(kind, ()) for member in grammar.parse_list(field.value)}


def _read_host(head: RequestHead, by_kind: FieldsByKind) -> None:
    """Read Host, which may appear once (RFC 9112 section 3.2)."""
    field = _get_single(by_kind, "Host", HOST)
    if field is not None:
        head.authority, head.host = field.value, field.host


def _read_framing(head: RequestHead, by_kind: FieldsByKind, minor: int) -> None:
    """Find the end of the body (RFC 9112 sections 6.1 to 6.3), and refuse heads that two readers could take
    differently.
    """
    length = _get_single(by_kind, "Content-Length", LENGTH)
    coding = _get_single(by_kind, "Transfer-Encoding", FieldKind.CODING)
    if length is not None:
        head.length, head.has_length = length.length, True
    if coding is None:
        return
    if length is not None:
        # RFC 9112 section 6.3: such a message may be an attempt to smuggle a request.
        raise RejectedError(400, "Content-Length stands beside Transfer-Encoding")
    if minor == 0:
        # RFC 9112 section 6.1: the framing of such a message is faulty.
        raise RejectedError(400, "HTTP/1.0 has no Transfer-Encoding")
    if coding.value.lower() != b"chunked":
        if b"chunked" in grammar.parse_list(coding.value)[:-1]:  # RFC 9112 sections 6.1 and 6.3
            raise RejectedError(400, "The transfer coding chunked is not the last one, or there twice")
        # RFC 9112 section 6.1 asks for this status.
        raise RejectedError(501, "The only transfer coding known here is chunked")
    head.chunked, head.plain = True, False


def _read_key(
    head: RequestHead, by_kind: FieldsByKind, connection_names: set[bytes], request_lines: RequestLines
) -> list[bytes]:
    """Read the key, and the lines without it; return the lines of fields that hold no key for the edge: they are
    forwarded.
    """
    bearer = _get_single(by_kind, "Authorization", BEARER)
    other = _get_single(by_kind, "Authorization", FieldKind.CREDENTIALS)
    if bearer is not None and other is not None:
        raise RejectedError(400, "Authorization is repeated")
    carried = read_keys(by_kind, connection_names, request_lines.rules)
    head.key, head.credentials, head.unkeyed = carried.key, carried.credentials, carried.unkeyed
    head.plain = head.plain and not carried.unkeyed
    if b"proxy-authorization" not in connection_names:
        head.credentials += b"".join([field.tail for field in by_kind.get(FieldKind.PROXY_CREDENTIALS, ())])
    return carried.others


def _read_connection(head: RequestHead, by_kind: FieldsByKind, minor: int) -> set[bytes]:
    """Read the options for this connection only: RFC 9112 section 9.3, RFC 9110 sections 10.1.4 (TE) and 7.8 (Upgrade).

    Returns the names of the fields that are removed because Connection names them (section 7.6.1).
    """
    fields = by_kind.get(FieldKind.CONNECTION)
    if fields is None:
        return NOTHING
    if len(fields) == 1 and fields[0].dropped:
        head.keep_alive = True
        return NOTHING
    options = _collect_members(by_kind, FieldKind.CONNECTION)
    head.close = b"close" in options
    head.keep_alive = b"keep-alive" in options
    # A client that wants trailers also names TE in Connection (RFC 9110 section 10.1.4).
    head.trailers = b"te" in options and b"trailers" in _collect_members(by_kind, FieldKind.TE)
    # With a body, the beginning of the tunnel would be a matter of opinion. No WebSocket handshake has one (RFC 6455
    # section 4.1), and HTTP/1.0 knows no upgrade.
    if b"upgrade" in options and minor and not head.chunked and not head.length:
        offered = [member for field in by_kind.get(FieldKind.UPGRADE, ()) for member in grammar.parse_list(field.value)]
        head.upgrade = tuple(dict.fromkeys(offered))
    if head.close or head.trailers or head.upgrade:
        head.plain = False
    return options - CONNECTION_OPTIONS - PROTECTED_FIELDS


NOTHING: Final[set[bytes]] = set()


def _read_expectation(head: RequestHead, by_kind: FieldsByKind, minor: int) -> None:
    """Read Expect (RFC 9110 section 10.1.1); HTTP/1.0 does not know it."""
    if not minor or FieldKind.EXPECT not in by_kind:
        return
    expectations = _collect_members(by_kind, FieldKind.EXPECT)
    if expectations - {b"100-continue"}:
        raise RejectedError(417, "The only expectation that can be met is 100-continue")
    if expectations:
        head.expect, head.plain = True, False


def _read_forwards(head: RequestHead, by_kind: FieldsByKind) -> bool:
    """Read Max-Forwards (RFC 9110 section 7.6.2); return whether it is there with a number in it."""
    fields = by_kind.get(FieldKind.MAX_FORWARDS, ())
    if len(fields) != 1 or not fields[0].value.isdigit():
        return False
    # A number with more digits than 63 bits hold is cut to its first digits: it may be made less.
    head.forwards, head.plain = int(fields[0].value.lstrip(b"0")[:DIGITS_MAX] or b"0"), False
    return True


DIGITS_MAX: Final = 18


def _read_trace(head: RequestHead, by_kind: FieldsByKind) -> bool:
    """Read the trace (W3C Trace Context sections 3.2 and 3.3); return whether the request has one valid traceparent,
    which tracestate needs.
    """
    parents = by_kind.get(TRACEPARENT)
    if parents is None or len(parents) > 1:
        return False
    head.trace = parents[0].trace
    return head.trace is not None


def _read_peer(head: RequestHead, by_kind: FieldsByKind) -> None:
    """Read a trusted proxy's fields about the request that it received."""
    if PEER_KINDS.isdisjoint(by_kind):
        return
    head.plain = False
    head.forwarded_for = _join_values(by_kind, FieldKind.FORWARDED_FOR)
    head.forwarded_proto = _join_values(by_kind, FieldKind.FORWARDED_PROTO)
    head.forwarded_host = _join_values(by_kind, FieldKind.FORWARDED_HOST)
    ids = by_kind.get(FieldKind.REQUEST_ID)
    if ids is not None and len(ids) == 1 and grammar.REQUEST_ID.fullmatch(ids[0].value):
        head.request_id = ids[0].value


PEER_KINDS: Final = frozenset(
    (FieldKind.FORWARDED_FOR, FieldKind.FORWARDED_PROTO, FieldKind.FORWARDED_HOST, FieldKind.REQUEST_ID),
)


def _join_values(by_kind: FieldsByKind, kind: FieldKind) -> bytes | None:
    fields = by_kind.get(kind)
    return None if fields is None else b", ".join([field.value for field in fields])


def _format_own_lines(head: RequestHead, by_kind: FieldsByKind, minor: int) -> list[bytes]:
    """Format the lines that the edge writes itself, the last one with its CRLF. Raises RejectedError(400) in a loop."""
    lines = []
    if head.chunked:
        lines.append(b"Transfer-Encoding: chunked")
    if head.expect:
        lines.append(b"Expect: 100-continue")
    host = head.authority if head.forwarded_host is None else head.forwarded_host
    if host is not None:
        lines.append(b"X-Forwarded-Host: " + host)
    # Via tracks the hops of a message, so that loops end (RFC 9110 section 7.6.3). Its version is that of the request
    # as it was received, so HTTP/1.0 stays 1.0 here.
    stations = b"".join([field.value + b", " for field in by_kind.get(FieldKind.VIA, ()) if field.value])
    if stations.count(b" edgeproxy, ") >= grammar.PASSES_MAX:
        raise RejectedError(400, "The request went from edge to edge too often: their upstreams lead to each other")
    lines.append(b"Via: %b1.%d edgeproxy\r\n" % (stations, minor))
    return lines


def check_host(line: RequestLine, head: RequestHead) -> tuple[bytes | None, bytes]:
    """Return (host, lines): the host for routing, and the known Host lines that `keep` lacks.

    These are the rules that need both the request line and the fields (RFC 9112 sections 3.2 and 3.2.2). HTTP/1.0 may
    name no host at all: then `host` is None, and the caller decides which Host the upstream sees. Raises
    RejectedError(400) if HTTP/1.1 has no Host, or if an absolute-form target names another host than Host does.
    """
    if head.authority is None and line.version == (1, 1):
        raise RejectedError(400, "Host is missing")
    if line.authority is None:
        return head.host, b""
    if head.authority is None:
        lines = b"Host: %b\r\nX-Forwarded-Host: %b\r\n" % (line.authority, line.authority)
        return grammar.parse_host(line.authority), lines
    # RFC 9112 section 3.2.2 has the target replace Host. A reader behind the edge may take Host, so both must agree.
    if _normalize_authority(line.authority, line.scheme) != _normalize_authority(head.authority, line.scheme):
        raise RejectedError(400, "The request target names another host than Host does")
    return head.host, b""


def _normalize_authority(authority: bytes, scheme: bytes | None) -> bytes:
    # An authority with the default port, or an empty one, is equal to one without a port (RFC 3986 section 6.2.3).
    port = b":443" if scheme == b"https" else b":80"
    return authority.lower().removesuffix(port).removesuffix(b":")
