"""Request lines: RFC 9112 sections 2 and 3, methods of RFC 9110 section 9."""

from tests.contract.case import HOST, Asked, Seen, forwarded, get, lines, refused

H = f"Host: {HOST}"
TAIL = f"\r\n{H}\r\n\r\n".encode()


def first(line: bytes) -> bytes:
    """A request with this first line and nothing but a Host."""
    return line + TAIL


LONGEST = b"GET /" + b"a" * ((32 << 10) - len(b"GET / HTTP/1.1") - len(TAIL) + 4) + b" HTTP/1.1"
"""The request line of a head of 32 KiB that has no field but Host (docs/design/contract.md#requests)."""
TOO_LONG = b"GET /" + b"a" * (32 << 10) + b" HTTP/1.1"
"""A request line that alone is longer than a head may be."""

START_LINE = (
    # ---- methods
    *(
        forwarded(
            f"{method} is forwarded", "RFC 9110 9.3", first(f"{method} /m HTTP/1.1".encode()), f"{method} /m HTTP/1.1"
        )
        for method in (
            *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY", "VERSION-CONTROL"),
            *("FROBNICATE", "GETX", "m-search", "G!#$%&'*+-.^_`|~ET"),
        )
    ),
    refused("a method in lower case is another method", "RFC 9110 9.1", first(b"get / HTTP/1.1"), 501),
    refused("a method of WebDAV in lower case", "RFC 9110 9.1", first(b"propfind / HTTP/1.1"), 501),
    refused("a method that is reserved", "RFC 9110 18.2", first(b"* / HTTP/1.1"), 501),
    refused("CONNECT to an authority", "RFC 9110 9.3.6", first(f"CONNECT {HOST}:80 HTTP/1.1".encode()), 501),
    refused("CONNECT to a path", "RFC 9110 9.3.6", first(b"CONNECT /x HTTP/1.1"), 501),
    refused("TRACE", "RFC 9110 9.3.8", first(b"TRACE / HTTP/1.1"), 501),
    refused("a method that is no token", "RFC 9112 3.1", first(b"G(E)T / HTTP/1.1")),
    refused("a method with a colon", "RFC 9112 3.1", first(b"GET: / HTTP/1.1")),
    refused("no method", "RFC 9112 3.1", first(b" / HTTP/1.1")),
    refused("a method with a NUL", "RFC 9112 3.1", first(b"G\0ET / HTTP/1.1")),
    refused("a method with a byte above ASCII", "RFC 9112 3.1", first(b"G\xc9T / HTTP/1.1")),
    refused("quotes and brackets in the method", "RFC 9112 3.1", first(b'G=":<>(e),[T];?" / HTTP/1.1')),
    # ---- the line's shape
    refused("two spaces before the target", "RFC 9112 3", first(b"GET  / HTTP/1.1")),
    refused("two spaces before the version", "RFC 9112 3", first(b"GET /  HTTP/1.1")),
    refused("a space behind the version", "RFC 9112 3", first(b"GET / HTTP/1.1 ")),
    refused("a space before the method", "RFC 9112 3", first(b" GET / HTTP/1.1")),
    refused("a tab before the target", "RFC 9112 3", first(b"GET\t/ HTTP/1.1")),
    refused("a tab before the version", "RFC 9112 3", first(b"GET /\tHTTP/1.1")),
    refused("a vertical tab before the version", "RFC 9112 3", first(b"GET /\x0bHTTP/1.1")),
    refused("a form feed before the version", "RFC 9112 3", first(b"GET /\x0cHTTP/1.1")),
    refused("a CR between the parts", "RFC 9112 3", first(b"GET /\rHTTP/1.1")),
    refused("a LF between the parts", "RFC 9112 3", first(b"GET /\nHTTP/1.1")),
    refused("four parts", "RFC 9112 3", first(b"GET / / HTTP/1.1")),
    refused("no target", "RFC 9112 3", first(b"GET HTTP/1.1")),
    refused("only a method", "RFC 9112 3", first(b"GET")),
    refused("only garbage", "RFC 9112 2.2", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    # ---- versions
    refused("HTTP/0.9 has no version", "RFC 9112 2.3", b"GET /\r\n\r\n"),
    refused("HTTP/0.9 with a version", "RFC 9110 15.6.6", first(b"GET / HTTP/0.9"), 505),
    refused("a later minor version", "RFC 9110 15.6.6", first(b"GET / HTTP/1.2"), 505),
    refused("a later major version", "RFC 9110 15.6.6", first(b"GET / HTTP/2.0"), 505),
    refused("a version of HTTP/3", "RFC 9110 15.6.6", first(b"GET / HTTP/3.0"), 505),
    refused("a version without a minor part", "RFC 9112 2.3", first(b"GET / HTTP/1")),
    refused("a version with two digits", "RFC 9112 2.3", first(b"GET / HTTP/1.10")),
    refused("a version with leading zeros", "RFC 9112 2.3", first(b"GET / HTTP/01.1")),
    refused("a version with a longer prefix", "RFC 9112 2.3", first(b"GET / HTTP/1.1x")),
    refused("a version that overflows", "RFC 9112 2.3", first(b"GET / HTTP/4294967297.1")),
    refused("a version in lower case", "RFC 9112 2.3", first(b"GET / http/1.1")),
    refused("a version with a space", "RFC 9112 2.3", first(b"GET / HTTP/1. 1")),
    refused("another protocol's name", "RFC 9112 2.3", first(b"GET / RTSP/1.1")),
    refused("the name in a comma", "RFC 9112 2.3", first(b"GET / HTTP/1,1")),
    # ---- line ends and empty lines
    forwarded("an empty line before the request", "RFC 9112 2.2", b"\r\n" + get("/e"), "GET /e HTTP/1.1"),
    forwarded("several empty lines before the request", "RFC 9112 2.2", b"\r\n\r\n\r\n" + get("/e"), "GET /e HTTP/1.1"),
    forwarded(
        "an empty line between two requests",
        "RFC 9112 2.2",
        get("/1") + b"\r\n" + get("/2"),
        "GET /1 HTTP/1.1",
        "GET /2 HTTP/1.1",
    ),
    forwarded(
        "an empty line behind a body that did not count it",
        "RFC 9112 2.2",
        lines("POST /1 HTTP/1.1", H, "Content-Length: 3") + b"abc\r\n" + get("/2"),
        Seen("POST /1 HTTP/1.1", b"abc"),
        "GET /2 HTTP/1.1",
    ),
    refused("a LF as an empty line before the request", "RFC 9112 2.2", b"\n" + get()),
    refused("a CR before the request", "RFC 9112 2.2", b"\r" + get()),
    refused("a space in the empty line before the request", "RFC 9112 2.2", b" \r\n" + get()),
    refused("bare LF at the end of every line", "RFC 9112 2.2", f"GET / HTTP/1.1\n{H}\n\n".encode()),
    refused("bare LF behind the request line", "RFC 9112 2.2", f"GET / HTTP/1.1\n{H}\r\n\r\n".encode()),
    refused("bare CR at the end of every line", "RFC 9112 2.2", f"GET / HTTP/1.1\r{H}\r\r".encode() + b"\r\n\r\n"),
    refused("CR CR LF behind the request line", "RFC 9112 2.2", f"GET / HTTP/1.1\r\r\n{H}\r\n\r\n".encode()),
    refused("whitespace between the request line and the fields", "RFC 9112 2.2", lines("GET / HTTP/1.1", f" {H}")),
    refused("a folded request line", "RFC 9112 2.2", lines("GET / HTTP/1.1", " X: y", H)),
    refused("a byte order mark before the request", "RFC 9112 2.1", b"\xef\xbb\xbf" + get()),
    # ---- length
    forwarded("a request line of almost 32 KiB", "RFC 9112 3", first(LONGEST), LONGEST.decode()),
    refused("a head of one byte more", "RFC 6585 5", first(LONGEST.replace(b"GET /", b"GET /a")), 431),
    refused("a request line of more than 32 KiB", "RFC 9110 15.5.15", first(TOO_LONG), 414),
    refused("a request line without an end", "RFC 9110 15.5.15", TOO_LONG, 414),
    refused("a method without an end", "RFC 9110 15.5.15", b"G" * 40_000, 414),
)
"""Rows about request lines."""

assert all(isinstance(row, Asked) for row in START_LINE)
