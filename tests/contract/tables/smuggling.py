"""Requests that two parsers may read differently: RFC 9112 section 11.2 and known attacks.

The names come from the public literature: CL.TE, TE.CL, TE.TE, CL.0, 0.CL, and the lists of findings of HTTP Garden.
`/smuggled` is the request that an attack tries to pass to the upstream.
"""

from tests.contract.case import HOST, Asked, Seen, chunked, cut_short, forwarded, get, lines, post, refused

H = f"Host: {HOST}"
CHUNKED = "Transfer-Encoding: chunked"
SMUGGLED = get("/smuggled")
NO_CHUNK = b"0\r\n\r\n"
NEXT = get("/next")
NEXT_LINE = "GET /next HTTP/1.1"
POST = "POST / HTTP/1.1"
RULE = "RFC 9112 11.2"


def raw(fields: bytes, body: bytes = b"", line: str = POST) -> bytes:
    """Return a request with these bytes as its field lines after Host."""
    return f"{line}\r\n{H}\r\n".encode() + fields + b"\r\n" + body


def coding(name: str, value: bytes, status: int = 501, rule: str = "RFC 9112 6.1") -> Asked:
    """Return a row with a Transfer-Encoding that some servers may read as chunked and others may ignore."""
    return refused(name, rule, raw(b"Transfer-Encoding:" + value + b"\r\n", NO_CHUNK + SMUGGLED), status)


def hidden(name: str, fields: bytes, status: int = 400, rule: str = RULE) -> Asked:
    """Return a row with field lines that hide a coding or a length from some parsers."""
    return refused(name, rule, raw(fields, NO_CHUNK + SMUGGLED), status)


def length(name: str, *values: bytes, rule: str = "RFC 9112 6.3 (5)") -> Asked:
    """Return a row with Content-Length lines that the edge must refuse."""
    return refused(
        name, rule, raw(b"".join(b"Content-Length:" + value + b"\r\n" for value in values), b"hello" + SMUGGLED)
    )


LENGTH_AND_CODING = (
    refused("CL.TE", "RFC 9112 6.1", post("Content-Length: 5", CHUNKED, body=NO_CHUNK + SMUGGLED)),
    refused(
        "CL.TE with the smuggled request inside the length",
        "RFC 9112 6.1",
        post(f"Content-Length: {5 + len(SMUGGLED)}", CHUNKED, body=NO_CHUNK + SMUGGLED),
    ),
    refused(
        "TE.CL",
        "RFC 9112 6.1",
        post(CHUNKED, "Content-Length: 4", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
    ),
    refused(
        "a length of nought beside chunked",
        "RFC 9112 6.1",
        post("Content-Length: 0", CHUNKED, body=NO_CHUNK + SMUGGLED),
    ),
    refused("a length that agrees with chunked", "RFC 9112 6.1", post("Content-Length: 5", CHUNKED, body=NO_CHUNK)),
    refused(
        "a length beside a coding that is not known",
        "RFC 9112 6.1",
        post("Content-Length: 5", "Transfer-Encoding: ,chunked", body=NO_CHUNK + SMUGGLED),
    ),
    refused(
        "a length beside an empty coding",
        "RFC 9112 6.1",
        post("Content-Length: 5", "Transfer-Encoding:", body=NO_CHUNK + SMUGGLED),
    ),
    refused(
        "a length beside an obsolete coding",
        "RFC 9112 6.1",
        post("Content-Length: 5", "Transfer-Encoding: identity", body=NO_CHUNK + SMUGGLED),
    ),
    refused(
        "a length and chunked for GET",
        "RFC 9112 6.1",
        lines("GET / HTTP/1.1", H, "Content-Length: 5", CHUNKED) + NO_CHUNK + SMUGGLED,
    ),
    refused(
        "a length and chunked for HTTP/1.0",
        "RFC 9112 6.1",
        lines("POST / HTTP/1.0", H, "Content-Length: 5", CHUNKED) + NO_CHUNK + SMUGGLED,
    ),
    refused(
        "chunked for HTTP/1.0 with keep-alive",
        "RFC 9112 6.1",
        lines("POST / HTTP/1.0", H, "Connection: keep-alive", CHUNKED) + NO_CHUNK + SMUGGLED,
    ),
    refused(
        "a malformed length beside chunked",
        "RFC 9112 6.3",
        post("Content-Length: x", CHUNKED, body=NO_CHUNK + SMUGGLED),
    ),
    refused(
        "two lengths beside chunked",
        "RFC 9112 6.3",
        post("Content-Length: 5", "Content-Length: 6", CHUNKED, body=NO_CHUNK + SMUGGLED),
    ),
    refused(
        "a length that Connection names, beside chunked",
        "RFC 9110 7.6.1",
        post("Connection: Content-Length", "Content-Length: 5", CHUNKED, body=NO_CHUNK + SMUGGLED),
    ),
    refused(
        "a coding that Connection names, beside a length",
        "RFC 9110 7.6.1",
        post("Connection: Transfer-Encoding", CHUNKED, "Content-Length: 5", body=NO_CHUNK + SMUGGLED),
    ),
)
"""Rows with Content-Length beside Transfer-Encoding."""

CODINGS = (
    refused("chunked in two lines", "RFC 9112 6.1", post(CHUNKED, CHUNKED, body=NO_CHUNK + SMUGGLED)),
    refused("TE.TE, the second unknown", RULE, post(CHUNKED, "Transfer-Encoding: x", body=NO_CHUNK + SMUGGLED)),
    refused("TE.TE, the first unknown", RULE, post("Transfer-Encoding: x", CHUNKED, body=NO_CHUNK + SMUGGLED)),
    refused("TE.TE, in another case", RULE, post(CHUNKED, "transfer-encoding: identity", body=NO_CHUNK + SMUGGLED)),
    refused("TE.TE, the second empty", RULE, post(CHUNKED, "Transfer-Encoding:", body=NO_CHUNK + SMUGGLED)),
    coding("chunked with a letter before", b" xchunked"),
    coding("chunked with a letter behind", b" chunkedx"),
    coding("a part of chunked", b" chunk"),
    coding("a comma before chunked", b" ,chunked"),
    coding("a comma behind chunked", b" chunked,"),
    coding("only commas", b" ,,"),
    coding("nothing", b""),
    coding("identity, then chunked", b" identity, chunked"),
    coding("chunked, then identity", b" chunked, identity", 400, "RFC 9112 6.3 (4)"),
    coding("chunked between identities", b" identity, chunked, identity", 400, "RFC 9112 6.3 (4)"),
    coding("chunked in quotes", b' "chunked"'),
    coding("chunked in apostrophes", b" 'chunked'"),
    coding("chunked with a parameter", b" chunked;q=1"),
    coding("chunked with a semicolon", b" chunked;"),
    coding("chunked in brackets", b" [chunked]"),
    coding("two words", b" chunked x"),
    coding("an accent in chunked", b" ch\x96nked"),
    coding("a non-breaking space before chunked", b" \xa0chunked"),
    coding("a non-breaking space behind chunked", b" chunked\xa0"),
    coding("a next-line character before chunked", b" \x85chunked"),
    coding("a byte of 0xFF behind chunked", b" chunked\xff"),
    coding("a vertical tab before chunked", b" \x0bchunked", 400, "RFC 9110 5.5"),
    coding("a form feed behind chunked", b" chunked\x0c", 400, "RFC 9110 5.5"),
    coding("a NUL behind chunked", b" chunked\0", 400, "RFC 9110 5.5"),
    coding("a CR before chunked", b" \rchunked", 400, "RFC 9112 2.2"),
    coding("a CR behind chunked", b" chunked\r", 400, "RFC 9112 2.2"),
    coding("a LF before chunked", b"\nchunked", 400, "RFC 9112 2.2"),
    coding("a LF and a space before chunked", b"\n chunked", 400, "RFC 9112 2.2"),
    coding("a LF and a vertical tab before chunked", b"\n\x0bchunked", 400, "RFC 9112 2.2"),
    coding("chunked on a folded line", b"\r\n chunked", 400, "RFC 9112 5.2"),
    coding("chunked on a line folded with a tab", b"\r\n\tchunked", 400, "RFC 9112 5.2"),
    coding("a DEL before chunked", b" \x7fchunked", 400, "RFC 9110 5.5"),
    hidden("a space before the colon", b"Transfer-Encoding : chunked\r\n"),
    hidden("a tab before the colon", b"Transfer-Encoding\t: chunked\r\n"),
    hidden("a vertical tab before the colon", b"Transfer-Encoding\x0b: chunked\r\n"),
    hidden("a CR before the colon", b"Transfer-Encoding\r: chunked\r\n"),
    hidden("a LF before the colon", b"Transfer-Encoding\n: chunked\r\n"),
    hidden("a NUL before the colon", b"Transfer-Encoding\0: chunked\r\n"),
    hidden("junk before the colon", b"Transfer-Encoding x: chunked\r\n"),
    hidden("no colon", b"Transfer-Encoding chunked\r\n"),
    hidden("a space before the name", b" Transfer-Encoding: chunked\r\n"),
    hidden("the name behind a folded line", b"X-A: b\r\n Transfer-Encoding: chunked\r\n"),
    hidden("the name behind a bare CR", b"X-A: b\rTransfer-Encoding: chunked\r\n"),
    hidden("the name behind a bare LF", b"X-A: b\nTransfer-Encoding: chunked\r\n"),
    hidden("the name behind two bare LF", b"X-A: b\n\nTransfer-Encoding: chunked\r\n"),
    hidden("the name behind CR LF CR", b"X-A: b\r\n\rTransfer-Encoding: chunked\r\n"),
    hidden("a CR in the name", b"Tra\rnsfer-Encoding: chunked\r\n"),
    hidden("the name over two lines", b"Transfer-\r\nEncoding: chunked\r\n"),
    hidden("a space in the name", b"Transfer Encoding: chunked\r\n"),
    hidden("a backslash in the name", b"Transfer\\Encoding: chunked\r\n"),
    hidden("an accent in the name", b"Transf\x82r-Encoding: chunked\r\n"),
    hidden("a colon before the name", b":Transfer-Encoding: chunked\r\n"),
    forwarded(
        "an underscore in the name hides it from everybody",
        RULE,
        raw(b"Transfer_Encoding: chunked\r\n") + NEXT,
        Seen(POST, lacks=("Transfer_Encoding", "Transfer-Encoding")),
        NEXT_LINE,
    ),
    forwarded(
        "an escape in the name is another name",
        RULE,
        raw(b"Transfer-%45ncoding: chunked\r\n") + NEXT,
        Seen(POST, lacks=("Transfer-Encoding",)),
        NEXT_LINE,
    ),
    forwarded(
        "the coding in Content-Encoding is another field",
        RULE,
        raw(b"Content-Encoding: chunked\r\n") + NEXT,
        Seen(POST, has=("Content-Encoding: chunked",)),
        NEXT_LINE,
    ),
    forwarded(
        "a coding that Connection names is heeded first",
        "RFC 9110 7.6.1",
        post("Connection: Transfer-Encoding", CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n") + NEXT,
        Seen(POST, b"hello", has=(CHUNKED,)),
        NEXT_LINE,
    ),
)
"""Rows with a Transfer-Encoding that parsers may miss or read differently."""

LENGTHS = (
    length("two lengths", b" 5", b" 6"),
    length("two lengths that agree", b" 5", b" 5"),
    length("a list of lengths", b" 5, 6"),
    length("a list of lengths that agree", b" 5, 5"),
    length("a list without whitespace", b" 5,5"),
    length("a list with an empty member", b" 5,"),
    length("an empty length", b""),
    length("an empty length before another", b"", b" 5"),
    length("an empty length behind another", b" 5", b""),
    length("a length with a plus", b" +5"),
    length("a negative length", b" -5"),
    length("a negative zero", b" -0"),
    length("a length with a space within", b" 5 5"),
    length("a length with a point", b" 5.0"),
    length("a length with an exponent", b" 5e0"),
    length("a length in hex", b" 0x5"),
    length("a length with an underscore", b" 0_5"),
    length("a length in quotes", b' "5"'),
    length("letters behind a length", b" 5x"),
    length("letters for a length", b" five"),
    length("full-width digits", " ５".encode()),
    length("a superscript digit", b" \xb2"),
    length("a non-breaking space before a length", b" \xa05"),
    length("a vertical tab before a length", b" \x0b5", rule="RFC 9110 5.5"),
    length("a CR behind a length", b" 5\r", rule="RFC 9112 2.2"),
    length("a NUL behind a length", b" 5\0", rule="RFC 9110 5.5"),
    length("a length that 64 bits do not hold", b" 18446744073709551621"),
    length("a length that 63 bits do not hold", b" 9223372036854775813"),
    length("a length of many digits", b" " + b"9" * 100),
    length("a length on a folded line", b"\r\n 5", rule="RFC 9112 5.2"),
    length("a length and the rest on a folded line", b" 5\r\n 5", rule="RFC 9112 5.2"),
    hidden("a length with a space before its colon", b"Content-Length : 5\r\n"),
    hidden("a length behind a bare LF", b"X-A: b\nContent-Length: 5\r\n"),
    hidden("a length without a colon", b"Content-Length 5\r\n"),
    hidden("a next-line character behind the length's name", b"Content-Length\x85: 5\r\n"),
    hidden("a length before the first field", b"\tContent-Length: 5\r\n"),
    forwarded(
        "a length with an underscore in its name",
        RULE,
        raw(b"Content_Length: 5\r\n") + NEXT,
        Seen(POST, lacks=("Content_Length", "Content-Length")),
        NEXT_LINE,
    ),
    forwarded(
        "a length that Connection names stays",
        "RFC 9110 7.6.1",
        post("Connection: Content-Length", "Content-Length: 5", body=b"hello") + NEXT,
        Seen(POST, b"hello", has=("Content-Length: 5",)),
        NEXT_LINE,
    ),
)
"""Rows with a Content-Length that parsers may read differently."""

ENDS = (
    # ---- bodies where some expect none
    forwarded(
        "CL.0: a body for GET is a body",
        "RFC 9110 9.3.1",
        lines("GET / HTTP/1.1", H, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED + NEXT,
        Seen("GET / HTTP/1.1", SMUGGLED),
        NEXT_LINE,
    ),
    forwarded(
        "CL.0: a body for HEAD is a body",
        "RFC 9110 9.3.2",
        lines("HEAD / HTTP/1.1", H, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED + NEXT,
        Seen("HEAD / HTTP/1.1", SMUGGLED),
        NEXT_LINE,
    ),
    refused(
        "a body for CONNECT",
        "RFC 9110 9.3.6",
        lines(f"CONNECT {HOST}:80 HTTP/1.1", H, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED,
        501,
    ),
    refused(
        "a body for TRACE",
        "RFC 9110 9.3.8",
        lines("TRACE / HTTP/1.1", H, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED,
        501,
    ),
    refused("a refused head ends the connection, whatever follows", RULE, lines("GET / HTTP/1.1") + SMUGGLED),
    # ---- Expect
    refused(
        "0.CL: an expectation that is not known",
        "RFC 9110 10.1.1",
        lines("GET / HTTP/1.1", H, "Expect: y 100-continue", f"Content-Length: {len(SMUGGLED)}") + SMUGGLED,
        417,
    ),
    refused(
        "0.CL: an expectation with a parameter",
        "RFC 9110 10.1.1",
        lines("POST / HTTP/1.1", H, "Expect: 100-continue;x=y", f"Content-Length: {len(SMUGGLED)}") + SMUGGLED,
        417,
    ),
    refused(
        "0.CL: two expectations",
        "RFC 9110 10.1.1",
        lines("POST / HTTP/1.1", H, "Expect: 100-continue, x", f"Content-Length: {len(SMUGGLED)}") + SMUGGLED,
        417,
    ),
    refused(
        "an expectation folded",
        "RFC 9112 5.2",
        raw(b"Expect:\r\n 100-continue\r\nContent-Length: 5\r\n", b"hello" + SMUGGLED),
    ),
    forwarded(
        "an expectation whose body comes at once",
        "RFC 9110 10.1.1",
        lines(POST, H, "Expect: 100-continue", "Content-Length: 5") + b"hello" + NEXT,
        Seen(POST, b"hello", has=("Expect: 100-continue",)),
        NEXT_LINE,
    ),
    forwarded(
        "an expectation in another case",
        "RFC 9110 10.1.1",
        lines(POST, H, "Expect: 100-Continue", "Content-Length: 5") + b"hello" + NEXT,
        Seen(POST, b"hello", has=("Expect: 100-continue",)),
        NEXT_LINE,
    ),
    forwarded(
        "an expectation that Connection names",
        "RFC 9110 7.6.1",
        lines(POST, H, "Connection: Expect", "Content-Length: 5") + b"hello" + NEXT,
        Seen(POST, b"hello", lacks=("Expect",)),
        NEXT_LINE,
    ),
    # ---- chunks
    cut_short(
        "TERM.EXT: a LF ends a chunk's line for some",
        RULE,
        chunked(b"2;\nxx\r\n" + b"47\r\n0\r\n\r\n" + SMUGGLED + NO_CHUNK),
    ),
    cut_short("EXT.TERM: a CR ends a chunk's line for some", RULE, chunked(b"2;\rxx\r\n", NO_CHUNK, SMUGGLED)),
    cut_short("SPILL: more in a chunk than it says", RULE, chunked(b"5\r\nhelloXX0\r\n", NO_CHUNK, SMUGGLED)),
    cut_short(
        "a CR in the whitespace before an extension", RULE, chunked(b"2\r\r;a\r\n02\r\n41\r\n", NO_CHUNK, SMUGGLED)
    ),
    cut_short("a size with an underscore", RULE, chunked(b"0_2e\r\n\r\n", SMUGGLED, NO_CHUNK)),
    cut_short("a last chunk with a sign", RULE, chunked(b"-0x0\r\n\r\n", SMUGGLED)),
    cut_short("an empty size is not nought", RULE, chunked(b"\r\n\r\n", SMUGGLED)),
    cut_short("an empty line too many before the last chunk", RULE, chunked(b"2\r\nab\r\n\r\n", NO_CHUNK, SMUGGLED)),
    cut_short(
        "a size that overflows to a small one", RULE, chunked(b"10000000000000002\r\nab\r\n", NO_CHUNK, SMUGGLED)
    ),
    cut_short("a request behind a NUL in the trailer", RULE, chunked(b"0\r\nX: \0\r\n\r\n", SMUGGLED)),
    forwarded(
        "a request behind a chunked body is a request of this client",
        "RFC 9112 9.3.2",
        chunked(NO_CHUNK, SMUGGLED),
        Seen(POST),
        "GET /smuggled HTTP/1.1",
    ),
    # ---- Host and target
    refused(
        "a host that routes elsewhere, in the target", "RFC 9112 3.2.2", lines("GET http://internal.test/ HTTP/1.1", H)
    ),
    refused(
        "a host that routes elsewhere, in a second line",
        "RFC 9112 3.2",
        lines("GET / HTTP/1.1", H, "Host: internal.test"),
    ),
    refused(
        "a host that routes elsewhere, behind a space",
        "RFC 9112 5.1",
        lines("GET / HTTP/1.1", H, "Host : internal.test"),
    ),
    refused(
        "a host that routes elsewhere, on a folded line",
        "RFC 9112 5.2",
        lines("GET / HTTP/1.1", H, " Host: internal.test"),
    ),
    Asked(
        "the host that Host names is the one that is asked for a key",
        "RFC 9112 3.2",
        lines("GET / HTTP/1.1", "Host: INTERNAL.test.:80"),
        (),
        (401,),
    ),
    forwarded(
        "a host that routes elsewhere, in other fields",
        "docs/design/contract.md#stamps",
        get("/x", "X-Forwarded-Host: internal.test", "X-Host: internal.test", "Forwarded: host=internal.test"),
        Seen("GET /x HTTP/1.1", has=(H, f"X-Forwarded-Host: {HOST}"), lacks=("Forwarded",)),
    ),
    refused("a line break in the target", "RFC 9112 3.2", lines("GET /a\r\nX-Injected: b HTTP/1.1", H)),
    refused("a bare LF in the target", "RFC 9112 3.2", f"GET /a\nX-Injected: b HTTP/1.1\r\n{H}\r\n\r\n".encode()),
    forwarded(
        "an escaped line break in the target stays escaped",
        "RFC 3986 2.1",
        get("/a%0d%0aX-Injected:%20b"),
        Seen("GET /a%0D%0AX-Injected:%20b HTTP/1.1", lacks=("X-Injected",)),
    ),
    refused(
        "a request line in the target", "RFC 9112 3", f"GET / HTTP/1.1 GET /smuggled HTTP/1.1\r\n{H}\r\n\r\n".encode()
    ),
    # ---- upgrades
    forwarded(
        "h2c is not for a gateway",
        "RFC 9110 7.8",
        get("/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        Seen("GET /x HTTP/1.1", lacks=("Connection", "Upgrade", "HTTP2-Settings")),
    ),
    forwarded(
        "h2c that is not named",
        "RFC 9110 7.8",
        get("/x", "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
        Seen("GET /x HTTP/1.1", lacks=("Connection", "Upgrade")),
    ),
    forwarded(
        "another protocol",
        "RFC 9110 7.8",
        get("/x", "Connection: Upgrade", "Upgrade: TLS/1.0"),
        Seen("GET /x HTTP/1.1", lacks=("Connection", "Upgrade")),
    ),
    forwarded(
        "an upgrade that Connection does not name",
        "RFC 9110 7.8",
        get("/x", "Upgrade: websocket"),
        Seen("GET /x HTTP/1.1", lacks=("Connection", "Upgrade")),
    ),
    forwarded(
        "an upgrade with a body is none",
        "RFC 6455 4.1",
        lines("POST / HTTP/1.1", H, "Connection: Upgrade", "Upgrade: websocket", "Content-Length: 5") + b"hello" + NEXT,
        Seen(POST, b"hello", lacks=("Connection", "Upgrade")),
        NEXT_LINE,
    ),
    forwarded(
        "an upgrade with a chunked body is none",
        "RFC 6455 4.1",
        chunked(b"5\r\nhello\r\n", NO_CHUNK, fields=("Connection: Upgrade", "Upgrade: websocket")) + NEXT,
        Seen(POST, b"hello", lacks=("Connection", "Upgrade")),
        NEXT_LINE,
    ),
    forwarded(
        "an upgrade of HTTP/1.0 is none",
        "RFC 9110 7.8",
        lines("GET /x HTTP/1.0", H, "Connection: Upgrade", "Upgrade: websocket"),
        Seen("GET /x HTTP/1.1", lacks=("Connection", "Upgrade")),
        ends=True,
    ),
    forwarded(
        "a WebSocket that the upstream answers with 200 is none",
        "RFC 6455 4.2.2",
        get("/x", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13") + NEXT,
        Seen("GET /x HTTP/1.1", has=("Upgrade: websocket",)),
        NEXT_LINE,
    ),
)
"""Rows about the end of a request and the start of the next one."""

READ_OVER = (
    Asked(
        "CL.0: a body for a method that is refused",
        "RFC 9112 9.3",
        lines("POST /reading/ HTTP/1.1", H, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED + NEXT,
        (Seen(NEXT_LINE),),
        (405, 200),
    ),
    Asked(
        "CL.0: a body for a route that wants a key",
        "RFC 9112 9.3",
        lines("POST /keyed/ HTTP/1.1", H, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED + NEXT,
        (Seen(NEXT_LINE),),
        (401, 200),
    ),
    Asked(
        "CL.0: a body for OPTIONS *",
        "RFC 9110 9.3.7",
        lines("OPTIONS * HTTP/1.1", H, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED + NEXT,
        (Seen(NEXT_LINE),),
        (404, 200),
    ),
)
"""Rows with unwanted bodies. The edge skips a body that came with its head, and closes the connection otherwise."""
