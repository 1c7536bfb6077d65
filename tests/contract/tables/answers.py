"""Valid answers of upstreams: RFC 9112 sections 4, 6 and 7, RFC 9110 section 15."""

from tests.contract.case import HOST, Answered, Whole, get, lines

H = f"Host: {HOST}"
OK = "HTTP/1.1 200 OK"
CHUNKED = "Transfer-Encoding: chunked"
HEAD = lines("HEAD / HTTP/1.1", H)
HTTP10 = lines("GET / HTTP/1.0", H)
HELLO = Whole(body=b"hello", has=("Content-Length: 5",))
STREAM = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


def of(
    status: str, *fields: str, reused: bool = True, lacks: tuple[str, ...] = (), rule: str = "RFC 9110 15"
) -> Answered:
    """Return a row of an answer with this status and no body."""
    return Answered(
        f"{status or 'no reason phrase'}",
        rule,
        lines(f"HTTP/1.1 {status}", *fields),
        Whole(int(status[:3]), lacks=lacks),
        reused,
    )


ANSWERS = (
    # ---- bodies with a length
    Answered("a length", "RFC 9112 6.3 (6)", lines(OK, "Content-Length: 5") + b"hello", HELLO, True),
    Answered(
        "a length of nought",
        "RFC 9112 6.3 (6)",
        lines(OK, "Content-Length: 0"),
        Whole(has=("Content-Length: 0",)),
        True,
    ),
    Answered("a length with leading zeros", "RFC 9110 8.6", lines(OK, "Content-Length: 0005") + b"hello", HELLO, True),
    Answered("a length in another case", "RFC 9110 5.1", lines(OK, "content-LENGTH:5") + b"hello", HELLO, True),
    Answered(
        "a body of 1 MiB",
        "RFC 9112 6.3 (6)",
        lines(OK, f"Content-Length: {1 << 20}") + b"x" * (1 << 20),
        Whole(body=b"x" * (1 << 20)),
        True,
    ),
    Answered(
        "a whole body whose upstream closes behind it",
        "RFC 9112 9.6",
        lines(OK, "Content-Length: 5") + b"hello",
        HELLO,
        False,
        "closes",
    ),
    Answered(
        "a head of 60 KiB",
        "RFC 9112 5",
        lines(OK, *["X-Pad: " + "p" * 2993] * 20, "Content-Length: 5") + b"hello",
        Whole(body=b"hello"),
        True,
    ),
    Answered(
        "300 fields",
        "RFC 9112 5",
        lines(OK, *["Set-Cookie: a=b"] * 300, "Content-Length: 5") + b"hello",
        Whole(body=b"hello"),
        True,
    ),
    # ---- chunked
    Answered("chunked", "RFC 9112 7.1", lines(OK, CHUNKED) + STREAM, Whole(body=b"abcde", has=(CHUNKED,)), True),
    Answered(
        "spaces behind sizes",
        "RFC 9112 7.1.1",
        lines(OK, CHUNKED) + b"5  \r\nhello\r\n0 \t\r\n\r\n",
        Whole(body=b"hello", has=(CHUNKED,)),
        True,
    ),
    Answered("chunked without a chunk", "RFC 9112 7.1", lines(OK, CHUNKED) + b"0\r\n\r\n", Whole(has=(CHUNKED,)), True),
    Answered(
        "extensions do not pass",
        "RFC 9112 7.1.1",
        lines(OK, CHUNKED) + b"5;a=b\r\nhello\r\n0;c\r\n\r\n",
        Whole(body=b"hello"),
        True,
    ),
    Answered(
        "trailers",
        "RFC 9112 7.1.2",
        lines(OK, CHUNKED, "Trailer: X-Sum") + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-B:2\r\n\r\n",
        Whole(body=b"hello", trailers=("X-Sum: 1", "X-B: 2")),
        True,
    ),
    *(
        Answered(
            f"{name} in an answer's trailer does not pass",
            "RFC 9110 6.5.1",
            lines(OK, CHUNKED) + f"0\r\n{name}: 1\r\nX-A: 1\r\n\r\n".encode(),
            Whole(trailers=("X-A: 1",)),
            True,
        )
        for name in (
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Set-Cookie",
            "Content-Type",
            "X-Request-Id",
            "RateLimit",
        )
    ),
    Answered(
        "many tiny chunks",
        "RFC 9112 7.1",
        lines(OK, CHUNKED) + b"1\r\nx\r\n" * 3000 + b"0\r\n\r\n",
        Whole(body=b"x" * 3000),
        True,
    ),
    Answered(
        "chunked for HTTP/1.0 ends with the connection",
        "RFC 9112 7.1",
        lines(OK, CHUNKED) + STREAM,
        Whole(body=b"abcde", lacks=("Transfer-Encoding",), ends=True),
        True,
        to=HTTP10,
    ),
    # ---- until the connection closes
    Answered(
        "a body that ends with the connection",
        "RFC 9112 6.3 (8)",
        lines(OK) + b"hello",
        Whole(body=b"hello", has=(CHUNKED,)),
        False,
        "closes",
    ),
    Answered(
        "no body that ends with the connection", "RFC 9112 6.3 (8)", lines(OK), Whole(has=(CHUNKED,)), False, "closes"
    ),
    Answered(
        "a body that ends with the connection, for HTTP/1.0",
        "RFC 9112 6.3 (8)",
        lines(OK) + b"hello",
        Whole(body=b"hello", lacks=("Transfer-Encoding",), ends=True),
        False,
        "closes",
        HTTP10,
    ),
    # ---- HTTP/1.0 upstreams
    Answered("an answer of HTTP/1.0", "RFC 9112 9.3", lines("HTTP/1.0 200 OK", "Content-Length: 5") + b"hello", HELLO),
    Answered(
        "an answer of HTTP/1.0 that stays",
        "RFC 9112 9.3",
        lines("HTTP/1.0 200 OK", "Connection: Keep-Alive", "Content-Length: 5") + b"hello",
        HELLO,
        True,
    ),
    Answered(
        "an answer of HTTP/1.0 that ends with the connection",
        "RFC 9112 6.3 (8)",
        lines("HTTP/1.0 200 OK") + b"hello",
        Whole(body=b"hello", has=(CHUNKED,)),
        False,
        "closes",
    ),
    # ---- answers without a body
    Answered(
        "an answer to HEAD has no body",
        "RFC 9112 6.3 (1)",
        lines(OK, "Content-Length: 5"),
        Whole(has=("Content-Length: 5",)),
        True,
        to=HEAD,
    ),
    Answered(
        "an answer to HEAD that would be chunked",
        "RFC 9112 6.3 (1)",
        lines(OK, CHUNKED),
        Whole(lacks=("Content-Length",)),
        True,
        to=HEAD,
    ),
    Answered(
        "an answer to HEAD without any framing",
        "RFC 9112 6.3 (1)",
        lines(OK),
        Whole(lacks=("Content-Length",)),
        False,  # a server that breaks the rule may be about to send what only its closing would end
        to=HEAD,
    ),
    Answered(
        "204",
        "RFC 9112 6.3 (1)",
        lines("HTTP/1.1 204 No Content"),
        Whole(204, lacks=("Content-Length", "Transfer-Encoding")),
        True,
    ),
    Answered(
        "204 with a length of nought",
        "RFC 9110 8.6",
        lines("HTTP/1.1 204 No Content", "Content-Length: 0"),
        Whole(204, lacks=("Content-Length",)),
        True,
    ),
    Answered(
        "304",
        "RFC 9112 6.3 (1)",
        lines("HTTP/1.1 304 Not Modified", 'ETag: "a"'),
        Whole(304, has=('ETag: "a"',), lacks=("Transfer-Encoding",)),
        True,
    ),
    Answered(
        "304 with the length that 200 would have",
        "RFC 9110 8.6",
        lines("HTTP/1.1 304 Not Modified", "Content-Length: 512"),
        Whole(304, has=("Content-Length: 512",)),
        True,
    ),
    # ---- status lines
    Answered("no reason phrase", "RFC 9112 4", lines("HTTP/1.1 200 ", "Content-Length: 5") + b"hello", HELLO, True),
    Answered(
        "no space before the reason phrase that is not there",
        "RFC 9112 4",
        lines("HTTP/1.1 200", "Content-Length: 5") + b"hello",
        HELLO,
        True,
    ),
    Answered(
        "a reason phrase of many words and bytes",
        "RFC 9112 4",
        lines("HTTP/1.1 200 All is  well: \xe9\t!", "Content-Length: 5") + b"hello",
        HELLO,
        True,
    ),
    *(
        Answered(
            f"the status {status}",
            "RFC 9110 15",
            lines(f"HTTP/1.1 {status} Whatever", "Content-Length: 5") + b"hello",
            Whole(status, b"hello"),
            True,
        )
        for status in (201, 206, 299, 301, 400, 401, 404, 418, 429, 451, 499, 500, 502, 503, 599, 600, 999)
    ),
    # ---- interim answers
    Answered(
        "103 and then the answer",
        "RFC 8297 2",
        lines("HTTP/1.1 103 Early Hints", "Link: </a>; rel=preload") + lines(OK, "Content-Length: 5") + b"hello",
        Whole(body=b"hello", interim=(103,)),
        True,
    ),
    Answered(
        "100 that nobody waits for",
        "RFC 9110 15.2.1",
        lines("HTTP/1.1 100 Continue") + lines(OK, "Content-Length: 5") + b"hello",
        Whole(body=b"hello", interim=(100,)),
        True,
    ),
    Answered(
        "several interim answers",
        "RFC 9110 15.2",
        lines("HTTP/1.1 102 Processing") * 3 + lines("HTTP/1.1 103 Early Hints") + lines(OK, "Content-Length: 0"),
        Whole(interim=(102, 102, 102, 103)),
        True,
    ),
    Answered(
        "interim answers are not for HTTP/1.0",
        "RFC 9110 15.2",
        lines("HTTP/1.1 103 Early Hints") + lines(OK, "Content-Length: 5") + b"hello",
        Whole(body=b"hello", ends=True),
        True,
        to=HTTP10,
    ),
    Answered(
        "an interim answer to HEAD",
        "RFC 9110 15.2",
        lines("HTTP/1.1 103 Early Hints") + lines(OK, "Content-Length: 5"),
        Whole(interim=(103,)),
        True,
        to=HEAD,
    ),
    # ---- requests whose upstream is to answer whatever came
    Answered(
        "an answer to a client that closes",
        "RFC 9112 9.6",
        lines(OK, "Content-Length: 5") + b"hello",
        Whole(body=b"hello", ends=True),
        True,
        to=get("/", "Connection: close"),
    ),
    Answered(
        "a stream to a client that closes",
        "RFC 9112 9.6",
        lines(OK, CHUNKED) + STREAM,
        Whole(body=b"abcde", has=(CHUNKED,), ends=True),
        True,
        to=get("/", "Connection: close"),
    ),
)
"""Rows about valid answers."""
