"""Field lines: RFC 9112 section 5, RFC 9110 section 5, and their highest number (RFC 6585 section 5)."""

from tests.contract.case import HOST, Asked, Seen, forwarded, get, lines, refused

LINE = "GET /f HTTP/1.1"
OWN = 1
"""Lines that `get` writes itself: Host."""


def kept(name: str, *fields: str, rule: str = "RFC 9110 5.5", has: tuple[str, ...] | None = None) -> Asked:
    """Fields that reach the upstream."""
    return forwarded(name, rule, get("/f", *fields), Seen(LINE, has=fields if has is None else has))


def malformed(name: str, *between: bytes, rule: str = "RFC 9112 5.1") -> Asked:
    """Bytes between the Host line and the blank line that make the head malformed."""
    return refused(name, rule, f"{LINE}\r\nHost: {HOST}\r\n".encode() + b"".join(between) + b"\r\n")


def value(name: str, byte: bytes, rule: str = "RFC 9110 5.5") -> tuple[Asked, ...]:
    """Return rows with a byte that is invalid in a field value: first, in the middle, and last."""
    return (
        malformed(f"{name} first in a value", b"X-A: " + byte + b"b\r\n", rule=rule),
        malformed(f"{name} within a value", b"X-A: a" + byte + b"b\r\n", rule=rule),
        malformed(f"{name} last in a value", b"X-A: a" + byte + b"\r\n", rule=rule),
    )


def field_name(name: str, text: bytes) -> Asked:
    """Return a row with an invalid field name."""
    return malformed(name, text + b": b\r\n", rule="RFC 9110 5.1")


def padded(size: int) -> bytes:
    """Return a request with a head of this size, including its blank line."""
    lots = ["X-Pad: " + "p" * 4000] * (size // 5000)
    missing = size - len(get("/f", *lots, "X-Pad: "))
    return get("/f", *lots, "X-Pad: " + "p" * missing)


FIELDS = (
    # ---- what passes
    kept("a value with a colon", "X-A: b:c"),
    kept("a value with commas and quotes", 'X-A: "b, c", d'),
    kept("an empty value", "X-A:"),
    kept("no whitespace behind the colon", "X-A:b", has=("X-A: b",)),
    kept("much whitespace around a value", "X-A: \t  b \t ", has=("X-A: b",)),
    kept("whitespace within a value", "X-A: b \t c"),
    kept("bytes above ASCII in a value", "X-A: \xe9\xff\x80"),
    kept("a name of every token character", "!#$%&'*+-.^_`|~0aZ: b"),
    kept("a value of one long line", "X-A: " + "b" * 20_000),
    kept("a cookie of 4 KiB", "Cookie: " + "c" * 4096),
    kept("a name with an underscore that is nobody's", "X_Thing: 1"),
    forwarded(
        "the same name twice",
        "RFC 9110 5.3",
        get("/f", "Cookie: a=b", "X-B: 1", "Cookie: c=d"),
        Seen(LINE, has=("X-B: 1",)),
    ),
    # ---- names
    malformed("whitespace before the colon", b"X-A : b\r\n"),
    malformed("a tab before the colon", b"X-A\t: b\r\n"),
    malformed("no colon", b"X-A b\r\n"),
    malformed("no name", b": b\r\n"),
    malformed("nothing but a colon", b":\r\n"),
    malformed("a name alone", b"X-A\r\n"),
    malformed("a name over two lines", b"X-\r\nA: b\r\n"),
    field_name("a space in a name", b"X A"),
    field_name("a NUL in a name", b"X\0A"),
    field_name("a CR in a name", b"X\rA"),
    field_name("a LF in a name", b"X\nA"),
    field_name("a byte above ASCII in a name", b"X\xe9A"),
    field_name("a non-breaking space behind a name", b"X-A\xa0"),
    field_name("a next-line character behind a name", b"X-A\x85"),
    field_name("an at sign in a name", b"X@A"),
    field_name("a slash in a name", b"X/A"),
    field_name("a quote in a name", b'"X-A"'),
    field_name("brackets in a name", b"X[A]"),
    field_name("a semicolon in a name", b"X;A"),
    field_name("a pseudo-header of HTTP/2", b":authority"),
    # ---- folding
    malformed("a folded line", b"X-A: b\r\n c\r\n", rule="RFC 9112 5.2"),
    malformed("a line folded with a tab", b"X-A: b\r\n\tc\r\n", rule="RFC 9112 5.2"),
    malformed("a folded line that looks like a field", b"X-A: b\r\n X-B: c\r\n", rule="RFC 9112 5.2"),
    malformed("a line of whitespace", b"X-A: b\r\n \r\n", rule="RFC 9112 5.2"),
    malformed("a folded line of framing", b"Transfer-Encoding:\r\n chunked\r\n", rule="RFC 9112 5.2"),
    # ---- values
    *value("a NUL", b"\0"),
    *value("a bare CR", b"\r", "RFC 9112 2.2"),
    *value("a bare LF", b"\n", "RFC 9112 2.2"),
    *value("a vertical tab", b"\x0b"),
    *value("a form feed", b"\x0c"),
    *value("a backspace", b"\x08"),
    *value("an escape", b"\x1b"),
    *value("a DEL", b"\x7f"),
    malformed("CR CR LF behind a field line", b"X-A: b\r\r\n", rule="RFC 9112 2.2"),
    malformed("LF CR behind a field line", b"X-A: b\n\r", b"X-B: c\r\n", rule="RFC 9112 2.2"),
    malformed("a head that ends with LF LF", b"X-A: b\n\n", get("/smuggled"), rule="RFC 9112 2.2"),
    malformed("a head that ends with CR LF LF", b"X-A: b\r\n\n", get("/smuggled"), rule="RFC 9112 2.2"),
    malformed("a head that ends with LF CR LF", b"X-A: b\n\r\n", get("/smuggled"), rule="RFC 9112 2.2"),
    malformed("a head that ends with CR LF CR and a letter", b"X-A: b\r\n\rZ", get("/smuggled"), rule="RFC 9112 2.2"),
    # ---- how many, how long
    forwarded("100 field lines", "RFC 6585 5", get("/f", *["X-A: b"] * (100 - OWN)), LINE),
    refused("101 field lines", "RFC 6585 5", get("/f", *["X-A: b"] * (101 - OWN)), 431),
    forwarded("a head of 32 KiB", "RFC 6585 5", padded(32 << 10), LINE),
    refused("a head of more than 32 KiB before its blank line", "RFC 6585 5", padded((32 << 10) + 5), 431),
    refused("a field line without an end", "RFC 6585 5", lines(LINE, "X-A: b")[:-2] + b"X-B: " + b"c" * 40_000, 431),
    refused("many lines without an end", "RFC 6585 5", lines(LINE, *["X-A: b"] * 5000)[:-2], 431),
    refused("a name without an end", "RFC 6585 5", lines(LINE)[:-2] + b"X" * 40_000, 431),
)
"""Rows about field lines."""
