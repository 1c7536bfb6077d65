"""The end of a request's body, and the bytes after it: RFC 9112 sections 6, 7 and 9."""

from tests.contract.case import HOST, Asked, Seen, chunked, cut_short, forwarded, get, lines, post, refused

H = f"Host: {HOST}"
POST = "POST / HTTP/1.1"
NEXT = get("/next")
NEXT_LINE = "GET /next HTTP/1.1"
CHUNKED = "Transfer-Encoding: chunked"


def decoded(name: str, rule: str, *texts: bytes, body: bytes, trailers: tuple[str, ...] = ()) -> Asked:
    """Return a row with a chunked body of these bytes and a request after it."""
    seen = Seen(POST, body, has=(CHUNKED,), lacks=("Content-Length",), trailers=trailers)
    return forwarded(name, rule, chunked(*texts) + NEXT, seen, NEXT_LINE)


def no_chunk(name: str, *texts: bytes, rule: str = "RFC 9112 7.1", status: int = 400) -> Asked:
    """Return a row with a malformed chunked body. The bytes after it must not count as a request."""
    return cut_short(name, rule, chunked(*texts, NEXT), status)


LENGTHS = (
    # ---- no framing, and Content-Length
    forwarded("neither length nor coding", "RFC 9112 6.3 (7)", post() + NEXT, Seen(POST), NEXT_LINE),
    forwarded(
        "a length of nought",
        "RFC 9112 6.3 (6)",
        post("Content-Length: 0") + NEXT,
        Seen(POST, has=("Content-Length: 0",)),
        NEXT_LINE,
    ),
    forwarded(
        "a length", "RFC 9112 6.3 (6)", post("Content-Length: 5", body=b"hello") + NEXT, Seen(POST, b"hello"), NEXT_LINE
    ),
    forwarded(
        "a length of 1 MiB",
        "RFC 9112 6.3 (6)",
        post(f"Content-Length: {1 << 20}", body=b"x" * (1 << 20)) + NEXT,
        Seen(POST, b"x" * (1 << 20)),
        NEXT_LINE,
    ),
    *(
        forwarded(
            f"a body for {method}",
            "RFC 9110 9.3",
            lines(f"{method} /b HTTP/1.1", H, "Content-Length: 5") + b"hello" + NEXT,
            Seen(f"{method} /b HTTP/1.1", b"hello"),
            NEXT_LINE,
        )
        for method in ("GET", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH")
    ),
    forwarded(
        "a chunked body for GET",
        "RFC 9110 9.3.1",
        lines("GET /b HTTP/1.1", H, CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n" + NEXT,
        Seen("GET /b HTTP/1.1", b"hello"),
        NEXT_LINE,
    ),
    forwarded(
        "leading zeros are written anew",
        "RFC 9110 8.6",
        post("Content-Length: 0005", body=b"hello") + NEXT,
        Seen(POST, b"hello", has=("Content-Length: 5",)),
        NEXT_LINE,
    ),
    forwarded(
        "zeros that would be octal elsewhere",
        "RFC 9110 8.6",
        post("Content-Length: 010", body=b"0123456789") + NEXT,
        Seen(POST, b"0123456789", has=("Content-Length: 10",)),
        NEXT_LINE,
    ),
    forwarded(
        "whitespace around a length",
        "RFC 9112 5.1",
        post("Content-Length:\t 5 \t", body=b"hello") + NEXT,
        Seen(POST, b"hello", has=("Content-Length: 5",)),
        NEXT_LINE,
    ),
    # ---- Transfer-Encoding
    forwarded(
        "chunked in another case",
        "RFC 9112 7",
        post("transfer-ENCODING: Chunked", body=b"5\r\nhello\r\n0\r\n\r\n") + NEXT,
        Seen(POST, b"hello", has=(CHUNKED,)),
        NEXT_LINE,
    ),
    forwarded(
        "whitespace around chunked",
        "RFC 9112 5.1",
        post("Transfer-Encoding: \tchunked \t", body=b"5\r\nhello\r\n0\r\n\r\n") + NEXT,
        Seen(POST, b"hello", has=(CHUNKED,)),
        NEXT_LINE,
    ),
    refused("a coding that is not known", "RFC 9112 6.1", post("Transfer-Encoding: gzip", body=b"x") + NEXT, 501),
    refused(
        "gzip, then chunked", "RFC 9112 6.1", post("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n") + NEXT, 501
    ),
    refused(
        "chunked, then gzip",
        "RFC 9112 6.3 (4)",
        post("Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n") + NEXT,
        400,
    ),
    refused(
        "chunked twice", "RFC 9112 6.1", post("Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n") + NEXT, 400
    ),
    refused("an obsolete coding", "RFC 9112 6.1", post("Transfer-Encoding: identity", body=b"x") + NEXT, 501),
)
"""Rows about the rule that determines the end of a body."""

CHUNKS = (
    decoded("no chunk", "RFC 9112 7.1", b"0\r\n\r\n", body=b""),
    decoded("a chunk", "RFC 9112 7.1", b"5\r\nhello\r\n0\r\n\r\n", body=b"hello"),
    decoded("several chunks", "RFC 9112 7.1", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", body=b"abcde"),
    decoded("a size in capitals", "RFC 9112 7.1", b"A\r\n0123456789\r\n0\r\n\r\n", body=b"0123456789"),
    decoded("a size in small letters", "RFC 9112 7.1", b"a\r\n0123456789\r\n0\r\n\r\n", body=b"0123456789"),
    decoded("a size with leading zeros", "RFC 9112 7.1", b"0000a\r\n0123456789\r\n000\r\n\r\n", body=b"0123456789"),
    decoded("line ends in the payload", "RFC 9112 7.1", b"6\r\n\r\n0\r\n\r\r\n0\r\n\r\n", body=b"\r\n0\r\n\r"),
    decoded("a request in the payload", "RFC 9112 7.1", b"%x\r\n%b\r\n0\r\n\r\n" % (len(NEXT), NEXT), body=NEXT),
    decoded(
        "a large chunk", "RFC 9112 7.1", b"100000\r\n" + b"x" * (1 << 20) + b"\r\n0\r\n\r\n", body=b"x" * (1 << 20)
    ),
    decoded("many tiny chunks", "RFC 9112 7.1", b"1\r\nx\r\n" * 5000, b"0\r\n\r\n", body=b"x" * 5000),
    # ---- padding, which some servers write behind every size
    decoded("a space behind a size", "RFC 9112 7.1.1", b"5 \r\nhello\r\n0 \r\n\r\n", body=b"hello"),
    decoded("a tab behind a size", "RFC 9112 7.1.1", b"5\t\r\nhello\r\n0\t \r\n\r\n", body=b"hello"),
    # ---- extensions: no recipient understands them, so none passes
    decoded("an extension", "RFC 9112 7.1.1", b"5;a=b\r\nhello\r\n0\r\n\r\n", body=b"hello"),
    decoded("an extension without a value", "RFC 9112 7.1.1", b"5;a\r\nhello\r\n0;b\r\n\r\n", body=b"hello"),
    decoded("an extension in quotes", "RFC 9112 7.1.1", b'5;a="b;c d"\r\nhello\r\n0\r\n\r\n', body=b"hello"),
    decoded("several extensions", "RFC 9112 7.1.1", b"5;a=b;c;d=e\r\nhello\r\n0\r\n\r\n", body=b"hello"),
    decoded(
        "bad whitespace around an extension", "RFC 9112 7.1.1", b"5 \t; a = b\r\nhello\r\n0\r\n\r\n", body=b"hello"
    ),
    decoded(
        "an extension of 4,000 bytes", "RFC 9112 7.1.1", b"5;" + b"a" * 4000 + b"\r\nhello\r\n0\r\n\r\n", body=b"hello"
    ),
    no_chunk("an extension without an end", b"5;" + b"a" * 20_000, rule="RFC 9112 7.1.1"),
    no_chunk(
        "extensions of more bytes than the body is worth",
        (b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 100,
        b"0\r\n\r\n",
        rule="RFC 9112 7.1.1",
    ),
    no_chunk("a bare LF in an extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n", rule="RFC 9112 7.1.1"),
    no_chunk("a bare CR in an extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n", rule="RFC 9112 7.1.1"),
    no_chunk("CR CR LF behind an extension", b"5;a\r\r\nhello\r\n0\r\n\r\n", rule="RFC 9112 7.1.1"),
    no_chunk("a NUL in an extension", b"5;a\0\r\nhello\r\n0\r\n\r\n", rule="RFC 9112 7.1.1"),
    # ---- sizes that are none
    no_chunk("no size", b"\r\n\r\n"),
    no_chunk("an extension without a size", b";a=b\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a size that is no number", b"Z\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a size with a sign", b"+5\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a negative size", b"-5\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a negative zero", b"-0\r\n\r\n"),
    no_chunk("a size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a size with an underscore", b"0_5\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a size with a comma", b"5,5\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a size with a point", b"5.0\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a size with letters behind it", b"5these\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a space before a size", b" 5\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a tab before a size", b"\t5\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a space within a size", b"5 0\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a word behind a size and a space", b"5 a\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a bare LF behind a size and a space", b"5 \nhello\r\n0\r\n\r\n"),
    no_chunk("a vertical tab behind a size", b"5\v\r\nhello\r\n0\r\n\r\n"),
    no_chunk("spaces behind a size without an end", b"5" + b" " * 20_000, rule="RFC 9112 7.1.1"),
    no_chunk("a size of full-width digits", "５".encode() + b"\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a size that 64 bits do not hold", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a size of many zeros", b"0" * 5000 + b"5\r\nhello\r\n0\r\n\r\n"),
    # ---- line ends
    no_chunk("a bare LF behind a size", b"5\nhello\r\n0\r\n\r\n"),
    no_chunk("a bare CR behind a size", b"5\rhello\r\n0\r\n\r\n"),
    no_chunk("CR and any other byte behind a size", b"5\rXhello\r\n0\r\n\r\n"),
    no_chunk("a bare LF behind a payload", b"5\r\nhello\n0\r\n\r\n"),
    no_chunk("a bare CR behind a payload", b"5\r\nhello\r0\r\n\r\n"),
    no_chunk("two bytes of any kind behind a payload", b"5\r\nhelloXX0\r\n\r\n"),
    no_chunk("nothing behind a payload", b"5\r\nhello0\r\n\r\n"),
    no_chunk("an empty line too many behind a payload", b"5\r\nhello\r\n\r\n0\r\n\r\n"),
    no_chunk("a payload longer than its size", b"4\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a payload shorter than its size", b"6\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a bare LF at the body's end", b"5\r\nhello\r\n0\r\n\n"),
    no_chunk("bare LF behind the last chunk", b"5\r\nhello\r\n0\n\n"),
    no_chunk("two bytes of any kind at the body's end", b"0\r\nXX"),
    # ---- trailers
    decoded("a trailer field", "RFC 9112 7.1.2", b"0\r\nX-Sum: 1\r\n\r\n", body=b"", trailers=("X-Sum: 1",)),
    decoded(
        "several trailer fields",
        "RFC 9112 7.1.2",
        b"2\r\nab\r\n0\r\nX-A: 1\r\nX-B:2\r\n\r\n",
        body=b"ab",
        trailers=("X-A: 1", "X-B: 2"),
    ),
    *(
        decoded(
            f"{field} in a trailer does not pass",
            "RFC 9110 6.5.1",
            b"0\r\n%b: 1\r\nX-A: 1\r\n\r\n" % field.encode(),
            body=b"",
            trailers=("X-A: 1",),
        )
        for field in (
            *("Content-Length", "Transfer-Encoding", "Host", "Authorization", "X-API-Key", "Cookie", "Content-Type"),
            *(
                "X-Customer-Id",
                "X_Customer_Id",
                "X-Forwarded-For",
                "X-Request-Id",
                "X-Edge-Signature",
                "Connection",
                "TE",
            ),
        )
    ),
    no_chunk("a trailer without a colon", b"0\r\nX-A\r\n\r\n", rule="RFC 9112 7.1.2"),
    no_chunk("whitespace before a trailer's colon", b"0\r\nX-A : 1\r\n\r\n", rule="RFC 9112 7.1.2"),
    no_chunk("a folded trailer", b"0\r\nX-A: 1\r\n 2\r\n\r\n", rule="RFC 9112 7.1.2"),
    no_chunk("a bare LF in a trailer", b"0\r\nX-A: 1\nX-B: 2\r\n\r\n", rule="RFC 9112 7.1.2"),
    no_chunk("a bare CR in a trailer", b"0\r\nX-A: 1\rX-B: 2\r\n\r\n", rule="RFC 9112 7.1.2"),
    no_chunk("a request line as a trailer", b"0\r\n" + NEXT, rule="RFC 9112 7.1.2"),
    no_chunk(
        "a request line with a colon as a trailer",
        b"0\r\nX:POST /smuggled HTTP/1.1\r\nX: y\n\r\n",
        rule="RFC 9112 7.1.2",
    ),
    no_chunk("101 trailer fields", b"0\r\n" + b"X-A: 1\r\n" * 101 + b"\r\n", rule="RFC 6585 5", status=431),
    no_chunk(
        "a trailer section of more than 32 KiB",
        b"0\r\n" + (b"X-A: " + b"1" * 4000 + b"\r\n") * 9 + b"\r\n",
        rule="RFC 6585 5",
        status=431,
    ),
    no_chunk("a trailer without an end", b"0\r\nX-A: " + b"1" * 40_000, rule="RFC 6585 5", status=431),
)
"""Rows about the chunked coding."""

PERSISTENCE = (
    forwarded("one request after the other", "RFC 9112 9.3", get("/1"), "GET /1 HTTP/1.1"),
    forwarded("Connection: keep-alive", "RFC 9112 9.3", get("/1", "Connection: keep-alive"), "GET /1 HTTP/1.1"),
    forwarded(
        "Connection: close",
        "RFC 9112 9.6",
        get("/1", "Connection: close"),
        Seen("GET /1 HTTP/1.1", lacks=("Connection",)),
        ends=True,
    ),
    forwarded("Connection: Close", "RFC 9110 7.6.1", get("/1", "Connection: Close"), "GET /1 HTTP/1.1", ends=True),
    forwarded(
        "close among other options", "RFC 9110 7.6.1", get("/1", "Connection: x , close,"), "GET /1 HTTP/1.1", ends=True
    ),
    forwarded(
        "close in a second line",
        "RFC 9110 5.3",
        get("/1", "Connection: x", "Connection: close"),
        "GET /1 HTTP/1.1",
        ends=True,
    ),
    forwarded(
        "close wins over keep-alive",
        "RFC 9112 9.3",
        get("/1", "Connection: keep-alive, close"),
        "GET /1 HTTP/1.1",
        ends=True,
    ),
    forwarded(
        "nothing after close is served",
        "RFC 9112 9.6",
        get("/1", "Connection: close") + NEXT,
        "GET /1 HTTP/1.1",
        ends=True,
    ),
    forwarded(
        "ten requests at once are answered in order",
        "RFC 9112 9.3.2",
        b"".join(get(f"/{n}") for n in range(10)),
        *(f"GET /{n} HTTP/1.1" for n in range(10)),
    ),
    forwarded(
        "requests with bodies of every kind at once",
        "RFC 9112 9.3.2",
        post("Content-Length: 3", body=b"abc")
        + chunked(b"3\r\ndef\r\n0\r\n\r\n")
        + get("/3")
        + post("Content-Length: 0")
        + lines("HEAD /5 HTTP/1.1", H)
        + get("/6"),
        Seen(POST, b"abc"),
        Seen(POST, b"def"),
        "GET /3 HTTP/1.1",
        Seen(POST),
        "HEAD /5 HTTP/1.1",
        "GET /6 HTTP/1.1",
    ),
    Asked(
        "what follows a malformed request is not served",
        "RFC 9112 2.2",
        get("/1") + lines("GET / HTTP/1.1") + NEXT,
        (Seen("GET /1 HTTP/1.1"),),
        (200, 400),
        True,
    ),
    Asked(
        "a refusal that is clear about its end is followed by the next",
        "RFC 9112 9.3",
        lines("POST /reading/ HTTP/1.1", H) + NEXT,
        (Seen(NEXT_LINE),),
        (405, 200),
    ),
    Asked(
        "a refused chunked body ends the connection",
        "RFC 9112 9.3",
        lines("POST /reading/ HTTP/1.1", H, CHUNKED) + b"0\r\n\r\n" + NEXT,
        (),
        (405,),
        True,
    ),
    # ---- HTTP/1.0
    forwarded(
        "HTTP/1.0",
        "RFC 9112 9.3",
        lines("GET /1 HTTP/1.0", H),
        Seen("GET /1 HTTP/1.1", has=(H, "Via: 1.0 edgeproxy")),
        ends=True,
    ),
    forwarded(
        "HTTP/1.0 without a host",
        "RFC 9112 3.2",
        lines("GET /1 HTTP/1.0"),
        Seen("GET /1 HTTP/1.1", has=("Host: localhost",)),
        ends=True,
    ),
    forwarded(
        "HTTP/1.0 that wants to stay",
        "RFC 9112 C.2.2",
        lines("GET /1 HTTP/1.0", H, "Connection: keep-alive"),
        "GET /1 HTTP/1.1",
        ends=True,
    ),
    forwarded(
        "HTTP/1.0 with a body",
        "RFC 9112 6.3",
        lines("POST /1 HTTP/1.0", H, "Content-Length: 3") + b"abc",
        Seen("POST /1 HTTP/1.1", b"abc"),
        ends=True,
    ),
    forwarded(
        "HTTP/1.0 serves nothing behind the first",
        "RFC 9112 9.3",
        lines("GET /1 HTTP/1.0", H) + NEXT,
        "GET /1 HTTP/1.1",
        ends=True,
    ),
    forwarded(
        "an absolute-form target of HTTP/1.0",
        "RFC 9112 3.2.2",
        lines(f"GET http://{HOST}/1 HTTP/1.0"),
        Seen("GET /1 HTTP/1.1", has=(H,)),
        ends=True,
    ),
    refused("HTTP/1.0 with Transfer-Encoding", "RFC 9112 6.1", lines("POST / HTTP/1.0", H, CHUNKED) + b"0\r\n\r\n"),
    refused("HTTP/1.0 with two hosts", "RFC 9112 3.2", lines("GET / HTTP/1.0", H, "Host: internal.test")),
    forwarded(
        "HTTP/1.0 knows no expectation",
        "RFC 9110 10.1.1",
        lines("POST /1 HTTP/1.0", H, "Expect: 100-continue", "Content-Length: 3") + b"abc",
        Seen("POST /1 HTTP/1.1", b"abc", lacks=("Expect",)),
        ends=True,
    ),
    # ---- OPTIONS *
    Asked(
        "OPTIONS for the server as a whole is on no route",
        "RFC 9112 3.2.4",
        lines("OPTIONS * HTTP/1.1", H) + NEXT,
        (Seen(NEXT_LINE),),
        (404, 200),
    ),
    Asked(
        "OPTIONS for a URI without a path is that, too",
        "RFC 9112 3.2.4",
        lines(f"OPTIONS http://{HOST} HTTP/1.1", H) + NEXT,
        (Seen(NEXT_LINE),),
        (404, 200),
    ),
    forwarded(
        "OPTIONS for a URI with a path",
        "RFC 9112 3.2.4",
        lines(f"OPTIONS http://{HOST}/ HTTP/1.1", H),
        "OPTIONS / HTTP/1.1",
    ),
)
"""Rows about the requests of a connection."""
