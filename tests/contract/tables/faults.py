"""Upstreams with malformed answers: the client gets 502 with Proxy-Status (RFC 9209) or a visibly cut-off answer.

Never a wrong answer, never one that looks complete, and nothing more over that connection.
"""

from tests.contract.case import HOST, Answered, Broken, Fault, Whole, lines

H = f"Host: {HOST}"
OK = "HTTP/1.1 200 OK"
FIVE = "Content-Length: 5"
CHUNKED = "Transfer-Encoding: chunked"
HEAD = lines("HEAD / HTTP/1.1", H)
HTTP10 = lines("GET / HTTP/1.0", H)
POST = lines("POST / HTTP/1.1", H, "Content-Length: 0")
"""A request that the edge must not retry (RFC 9110 section 9.2.2)."""
NONSENSE = Fault("http_protocol_error")
ENDED = Fault("connection_terminated")
POISON = lines("HTTP/1.1 200 Poison", "Content-Length: 6") + b"poison"
"""Bytes that a client must never read as the answer to its next request."""


def no_head(name: str, sent: bytes, rule: str = "RFC 9112 4") -> Answered:
    """Return a row with a malformed head."""
    return Answered(name, rule, sent, NONSENSE)


def no_line(name: str, line: bytes) -> Answered:
    """Return a row with a malformed status line before an ordinary answer."""
    return no_head(name, line + b"\r\nContent-Length: 5\r\n\r\nhello")


def no_field(name: str, line: bytes, rule: str = "RFC 9112 5") -> Answered:
    """Return a row with a malformed field line in an ordinary answer."""
    return no_head(name, b"HTTP/1.1 200 OK\r\n" + line + b"\r\nContent-Length: 5\r\n\r\nhello", rule)


def no_framing(name: str, *fields: str, rule: str = "RFC 9112 6.3", body: bytes = b"hello") -> Answered:
    """Return a row with a body of uncertain end."""
    return no_head(name, lines(OK, *fields) + body, rule)


def no_chunk(name: str, body: bytes, rule: str = "RFC 9112 7.1", error: str = "http_protocol_error") -> Answered:
    """Return a row with a chunked body that is malformed or exceeds a bound of the edge."""
    return Answered(name, rule, lines(OK, CHUNKED) + body, Broken(error))


FAULTS = (
    # ---- status lines
    no_line("no status line", b"hello"),
    no_line("an answer of HTTP/0.9", b"<html>hello</html>"),
    no_line("an empty line for a status line", b""),
    no_line("a request for an answer", b"GET / HTTP/1.1"),
    no_line("another protocol", b"SSH-2.0-OpenSSH_9.2"),
    no_line("another protocol's name", b"ICY 200 OK"),
    no_line("a name in lower case", b"http/1.1 200 OK"),
    no_line("a later major version", b"HTTP/2.0 200 OK"),
    no_line("a version without a minor part", b"HTTP/2 200 OK"),
    no_line("a later minor version", b"HTTP/1.2 200 OK"),
    no_line("an earlier version", b"HTTP/0.9 200 OK"),
    no_line("no version", b"HTTP 200 OK"),
    no_line("no status", b"HTTP/1.1 OK"),
    no_line("a status of two digits", b"HTTP/1.1 20 OK"),
    no_line("a status of four digits", b"HTTP/1.1 2000 OK"),
    no_line("a status below 100", b"HTTP/1.1 099 OK"),
    no_line("a status with a sign", b"HTTP/1.1 +20 OK"),
    no_line("a status that is no number", b"HTTP/1.1 2x0 OK"),
    no_line("two spaces before the status", b"HTTP/1.1  200 OK"),
    no_line("a tab before the status", b"HTTP/1.1\t200 OK"),
    no_line("a space before the status line", b" HTTP/1.1 200 OK"),
    no_line("a reason phrase with a NUL", b"HTTP/1.1 200 O\0K"),
    no_line("a reason phrase with a CR", b"HTTP/1.1 200 O\rK"),
    no_line("a bare LF behind the status line", b"HTTP/1.1 200 OK\nX-A: b"),
    no_head("bare LF at the end of every line", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello\r\n\r\n"),
    # ---- fields
    no_field("a field line without a colon", b"X-A b"),
    no_field("a field line without a name", b": b"),
    no_field("a name that is none", b"X A: b"),
    no_field("a NUL in an answer's field", b"X-A: a\0b", "RFC 9110 5.5"),
    no_field("a bare CR in an answer's field", b"X-A: a\rb", "RFC 9112 2.2"),
    no_field("a bare LF in an answer's field", b"X-A: a\nX-B: b", "RFC 9112 2.2"),
    no_field("a control character in an answer's field", b"X-A: a\x01b", "RFC 9110 5.5"),
    no_field("a folded line in an answer", b"X-A: a\r\n b", "RFC 9112 5.2"),
    no_field("whitespace before the first field", b" X-A: a", "RFC 9112 2.2"),
    Answered(
        "a head of more than 64 KiB",
        "RFC 9209 2.3.21",
        lines(OK, *["X-Pad: " + "p" * 3993] * 17, FIVE) + b"hello",
        Fault("http_response_header_section_size"),
    ),
    Answered(
        "a head without an end",
        "RFC 9209 2.3.21",
        b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 100_000,
        Fault("http_response_header_section_size"),
    ),
    Answered(
        "a head of 1 MiB",
        "RFC 9209 2.3.21",
        lines(OK, *["X-Pad: " + "p" * 8000] * 130, FIVE) + b"hello",
        Fault("http_response_header_section_size"),
    ),
    # ---- framing
    no_framing("a length and chunked", FIVE, CHUNKED, body=b"0\r\n\r\n", rule="RFC 9112 6.3 (3)"),
    no_framing("chunked and a length", CHUNKED, FIVE, body=b"0\r\n\r\n", rule="RFC 9112 6.3 (3)"),
    no_framing("two lengths", FIVE, "Content-Length: 6", rule="RFC 9112 6.3 (5)"),
    no_framing("two lengths that agree", FIVE, FIVE, rule="RFC 9110 8.6"),
    no_framing("a list of lengths", "Content-Length: 5, 6", rule="RFC 9112 6.3 (5)"),
    no_framing("a list of lengths that agree", "Content-Length: 5, 5", rule="RFC 9110 8.6"),
    no_framing("a length that is no number", "Content-Length: five", rule="RFC 9112 6.3 (5)"),
    no_framing("a length with a sign", "Content-Length: +5", rule="RFC 9112 6.3 (5)"),
    no_framing("a negative length", "Content-Length: -5", rule="RFC 9112 6.3 (5)"),
    no_framing("an empty length", "Content-Length:", rule="RFC 9112 6.3 (5)"),
    no_framing("a length in hex", "Content-Length: 0x5", rule="RFC 9112 6.3 (5)"),
    no_framing("a length that 64 bits do not hold", "Content-Length: 18446744073709551621", rule="RFC 9112 6.3 (5)"),
    no_framing(
        "a length with whitespace before its colon and one without",
        "Content-Length : 5",
        "Content-Length: 6",
        rule="RFC 9112 5.1",
    ),
    no_framing("a coding that is not known", "Transfer-Encoding: gzip", rule="RFC 9112 6.1"),
    no_framing("gzip, then chunked", "Transfer-Encoding: gzip, chunked", rule="RFC 9112 6.1"),
    no_framing("chunked twice", CHUNKED, CHUNKED, body=b"0\r\n\r\n", rule="RFC 9112 6.1"),
    no_framing("an obsolete coding", "Transfer-Encoding: identity", rule="RFC 9112 6.1"),
    no_framing("an empty coding", "Transfer-Encoding:", rule="RFC 9112 6.1"),
    no_head("chunked in HTTP/1.0", lines("HTTP/1.0 200 OK", CHUNKED) + b"0\r\n\r\n", "RFC 9112 6.1"),
    # ---- chunks
    no_chunk("a size that is none", b"Z\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a size that is none, behind a good chunk", b"5\r\nhello\r\nZ\r\n"),
    no_chunk("a negative size", b"-5\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a space before a size", b" 5\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a word behind a size and a space", b"5 a\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a size that 64 bits do not hold", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a chunk longer than its size", b"4\r\nhello\r\n0\r\n\r\n"),
    no_chunk("a bare LF behind a size", b"5\nhello\r\n0\r\n\r\n"),
    no_chunk("a bare LF behind a chunk", b"5\r\nhello\n0\r\n\r\n"),
    no_chunk("a bare LF at the end", b"5\r\nhello\r\n0\r\n\n"),
    no_chunk("no chunks at all", b"hello, there is no size here\r\n\r\n"),
    no_chunk("an extension without an end", b"5;" + b"a" * 10_000, error="http_response_transfer_coding"),
    no_chunk("a trailer that is none", b"0\r\nX-A\r\n\r\n", "RFC 9112 7.1.2"),
    no_chunk("an answer for a trailer", b"0\r\n" + POISON, "RFC 9112 7.1.2"),
    no_chunk(
        "a trailer section of more than 64 KiB",
        b"0\r\n" + (b"X-A: " + b"1" * 4000 + b"\r\n") * 17 + b"\r\n",
        "RFC 9112 7.1.2",
        "http_response_trailer_section_size",
    ),
    # ---- early ends
    Answered("closed without a byte", "RFC 9209 2.3.7", b"", ENDED, then="closes", to=POST),
    Answered("reset without a byte", "RFC 9209 2.3.7", b"", ENDED, then="resets", to=POST),
    Answered("closed within the status line", "RFC 9112 8", b"HTTP/1.1 2", ENDED, then="closes"),
    Answered("closed within the head", "RFC 9112 8", b"HTTP/1.1 200 OK\r\nContent-Le", ENDED, then="closes"),
    Answered(
        "closed before the blank line", "RFC 9112 8", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", ENDED, then="closes"
    ),
    Answered("reset within the head", "RFC 9112 8", b"HTTP/1.1 200 OK\r\nContent-Le", ENDED, then="resets"),
    Answered(
        "closed behind an interim answer",
        "RFC 9112 8",
        lines("HTTP/1.1 103 Early Hints"),
        Fault("connection_terminated", interim=(103,)),
        then="closes",
    ),
    Answered(
        "closed before the body", "RFC 9112 8", lines(OK, FIVE), Broken("http_response_incomplete"), then="closes"
    ),
    Answered(
        "closed within the body",
        "RFC 9112 8",
        lines(OK, FIVE) + b"hel",
        Broken("http_response_incomplete"),
        then="closes",
    ),
    Answered(
        "reset within the body",
        "RFC 9112 8",
        lines(OK, FIVE) + b"hel",
        Broken("http_response_incomplete"),
        then="resets",
    ),
    Answered(
        "closed before the first chunk",
        "RFC 9112 8",
        lines(OK, CHUNKED),
        Broken("http_response_incomplete"),
        then="closes",
    ),
    Answered(
        "closed within a chunk",
        "RFC 9112 8",
        lines(OK, CHUNKED) + b"5\r\nhel",
        Broken("http_response_incomplete"),
        then="closes",
    ),
    Answered(
        "closed behind a chunk",
        "RFC 9112 8",
        lines(OK, CHUNKED) + b"5\r\nhello\r\n",
        Broken("http_response_incomplete"),
        then="closes",
    ),
    Answered(
        "closed within the last chunk's line",
        "RFC 9112 8",
        lines(OK, CHUNKED) + b"5\r\nhello\r\n0\r\n",
        Broken("http_response_incomplete"),
        then="closes",
    ),
    Answered(
        "closed within the trailers",
        "RFC 9112 8",
        lines(OK, CHUNKED) + b"0\r\nX-A: 1\r\n",
        Broken("http_response_incomplete"),
        then="closes",
    ),
    Answered(
        "reset within a body that would end with the connection",
        "RFC 9112 8",
        lines(OK) + b"hello",
        Broken("http_response_incomplete"),
        then="resets",
    ),
    Answered(
        "closed within a chunk, for HTTP/1.0",
        "RFC 9112 8",
        lines(OK, CHUNKED) + b"5\r\nhel",
        Broken("http_response_incomplete"),
        then="closes",
        to=HTTP10,
    ),
    Answered(
        "reset within a body that would end with the connection, for HTTP/1.0",
        "RFC 9112 8",
        lines(OK) + b"hello",
        Broken("http_response_incomplete"),
        then="resets",
        to=HTTP10,
    ),
    # ---- too much
    Answered(
        "interim answers without end",
        "RFC 9110 15.2",
        lines("HTTP/1.1 103 Early Hints") * 200 + lines(OK, FIVE) + b"hello",
        Fault("http_response_incomplete", interim=(103,) * 32),
    ),
    Answered("204 with a body", "RFC 9112 6.3 (1)", lines("HTTP/1.1 204 No Content") + b"hello", Whole(204)),
    Answered(
        "204 with a length and a body",
        "RFC 9110 8.6",
        lines("HTTP/1.1 204 No Content", FIVE) + b"hello",
        Whole(204, lacks=("Content-Length",)),
    ),
    Answered(
        "204 with chunks",
        "RFC 9112 6.1",
        lines("HTTP/1.1 204 No Content", CHUNKED) + b"0\r\n\r\n",
        Whole(204, lacks=("Transfer-Encoding",)),
    ),
    Answered("304 with a body", "RFC 9112 6.3 (1)", lines("HTTP/1.1 304 Not Modified", FIVE) + b"hello", Whole(304)),
    Answered("HEAD with a body", "RFC 9112 6.3 (1)", lines(OK, FIVE) + b"hello", Whole(has=(FIVE,)), to=HEAD),
    Answered("HEAD with chunks", "RFC 9112 6.3 (1)", lines(OK, CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n", Whole(), to=HEAD),
    Answered("204 and an answer behind it", "RFC 9112 6.3 (1)", lines("HTTP/1.1 204 No Content") + POISON, Whole(204)),
    Answered(
        "100 with a length",
        "RFC 9110 8.6",
        lines("HTTP/1.1 100 Continue", FIVE) + b"hello" + POISON,
        Fault("http_protocol_error", interim=(100,)),
    ),
    # ---- switching
    Answered(
        "101 with another protocol",
        "RFC 9110 7.8",
        lines("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: h2c") + POISON,
        Fault("http_upgrade_failed"),
        to=lines("GET / HTTP/1.1", H, "Connection: upgrade", "Upgrade: websocket"),
    ),
    Answered(
        "101 for a request that asked for h2c",
        "RFC 9110 7.8",
        lines("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: h2c") + POISON,
        Fault("http_upgrade_failed"),
        to=lines("GET / HTTP/1.1", H, "Connection: upgrade", "Upgrade: h2c"),
    ),
    Answered(
        "101 without a protocol, unasked",
        "RFC 9110 15.2.2",
        lines("HTTP/1.1 101 Switching Protocols") + POISON,
        Fault("http_upgrade_failed"),
    ),
    Answered(
        "101 to HEAD",
        "RFC 9110 15.2.2",
        lines("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: websocket"),
        Fault("http_upgrade_failed"),
        to=HEAD,
    ),
)
"""Rows about upstreams at fault."""

EXCESS = (
    *(
        Answered(f"{name} behind a length", rule, lines(OK, FIVE) + b"hello" + more, Whole(body=b"hello", has=(FIVE,)))
        for name, rule, more in (
            ("bytes", "RFC 9112 6.3 (6)", b", world"),
            ("a line end", "RFC 9112 6.3 (6)", b"\r\n"),
            ("an answer", "RFC 9112 9.2", POISON),
            ("a chunk", "RFC 9112 6.3 (6)", b"5\r\nhello\r\n0\r\n\r\n"),
        )
    ),
    Answered(
        "bytes behind a length of nought",
        "RFC 9112 6.3 (6)",
        lines(OK, "Content-Length: 0") + b"hello",
        Whole(has=("Content-Length: 0",)),
    ),
    Answered(
        "a byte behind a body of 1 MiB",
        "RFC 9112 6.3 (6)",
        lines(OK, f"Content-Length: {1 << 20}") + b"x" * (1 << 20) + b"x",
        Whole(body=b"x" * (1 << 20)),
    ),
    Answered(
        "a line end behind the answer to a POST",
        "RFC 9112 6.3 (6)",
        lines(OK, FIVE) + b"hello\r\n",
        Whole(body=b"hello"),
        to=POST,
    ),
    Answered(
        "an answer behind 304",
        "RFC 9112 6.3 (1)",
        lines("HTTP/1.1 304 Not Modified", FIVE) + POISON,
        Whole(304, has=(FIVE,)),
    ),
    Answered("an answer behind that to HEAD", "RFC 9112 6.3 (1)", lines(OK, FIVE) + POISON, Whole(), to=HEAD),
    Answered(
        "bytes behind the last chunk",
        "RFC 9112 7.1",
        lines(OK, CHUNKED) + b"5\r\nhello\r\n0\r\n\r\nX",
        Whole(body=b"hello"),
    ),
    Answered(
        "an answer behind the last chunk",
        "RFC 9112 9.2",
        lines(OK, CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n" + POISON,
        Whole(body=b"hello"),
    ),
    Answered(
        "an answer behind trailers",
        "RFC 9112 9.2",
        lines(OK, CHUNKED) + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n" + POISON,
        Whole(body=b"hello", trailers=("X-Sum: 1",)),
    ),
    Answered(
        "bytes behind a length, for HTTP/1.0",
        "RFC 9112 6.3 (6)",
        lines(OK, FIVE) + b"hello, world",
        Whole(body=b"hello", ends=True),
        to=HTTP10,
    ),
)
"""Rows about answers with bytes after their end: the answer is whole, and its connection serves no more requests."""
