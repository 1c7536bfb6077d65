"""Hop-by-hop fields in both directions: RFC 9110 section 7.6.1."""

from tests.contract.case import HOST, Answered, Asked, Fault, Seen, Whole, forwarded, get, lines

H = f"Host: {HOST}"
LINE = "GET /h HTTP/1.1"
OK = "HTTP/1.1 200 OK"
FIVE = "Content-Length: 5"


def dropped(name: str, rule: str, *fields: str, lacks: tuple[str, ...], has: tuple[str, ...] = ()) -> Asked:
    """Return a row of a request with fields that must not reach the upstream."""
    return forwarded(name, rule, get("/h", *fields), Seen(LINE, has=has, lacks=lacks))


def answered(
    name: str, rule: str, *fields: str, lacks: tuple[str, ...] = (), has: tuple[str, ...] = (), reused: bool = True
) -> Answered:
    """Return a row of an answer with fields that must not reach the client."""
    return Answered(
        name, rule, lines(OK, FIVE, *fields) + b"hello", Whole(body=b"hello", has=(*has, FIVE), lacks=lacks), reused
    )


HOPS_OF_REQUESTS = (
    dropped(
        "Connection names a field",
        "RFC 9110 7.6.1",
        "Connection: X-Private",
        "X-Private: 1",
        "X-Public: 2",
        lacks=("Connection", "X-Private"),
        has=("X-Public: 2",),
    ),
    dropped(
        "Connection names fields in another case",
        "RFC 9110 7.6.1",
        "CONNECTION: x-PRIVATE ,, X-Other",
        "X-Private: 1",
        "x-other: 2",
        lacks=("Connection", "X-Private", "X-Other"),
    ),
    dropped(
        "Connection in two lines",
        "RFC 9110 5.3",
        "Connection: X-A",
        "X-A: 1",
        "Connection: X-B",
        "X-B: 2",
        lacks=("Connection", "X-A", "X-B"),
    ),
    dropped(
        "Connection names a field of several lines",
        "RFC 9110 7.6.1",
        "X-A: 1",
        "Connection: X-A",
        "X-A: 2",
        lacks=("Connection", "X-A"),
    ),
    dropped("Connection names a cookie", "RFC 9110 7.6.1", "Connection: Cookie", "Cookie: a=b", lacks=("Cookie",)),
    dropped(
        "Connection names what is not there", "RFC 9110 7.6.1", "Connection: X-Gone", lacks=("Connection", "X-Gone")
    ),
    dropped("Connection names itself", "RFC 9110 7.6.1", "Connection: Connection, keep-alive", lacks=("Connection",)),
    dropped("an empty Connection", "RFC 9110 7.6.1", "Connection:", lacks=("Connection",)),
    dropped(
        "a Connection that names all of HTTP",
        "RFC 9110 7.6.1",
        "Connection: Host, Via, X-Forwarded-For, X-Request-Id, traceparent",
        has=(H, "Via: 1.1 edgeproxy", "X-Forwarded-For: 127.0.0.1"),
        lacks=("Connection",),
    ),
    dropped(
        "Keep-Alive",
        "RFC 9110 7.6.1",
        "Keep-Alive: timeout=5, max=100",
        "Connection: keep-alive",
        lacks=("Keep-Alive", "Connection"),
    ),
    dropped("Keep-Alive that is not named", "RFC 9110 7.6.1", "Keep-Alive: timeout=5", lacks=("Keep-Alive",)),
    dropped("Proxy-Connection", "RFC 9110 7.6.1", "Proxy-Connection: keep-alive", lacks=("Proxy-Connection",)),
    dropped(
        "Proxy-Authorization passes where nobody looks at credentials",
        "RFC 9110 11.7.2",
        "Proxy-Authorization: Basic dTpw",
        has=("Proxy-Authorization: Basic dTpw",),
        lacks=(),
    ),
    dropped(
        "Proxy-Authorization that Connection names",
        "RFC 9110 7.6.1",
        "Proxy-Authorization: Basic dTpw",
        "Connection: Proxy-Authorization",
        lacks=("Proxy-Authorization", "Connection"),
    ),
    dropped("Proxy-Authenticate", "RFC 9110 11.7.1", "Proxy-Authenticate: Basic", lacks=("Proxy-Authenticate",)),
    dropped("TE", "RFC 9110 10.1.4", "TE: trailers, deflate;q=0.5", "Connection: TE", lacks=("TE", "Connection")),
    dropped("TE that is not named", "RFC 9110 10.1.4", "TE: gzip", lacks=("TE",)),
    dropped("Trailer", "RFC 9110 6.6.2", "Trailer: X-Sum", lacks=("Trailer",)),
    dropped("Upgrade", "RFC 9110 7.8", "Upgrade: foo/2", lacks=("Upgrade",)),
    dropped(
        "hop-by-hop fields with underscores",
        "docs/design/contract.md#stamps",
        "Keep_Alive: timeout=5",
        "Proxy_Connection: keep-alive",
        lacks=("Keep_Alive", "Proxy_Connection"),
    ),
    dropped("Proxy is no field of HTTP", "RFC 9110 5.1", "Proxy: http://192.0.2.1:8080/", lacks=("Proxy",)),
    dropped(
        "end-to-end fields that look alike pass",
        "RFC 9110 7.6.1",
        "X-Connection: close",
        "Keep: alive",
        lacks=(),
        has=("X-Connection: close", "Keep: alive"),
    ),
    forwarded(
        "close is the client's own affair",
        "RFC 9112 9.6",
        get("/h", "Connection: close"),
        Seen(LINE, lacks=("Connection",)),
        ends=True,
    ),
    forwarded(
        "Max-Forwards is for TRACE and OPTIONS",
        "RFC 9110 7.6.2",
        get("/h", "Max-Forwards: 0"),
        Seen(LINE, has=("Max-Forwards: 0",)),
    ),
)
"""Rows about fields of requests."""

HOPS_OF_ANSWERS = (
    answered(
        "Connection names a field of the answer",
        "RFC 9110 7.6.1",
        "Connection: X-Private",
        "X-Private: 1",
        "X-Public: 2",
        has=("X-Public: 2",),
        lacks=("Connection", "X-Private"),
    ),
    answered(
        "Connection names fields of the answer in another case",
        "RFC 9110 7.6.1",
        "connection: x-PRIVATE,X-Other",
        "X-Private: 1",
        "x-other: 2",
        lacks=("Connection", "X-Private", "X-Other"),
    ),
    answered(
        "Connection names Set-Cookie",
        "RFC 9110 7.6.1",
        "Connection: Set-Cookie",
        "Set-Cookie: a=b",
        lacks=("Set-Cookie",),
    ),
    answered(
        "Connection names the answer's length", "RFC 9110 7.6.1", "Connection: Content-Length", lacks=("Connection",)
    ),
    answered(
        "Connection: keep-alive in the answer",
        "RFC 9112 9.3",
        "Connection: keep-alive",
        "Keep-Alive: timeout=60",
        lacks=("Connection", "Keep-Alive"),
    ),
    answered(
        "Connection: close in the answer ends the upstream's connection alone",
        "RFC 9112 9.6",
        "Connection: close",
        lacks=("Connection",),
        reused=False,
    ),
    answered(
        "Connection: Close in another case",
        "RFC 9110 7.6.1",
        "Connection: foo, Close",
        lacks=("Connection",),
        reused=False,
    ),
    answered(
        "Proxy-Connection in the answer", "RFC 9110 7.6.1", "Proxy-Connection: close", lacks=("Proxy-Connection",)
    ),
    answered(
        "Proxy-Authenticate in the answer",
        "RFC 9110 11.7.1",
        "Proxy-Authenticate: Basic",
        lacks=("Proxy-Authenticate",),
    ),
    answered(
        "Proxy-Authentication-Info in the answer",
        "RFC 9110 11.7.3",
        "Proxy-Authentication-Info: a=b",
        lacks=("Proxy-Authentication-Info",),
    ),
    answered("TE in the answer", "RFC 9110 10.1.4", "TE: trailers", lacks=("TE",)),
    answered("Trailer in the answer", "RFC 9110 6.6.2", "Trailer: X-Sum", lacks=("Trailer",)),
    answered(
        "Upgrade in the answer", "RFC 9110 7.8", "Connection: Upgrade", "Upgrade: h2c", lacks=("Connection", "Upgrade")
    ),
    answered("the upstream's request id is not ours", "docs/design/contract.md#stamps", "X-Request-Id: theirs"),
    answered("Via of the answer", "RFC 9110 7.6.3", "Via: 1.1 inner", has=("Via: 1.1 inner",)),
    answered("a field without a value", "RFC 9110 5.5", "X-Empty:", has=("X-Empty:",)),
    answered("bytes above ASCII in an answer", "RFC 9110 5.5", "X-Name: \xe9\xff", has=("X-Name: \xe9\xff",)),
    answered("whitespace before a colon of the answer is removed", "RFC 9112 5.1", "X-A : b", has=("X-A: b",)),
    answered("field names of the answer keep their underscores", "RFC 9110 5.1", "X_A: b", has=("X_A: b",)),
    answered(
        "whatever the upstream says of its server passes",
        "RFC 9110 10.2.4",
        "Server: nginx",
        "Date: Tue, 15 Nov 1994 08:12:31 GMT",
        has=("Server: nginx", "Date: Tue, 15 Nov 1994 08:12:31 GMT"),
    ),
    Answered(
        "Transfer-Encoding is the connection's own",
        "RFC 9112 7.1",
        lines(OK, "Transfer-Encoding: Chunked") + b"5\r\nhello\r\n0\r\n\r\n",
        Whole(body=b"hello", has=("Transfer-Encoding: chunked",), lacks=("Content-Length",)),
        True,
    ),
    Answered(
        "101 that nobody asked for",
        "RFC 9110 15.2.2",
        lines("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: websocket"),
        Fault("http_upgrade_failed"),
    ),
)
"""Rows about fields of answers."""
