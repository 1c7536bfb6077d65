"""Reading a request's field lines: their meaning together, and the lines that the edge forwards."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config.edge.rules import UNSEEN_FIELDS
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1 import lines
from edgeproxy.edge.http1.field_values import find_values
from edgeproxy.edge.http1.fields import FieldRules
from edgeproxy.edge.http1.lines import RequestLines
from edgeproxy.edge.http1.message import format_upgrade
from edgeproxy.edge.http1.request import PLAIN, RequestHead, check_host, read_fields, read_head
from edgeproxy.edge.http1.request_line import read_request_line
from tests.edge.http1.corpus import REQUESTS, block_of

HOST = "Host: a.example"
OURS = "X-Forwarded-Host: a.example\r\nVia: 1.1 edgeproxy"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
PARENT = f"traceparent: 00-{TRACE_ID}-{PARENT_ID}-01"


def block(*fields: str) -> bytes:
    """Return a header block of these field lines."""
    return "".join(f"{field}\r\n" for field in fields).encode("latin-1")


def head_of(*fields: str, trusted: bool = False, minor: int = 1) -> RequestHead:
    """Read a head of a Host line and these lines."""
    return read_head(block(HOST, *fields), trusted, minor=minor)


def kept(head: RequestHead) -> list[str]:
    """Return the lines to forward, without the lines that every request gets."""
    text = head.keep.decode("latin-1")
    assert text.startswith(HOST + "\r\n")
    assert text.endswith(OURS + "\r\n")
    return text[len(HOST) + 2 : -len(OURS) - 2].split("\r\n")[:-1]


def status_of(fields: bytes, **how: object) -> int:
    """Return the status of the rejection of a block. Both readers must agree on it."""
    with pytest.raises(RejectedError) as careful:
        read_head(fields, **how)  # type: ignore[arg-type]
    if "minor" not in how:
        with pytest.raises(RejectedError) as quick:
            read_fields(fields, **how)  # type: ignore[arg-type]
        assert quick.value.status == careful.value.status
    assert careful.value.close
    return careful.value.status


# ---- a plain head


def test_a_plain_head_is_read_in_full_by_the_quick_reader() -> None:
    fields = block("Accept: */*", HOST + ":80", "Authorization: Bearer ek_1", "Content-Length: 3", PARENT)
    host, key, credentials, keep, length, trace, head = read_fields(fields)
    assert (host, key, credentials) == (b"a.example", b"ek_1", b"Authorization: Bearer ek_1\r\n")
    assert keep == block(
        "Accept: */*", "Host: a.example:80", "Content-Length: 3", "X-Forwarded-Host: a.example:80", "Via: 1.1 edgeproxy"
    )
    assert (length, trace) == (3, (TRACE_ID.encode(), PARENT_ID.encode(), b"01"))
    assert head is PLAIN


def test_a_host_alone_is_a_plain_head() -> None:
    assert read_fields(block(HOST)) == (b"a.example", None, b"", block(HOST, OURS), 0, None, PLAIN)


STILL_PLAIN = [
    ("RFC 9112 9.3", "Connection: keep-alive", []),
    ("RFC 9112 9.3 case", "connection: Keep-Alive ", []),
    ("RFC 9110 7.6.1 names a field", "Connection: X-Private", []),
    ("RFC 9110 7.6.1", "Keep-Alive: timeout=5", []),
    ("RFC 9110 7.6.1 old", "Proxy-Connection: keep-alive", []),
    ("RFC 9110 11.7.2", "Proxy-Authorization: Basic dTpw", []),
    ("RFC 9110 11.7.1", "Proxy-Authenticate: Basic", []),
    ("RFC 9110 6.6.2", "Trailer: X-Checksum", []),
    ("RFC 9110 10.1.4 not named in Connection", "TE: trailers", []),
    ("RFC 9110 7.8 not named in Connection", "Upgrade: websocket", []),
    ("RFC 9110 10.1.1 nothing expected", "Expect:", []),
    ("RFC 9110 11.6.2 another scheme", "Authorization: Basic dTpw", ["Authorization: Basic dTpw"]),
    ("RFC 9110 11.1 no scheme of ours", "Authorization: Bearerx y", ["Authorization: Bearerx y"]),
    ("Trace Context 3.2 invalid", "traceparent: 00-0-0-0", []),
    ("Trace Context 3.2.2.3 no trace-id", f"traceparent: 00-{'0' * 32}-{PARENT_ID}-01", []),
    ("Trace Context 3.2.2.4 no parent-id", f"traceparent: 00-{TRACE_ID}-{'0' * 16}-01", []),
    ("Trace Context 3.3 alone", "tracestate: a=b", []),
    ("docs/design/contract.md#stamps", "X-Forwarded-For: 192.0.2.1", []),
    ("docs/design/contract.md#stamps proto", "X-Forwarded-Proto: https", []),
    ("docs/design/contract.md#stamps host", "X-Forwarded-Host: b.example", []),
    ("docs/design/contract.md#stamps port", "X-Forwarded-Port: 443", []),
    ("docs/design/contract.md#stamps address", "X-Real-IP: 192.0.2.1", []),
    ("docs/design/contract.md#stamps id", "X-Request-Id: mine", []),
    ("docs/design/contract.md#stamps customer", "X-Customer-Id: acme", []),
    ("docs/design/contract.md#stamps tier", "x-customer-tier: enterprise", []),
    ("docs/design/contract.md#stamps region", "X-Edge-Region: moon", []),
    ("docs/design/contract.md#stamps signature", "X-Edge-Signature: t=0,v1=00", []),
    ("docs/design/contract.md#stamps underscores", "X_Customer_Id: acme", []),
    ("docs/design/contract.md#stamps some underscores", "X-Forwarded_For: 192.0.2.1", []),
    ("RFC 7239", "Forwarded: for=192.0.2.1", []),
    ("RFC 9110 8.6 leading zeros", "Content-Length: 000", ["Content-Length: 0"]),
    ("RFC 9110 5.5 empty", "X-Empty:", ["X-Empty:"]),
    ("RFC 9110 5.5 obs-text", "X-Name: \xe9", ["X-Name: \xe9"]),
]


@pytest.mark.parametrize(("rule", "field", "forwarded"), STILL_PLAIN, ids=[case[0] for case in STILL_PLAIN])
def test_a_line_that_leaves_the_head_plain(rule: str, field: str, forwarded: list[str]) -> None:
    head = head_of(field)
    assert kept(head) == forwarded
    assert head.plain
    assert read_fields(block(HOST, field))[-1] is PLAIN


# ---- Host


def test_a_head_without_lines_is_read() -> None:
    assert read_head(b"", minor=0).keep == b"Via: 1.0 edgeproxy\r\n"
    assert read_fields(b"")[0] is None


REFUSED = [
    ("RFC 9112 3.2 two hosts", [HOST, "Host: b.example"], 400),
    ("RFC 9112 3.2 the same host twice", [HOST, HOST], 400),
    ("RFC 9112 3.2 malformed", ["Host: a b"], 400),
    ("RFC 9110 4.2.1 empty", ["Host:"], 400),
    ("RFC 9112 5.1 no colon", [HOST, "Accept"], 400),
    ("RFC 9112 5.1 no name", [HOST, ": a"], 400),
    ("RFC 9112 5.1 space before the colon", [HOST, "Accept : a"], 400),
    ("RFC 9112 5.2 folded", [HOST, "Accept: a", " b"], 400),
    ("RFC 9110 5.5 bare CR", [HOST, "Accept: a\rb"], 400),
    ("RFC 9110 5.5 bare LF", [HOST, "Accept: a\nb"], 400),
    ("RFC 9110 5.5 NUL", [HOST, "Accept: a\0b"], 400),
    ("RFC 9110 5.6.2 not a token", [HOST, "Acc(ept: a"], 400),
    ("RFC 9112 6.3 length is empty", [HOST, "Content-Length:"], 400),
    ("RFC 9112 6.3 length has a sign", [HOST, "Content-Length: +1"], 400),
    ("RFC 9112 6.3 length is negative", [HOST, "Content-Length: -1"], 400),
    ("RFC 9112 6.3 length is a list", [HOST, "Content-Length: 1, 1"], 400),
    ("RFC 9112 6.3 length is hexadecimal", [HOST, "Content-Length: 0x1"], 400),
    ("RFC 9112 6.3 length is too large", [HOST, "Content-Length: 1" + "0" * 18], 400),
    ("RFC 9112 6.3 length is repeated", [HOST, "Content-Length: 1", "Content-Length: 1"], 400),
    ("RFC 9112 6.1 both", [HOST, "Content-Length: 1", "Transfer-Encoding: chunked"], 400),
    ("RFC 9112 6.1 both, the other way round", [HOST, "Transfer-Encoding: chunked", "Content-Length: 1"], 400),
    ("RFC 9112 6.1 both, coding unknown", [HOST, "Content-Length: 1", "Transfer-Encoding: x"], 400),
    ("RFC 9112 6.1 repeated", [HOST, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], 400),
    ("RFC 9112 6.1 unknown", [HOST, "Transfer-Encoding: gzip"], 501),
    ("RFC 9112 6.1 two codings", [HOST, "Transfer-Encoding: gzip, chunked"], 501),
    ("RFC 9112 6.1 chunked twice", [HOST, "Transfer-Encoding: chunked, chunked"], 400),
    ("RFC 9112 6.3 chunked is not last", [HOST, "Transfer-Encoding: chunked, gzip"], 400),
    ("RFC 9112 6.1 an empty member", [HOST, "Transfer-Encoding: ,chunked"], 501),
    ("RFC 9112 6.1 identity", [HOST, "Transfer-Encoding: identity"], 501),
    ("RFC 9112 6.1 empty", [HOST, "Transfer-Encoding:"], 501),
    ("RFC 9112 6.1 control character", [HOST, "Transfer-Encoding: \x0bchunked"], 400),
    ("RFC 9110 10.1.1 unknown", [HOST, "Expect: 200-ok"], 417),
    ("RFC 9110 10.1.1 more than one", [HOST, "Expect: 100-continue, b=c"], 417),
    ("RFC 9110 11.6.2 two keys", [HOST, "Authorization: Bearer a", "Authorization: Bearer a"], 400),
    ("RFC 9110 11.6.2 two credentials", [HOST, "Authorization: Basic a", "Authorization: Basic a"], 400),
    ("RFC 9110 11.6.2 a key and credentials", [HOST, "Authorization: Basic a", "Authorization: Bearer a"], 400),
    ("docs/design/contract.md#requests two keys", [HOST, "X-API-Key: a", "X-API-Key: a"], 400),
    ("RFC 6585 5", [HOST, *["A: b"] * 100], 431),
]


@pytest.mark.parametrize(("rule", "fields", "status"), REFUSED, ids=[case[0] for case in REFUSED])
@pytest.mark.parametrize("trusted", [False, True], ids=["client", "proxy"])
def test_a_head_that_is_malformed_or_ambiguous_is_refused(
    rule: str, fields: list[str], status: int, trusted: bool
) -> None:
    assert status_of(block(*fields), trusted=trusted) == status


# ---- framing


def test_a_missing_length_differs_from_a_length_of_zero() -> None:
    assert not head_of().has_length
    assert head_of("Content-Length: 0").has_length


def test_http_1_0_has_no_transfer_encoding() -> None:
    """RFC 9112 section 6.1."""
    assert status_of(block(HOST, "Transfer-Encoding: chunked"), minor=0) == 400


# ---- keys

KEYS = [
    # rule, fields, key, credentials
    ("RFC 6750 2.1", ["Authorization: Bearer ek_1"], b"ek_1", ["Authorization: Bearer ek_1"]),
    ("RFC 9110 11.1 case", ["authorization: bEARER  ek_1 "], b"ek_1", ["authorization: bEARER  ek_1 "]),
    (
        "docs/design/contract.md#requests a tab",
        ["Authorization: Bearer\tek_1"],
        b"ek_1",
        ["Authorization: Bearer\tek_1"],
    ),
    ("RFC 6750 2.1 without a key", ["Authorization: Bearer"], b"", ["Authorization: Bearer"]),
    ("docs/design/contract.md#requests", ["X-API-Key: ek_1"], b"ek_1", ["X-API-Key: ek_1"]),
    ("docs/design/contract.md#requests empty", ["X-API-Key:"], b"", ["X-API-Key:"]),
    (
        "docs/design/contract.md#requests the same key twice",
        ["Authorization: Bearer a", "X-API-Key: a"],
        b"a",
        ["X-API-Key: a", "Authorization: Bearer a"],
    ),
    (
        "docs/design/contract.md#requests one empty",
        ["X-API-Key:", "Authorization: Bearer b"],
        b"b",
        ["X-API-Key:", "Authorization: Bearer b"],
    ),
    ("RFC 9110 11.6.2 another scheme", ["X-API-Key: a", "Authorization: Basic b"], b"a", ["X-API-Key: a"]),
    ("RFC 9110 7.6.1 named", ["Connection: authorization", "Authorization: Bearer a"], b"a", []),
    (
        "RFC 9110 7.6.1 the other named",
        ["Connection: x-other", "Authorization: Bearer a"],
        b"a",
        ["Authorization: Bearer a"],
    ),
]


@pytest.mark.parametrize(("rule", "fields", "key", "credentials"), KEYS, ids=[case[0] for case in KEYS])
def test_a_key_is_removed_from_the_forwarded_lines(
    rule: str, fields: list[str], key: bytes, credentials: list[str]
) -> None:
    head = head_of(*fields)
    assert head.key == key
    assert head.credentials == block(*credentials)
    assert all(line.startswith("Authorization: Basic") for line in kept(head))


def test_a_bearer_token_beside_an_api_key_belongs_to_the_application() -> None:
    head = head_of("Authorization: Bearer a.b.c", "X-API-Key: ek_1")
    assert (head.key, head.credentials) == (b"ek_1", b"X-API-Key: ek_1\r\n")
    assert kept(head) == ["Authorization: Bearer a.b.c"]
    assert head.plain


BASIC = RequestLines(FieldRules(basic=True))


def encode_basic(credentials: str) -> str:
    return f"Authorization: bAsic {b64encode(credentials.encode()).decode()}"


@pytest.mark.parametrize(
    ("field", "key"),
    [
        (encode_basic("ek_1:"), b"ek_1"),
        (encode_basic("x:ek_1"), b"ek_1"),
        (encode_basic("x:ek:1"), b"ek:1"),
        ("Authorization: Bearer ek_1", b"ek_1"),
        (encode_basic("ek_1"), None),
        ("Authorization: Basic !", None),
        ("Authorization: Basic", None),
        ("Authorization: Basicx", None),
    ],
)
def test_key_may_come_with_the_scheme_basic(field: str, key: bytes | None) -> None:
    """RFC 7617 section 2: the password is the key. If it is empty, the user name is."""
    assert read_head(block(HOST, field), request_lines=BASIC).key == key


PLACES = RequestLines(FieldRules((b"x-key", b"authorization"), cookie=b"key", protocols=True))

ELSEWHERE = [
    # fields, key, forwarded lines, lines forwarded in addition to upstreams that receive keys
    (["Cookie: a=b"], None, ["Cookie: a=b"], []),
    (["Cookie: key=k"], b"k", [], ["Cookie: key=k"]),
    (['Cookie: a=b; key="k"; c=d'], b"k", ["Cookie: a=b; c=d"], ['Cookie: a=b; key="k"; c=d']),
    (["Cookie: key=k; key=l"], b"k", [], ["Cookie: key=k; key=l"]),
    (["Cookie: key=k", "X-Key: j"], b"j", [], ["X-Key: j", "Cookie: key=k"]),
    (["Cookie: key=k", "Connection: cookie"], b"k", [], []),
    (["X-API-Key: k"], None, ["X-API-Key: k"], []),
    (["Sec-WebSocket-Protocol: chat"], None, ["Sec-WebSocket-Protocol: chat"], []),
    (
        ["Sec-WebSocket-Protocol: api-key.k, chat ,soap"],
        b"k",
        ["Sec-WebSocket-Protocol: chat, soap"],
        ["Sec-WebSocket-Protocol: api-key.k, chat ,soap"],
    ),
    (
        ["Sec-WebSocket-Protocol: api-key.k", "Cookie: key=l"],
        b"k",
        [],
        ["Sec-WebSocket-Protocol: api-key.k", "Cookie: key=l"],
    ),
    (["Authorization: Bearer a", "X-Key: k", "Connection: authorization"], b"k", [], ["X-Key: k"]),
]


@pytest.mark.parametrize(("fields", "key", "forwarded", "credentials"), ELSEWHERE)
def test_a_key_may_come_in_a_configured_field_cookie_or_protocol(
    fields: list[str], key: bytes | None, forwarded: list[str], credentials: list[str]
) -> None:
    head = read_head(block(HOST, *fields), request_lines=PLACES)
    assert head.key == key
    assert head.credentials == block(*credentials)
    assert sorted((head.unkeyed + head.keep).splitlines()) == sorted(block(HOST, *forwarded, OURS).splitlines())
    assert (read_fields(block(HOST, *fields), request_lines=PLACES)[-1] is PLAIN) == head.plain


def test_a_repeated_key_field_is_refused() -> None:
    with pytest.raises(RejectedError, match="x-key is repeated"):
        read_head(block(HOST, "X-Key: a", "x-key: b"), request_lines=PLACES)


def test_other_credentials_named_in_connection_are_removed() -> None:
    """RFC 9110 section 7.6.1."""
    assert kept(head_of("Authorization: Basic a", "Connection: authorization")) == []


def test_a_missing_key_differs_from_an_empty_key() -> None:
    assert head_of().key is None
    assert head_of("Authorization: Basic a").key is None


# ---- the connection

OPTIONS = [
    # section, fields, attributes that differ from a plain head, forwarded lines
    ("RFC 9112 9.6", ["Connection: close"], {"close": True}, []),
    ("RFC 9112 9.3 both", ["Connection: keep-alive, CLOSE"], {"close": True, "keep_alive": True}, []),
    (
        "RFC 9112 9.3 on two lines",
        ["Connection: keep-alive", "Connection: close"],
        {"close": True, "keep_alive": True},
        [],
    ),
    ("RFC 9112 9.3", ["Connection: keep-alive"], {"keep_alive": True}, []),
    ("RFC 9110 10.1.4", ["TE: gzip;q=0.5, Trailers", "Connection: te"], {"trailers": True}, []),
    ("RFC 9110 10.1.4 no trailers", ["TE: gzip", "Connection: TE"], {}, []),
    (
        "RFC 9110 7.8",
        ["Connection: keep-alive, Upgrade", "Upgrade: WebSocket"],
        {"upgrade": (b"websocket",), "keep_alive": True},
        [],
    ),
    (
        "RFC 9110 7.8 one of several",
        ["Connection: Upgrade", "Upgrade: h2c, websocket"],
        {"upgrade": (b"h2c", b"websocket")},
        [],
    ),
    ("RFC 9110 7.8 another protocol", ["Connection: Upgrade", "Upgrade: A/3"], {"upgrade": (b"a/3",)}, []),
    (
        "RFC 6455 4.1 no body",
        ["Connection: Upgrade", "Upgrade: websocket", "Content-Length: 1"],
        {"length": 1, "has_length": True},
        ["Content-Length: 1"],
    ),
    (
        "RFC 6455 4.1 no chunked body",
        ["Connection: Upgrade", "Upgrade: websocket", "Transfer-Encoding: chunked"],
        {"chunked": True},
        ["Transfer-Encoding: chunked"],
    ),
    ("RFC 9110 7.6.1", ["X-A: 1", "X-B: 2", "Connection: x-a,X-C", "X-C: 3"], {}, ["X-B: 2"]),
    (
        "RFC 9110 7.6.1 never these",
        ["Connection: host, content-length, via", "Content-Length: 0"],
        {"has_length": True},
        ["Content-Length: 0"],
    ),
    ("RFC 9110 10.1.1", ["expect: 100-Continue"], {"expect": True}, ["Expect: 100-continue"]),
    (
        "RFC 9110 10.1.1 twice",
        ["Expect: 100-continue", "Expect: 100-continue"],
        {"expect": True},
        ["Expect: 100-continue"],
    ),
]


@pytest.mark.parametrize(("rule", "fields", "said", "forwarded"), OPTIONS, ids=[case[0] for case in OPTIONS])
def test_hop_by_hop_options_are_read_and_not_forwarded(
    rule: str, fields: list[str], said: dict[str, object], forwarded: list[str]
) -> None:
    head = head_of(*fields)
    names = ("length", "has_length", "chunked", "close", "keep_alive", "upgrade", "expect", "trailers")
    assert {name: getattr(head, name) for name in names} == {name: getattr(PLAIN, name) for name in names} | said
    assert kept(head) == forwarded
    assert head.plain == (not set(said) - {"length", "has_length", "keep_alive"})


# ---- Max-Forwards and traces


@pytest.mark.parametrize(
    ("value", "forwards"),
    [("0", 0), ("000", 0), ("7", 7), ("0010", 10), ("9" * 18, 10**18 - 1), ("12" * 20, int("12" * 9))],
)
def test_max_forwards_is_parsed_and_removed_from_the_kept_lines(value: str, forwards: int) -> None:
    """RFC 9110 section 7.6.2: a number that is too long is read as a smaller one, as the RFC permits."""
    head = head_of(f"Max-Forwards: {value}", "A: b")
    assert (head.forwards, head.plain) == (forwards, False)
    assert b"Max-Forwards" not in head.keep


@pytest.mark.parametrize("lines", [["Max-Forwards:"], ["Max-Forwards: -1"], ["Max-Forwards: 1", "Max-Forwards: 2"]])
def test_max_forwards_that_is_not_one_number_is_forwarded_unchanged(lines: list[str]) -> None:
    head = head_of(*lines)
    assert (head.forwards, head.plain) == (None, True)
    assert all(block(line) in head.keep for line in lines)


def test_max_forwards_named_in_connection_is_not_forwarded() -> None:
    """RFC 9110 section 7.6.1."""
    for value in ("7", "a"):
        head = head_of("Connection: max-forwards", f"Max-Forwards: {value}")
        assert head.forwards is None
        assert b"Max-Forwards" not in head.keep


def test_a_trace_is_continued_with_its_state() -> None:
    """W3C Trace Context section 3.3.1: several tracestate lines are one list."""
    head = head_of("tracestate: a=1", PARENT, "Accept: b", "tracestate: c=2")
    assert head.trace == (TRACE_ID.encode(), PARENT_ID.encode(), b"01")
    assert kept(head) == ["Accept: b", "tracestate: a=1", "tracestate: c=2"]
    assert head.plain


@pytest.mark.parametrize("parents", [[PARENT, PARENT], [PARENT + "-x"], []], ids=["two", "malformed", "none"])
def test_tracestate_without_one_valid_traceparent_is_dropped(parents: list[str]) -> None:
    """W3C Trace Context section 3.2.1."""
    head = head_of(*parents, "tracestate: a=1")
    assert head.trace is None
    assert kept(head) == []


# ---- trusted proxies


def test_a_trusted_proxy_without_forwarding_fields_leaves_the_head_plain() -> None:
    assert read_fields(block(HOST, "Connection: keep-alive"), trusted=True)[-1] is PLAIN


@pytest.mark.parametrize("ids", [["a b"], [""], ["x" * 129], ["a", "b"], ["\xe9"]])
def test_a_request_id_is_one_short_visible_word(ids: list[str]) -> None:
    assert head_of(*[f"X-Request-Id: {value}" for value in ids], trusted=True).request_id is None


def test_a_request_id_may_be_128_characters_long() -> None:
    assert head_of("X-Request-Id: " + "x" * 128, trusted=True).request_id == b"x" * 128


# ---- the request line and the fields together

TOGETHER = [
    # section, request line, Host, host and lines, or the status
    ("RFC 9112 3.2", "GET / HTTP/1.1", "A.example:80", (b"a.example", b"")),
    ("RFC 9112 3.2 missing", "GET / HTTP/1.1", None, 400),
    ("RFC 9112 3.2 missing beside an absolute target", "GET http://a/ HTTP/1.1", None, 400),
    ("RFC 9112 3.2 not in HTTP/1.0", "GET / HTTP/1.0", None, (None, b"")),
    (
        "RFC 9112 3.2.2 HTTP/1.0",
        "GET http://A:81/ HTTP/1.0",
        None,
        (b"a", b"Host: A:81\r\nX-Forwarded-Host: A:81\r\n"),
    ),
    ("RFC 9112 3.2.2", "GET http://a.example/ HTTP/1.1", "a.example", (b"a.example", b"")),
    ("RFC 9112 3.2.2 case", "GET http://A.example/ HTTP/1.1", "a.EXAMPLE", (b"a.example", b"")),
    ("RFC 9110 4.2.3 default port", "GET http://a/ HTTP/1.1", "a:80", (b"a", b"")),
    ("RFC 9110 4.2.3 empty port", "GET https://a:/ HTTP/1.1", "a:443", (b"a", b"")),
    ("RFC 9112 3.2.2 another host", "GET http://b/ HTTP/1.1", "a", 400),
    ("RFC 9112 3.2.2 another port", "GET http://a:81/ HTTP/1.1", "a", 400),
    ("RFC 9112 3.2.2 another scheme's port", "GET https://a/ HTTP/1.1", "a:80", 400),
    ("RFC 9112 3.2.2 another host in HTTP/1.0", "GET http://b/ HTTP/1.0", "a", 400),
]


@pytest.mark.parametrize(("rule", "line", "host", "outcome"), TOGETHER, ids=[case[0] for case in TOGETHER])
def test_target_and_host_must_agree(
    rule: str, line: str, host: str | None, outcome: tuple[bytes | None, bytes] | int
) -> None:
    request = read_request_line(line.encode())
    fields = b"" if host is None else block(f"Host: {host}")
    head = read_head(fields, minor=request.version[1])
    if not isinstance(outcome, int):
        assert check_host(request, head) == outcome
        return
    with pytest.raises(RejectedError) as refusal:
        check_host(request, head)
    assert refusal.value.status == outcome


# ---- both readers and their caches

LINES = sorted({line for head in REQUESTS for line in block_of(head).split(b"\r\n")[:-1]})
BLOCKS = st.lists(st.sampled_from(LINES), max_size=12).map(lambda some: b"".join(line + b"\r\n" for line in some))
WITH_HOST = BLOCKS.map(lambda fields: block(HOST) + fields)


def quick(fields: bytes, trusted: bool) -> tuple[object, ...] | int:
    """Read a block with the quick reader. Return its results with the head as a dict, or the status of a rejection."""
    try:
        *most, head = read_fields(fields, trusted)
    except RejectedError as refusal:
        return refusal.status
    return (*most, None if head is PLAIN else vars(head))


def careful(fields: bytes, trusted: bool) -> tuple[object, ...] | int:
    """Read a block with the full reader, which knows every rule. Return values as `quick` does."""
    try:
        head = read_head(fields, trusted)
    except RejectedError as refusal:
        return refusal.status
    summary = (head.host, head.key, head.credentials, head.keep, head.length, head.trace)
    return (*summary, None if head.plain else vars(head))


@given(st.one_of(BLOCKS, WITH_HOST), st.booleans())
def test_fast_and_full_request_readers_agree(fields: bytes, trusted: bool) -> None:
    assert quick(fields, trusted) == careful(fields, trusted)


@given(st.lists(st.tuples(st.one_of(BLOCKS, WITH_HOST), st.booleans()), min_size=1, max_size=5), st.randoms())
def test_reading_a_block_does_not_depend_on_blocks_read_before(
    blocks: list[tuple[bytes, bool]], random: object
) -> None:
    def fresh(fields: bytes, trusted: bool) -> tuple[object, ...] | int:
        lines.REQUESTS.clear()
        return quick(fields, trusted)

    meant = {case: fresh(*case) for case in blocks}
    lines.REQUESTS.clear()
    order = [*blocks, *blocks]
    random.shuffle(order)  # type: ignore[attr-defined]
    for fields, trusted in order:
        assert quick(fields, trusted) == meant[fields, trusted]


@given(st.one_of(BLOCKS, WITH_HOST), st.booleans())
def test_a_forwarded_head_is_read_equally_by_a_second_edge(fields: bytes, trusted: bool) -> None:
    """A second edge that trusts the first one reads an equal head with equal framing."""
    try:
        head = read_head(fields, trusted)
        again = read_head(head.keep + format_upgrade(head.upgrade), True)
    except RejectedError:
        return
    assert (again.authority, again.length, again.has_length, again.chunked, again.expect, again.upgrade) == (
        *(head.authority, head.length, head.has_length, head.chunked, head.expect, head.upgrade),
    )
    assert again.key is None or head.key is not None
    for line in head.keep.split(b"\r\n"):
        assert line.partition(b":")[0].lower() not in (
            *(b"keep-alive", b"proxy-connection", b"te", b"trailer", b"proxy-authorization", b"x-api-key"),
            *(b"x-request-id", b"x-forwarded-for", b"x-forwarded-proto", b"x-customer-id", b"x-customer-tier"),
            *(b"x_customer_tier", b"x-edge-region", b"x-edge-signature", b"traceparent", b"content_length"),
        )


def test_proxy_credentials_are_removed_with_the_key_and_are_no_key() -> None:
    """RFC 9110 section 11.7.1."""
    sent = b"Host: a\r\nProxy-Authorization: Basic dTpw\r\nX-API-Key: k\r\n"
    head = read_head(sent)
    assert (head.key, head.credentials) == (b"k", b"X-API-Key: k\r\nProxy-Authorization: Basic dTpw\r\n")
    assert b"Proxy" not in head.keep
    assert read_fields(sent)[2] == head.credentials
    named = read_head(sent + b"Connection: proxy-authorization\r\n")
    assert named.credentials == b"X-API-Key: k\r\n"


def test_upgrade_lines_name_the_offered_protocols() -> None:
    """RFC 9110 section 7.8."""
    assert format_upgrade((b"websocket", b"a/1")) == b"Connection: upgrade\r\nUpgrade: websocket, a/1\r\n"
    assert format_upgrade(()) == b""


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("name", sorted(UNSEEN_FIELDS))
def test_fields_listed_as_unseen_never_reach_the_rules(name: str, trusted: bool) -> None:
    value = {"traceparent": PARENT.partition(": ")[2], "max-forwards": "3"}.get(name, "x")
    head = head_of(f"{name}: {value}", trusted=trusted)
    assert find_values(head.unkeyed + head.keep, name.encode()) == []
