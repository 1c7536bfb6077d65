"""Requests for the fuzzer: valid requests of every kind, and faulty ones."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.edge.http1.mutants import FRAMING, LINES, MUTATORS, REQUEST_LINES, new_start
from tests.fuzz.conversation import Planned, token

KEY = b"key-of-umbra"
HOSTS = (b"fuzz.test", b"fuzz.test:80", b"FUZZ.test.", b"[2001:db8::1]:8080", b"127.0.0.1")
FIELDS = (
    b"Accept: */*",
    b"User-Agent: fuzz/1.0 (bytes; unlimited)",
    b"Accept-Encoding: gzip, br",
    b"Cookie: a=b; c=%b",
    b"X-Forwarded-For: 198.51.100.7",
    b"X-Customer-Id: mallory",
    b"X-Request-Id: %b",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"tracestate: a=%b",
    b"Keep-Alive: timeout=5",
    b"Connection: keep-alive",
    b"Connection: X-Hop",
    b"X-Hop: %b",
    b"TE: trailers",
    b"Via: 1.0 before",
    b"Forwarded: for=198.51.100.7",
    b"X-Empty:",
    b"X-Latin: caf\xe9",
    b"X-Tab:\ta\tb\t",
    b"Authorization: Basic dXNlcjpwYXNz",
)
SIZES = (0, 1, 5, 17, 100, 1000, 5000, 20_000)
LARGE = (70_000, 150_000, 300_000)
BODIED = (b"POST", b"PUT", b"PATCH")


def sound(draw: Random) -> Planned:
    """Return a request that the edge must forward, or refuse without closing the connection."""
    kind = draw.choices(tuple(KINDS), weights=[weight for weight, _ in KINDS.values()])[0]
    created = KINDS[kind][1](draw)
    return replace(created, kind=kind)


def _plain(draw: Random) -> Planned:
    return _request(draw, draw.choice((b"GET", b"GET", b"GET", b"HEAD", b"DELETE", b"OPTIONS")))


def _sized(draw: Random) -> Planned:
    mark = token(draw)
    body = payload(draw, mark, draw.choice(SIZES))
    return _request(draw, draw.choice(BODIED), b"Content-Length: %d" % len(body), body=body, mark=mark)


def _large(draw: Random) -> Planned:
    mark = token(draw)
    body = payload(draw, mark, draw.choice(LARGE))
    if draw.random() < 0.5:
        return _request(draw, b"POST", b"Content-Length: %d" % len(body), body=body, mark=mark)
    return _request(draw, b"POST", b"Transfer-Encoding: chunked", body=chunked(draw, body, mark), mark=mark)


def _chunked(draw: Random) -> Planned:
    mark = token(draw)
    body = chunked(draw, payload(draw, mark, draw.choice(SIZES)), mark)
    coding = draw.choice((b"Transfer-Encoding: chunked", b"transfer-encoding: Chunked", b"Transfer-Encoding:chunked"))
    return _request(draw, draw.choice(BODIED), coding, body=body, mark=mark)


def _expect(draw: Random) -> Planned:
    created = draw.choice((_sized, _chunked))(draw)
    line, at = b"Expect: 100-continue\r\n", created.body_at - 2
    data = created.data[:at] + line + created.data[at:]
    return replace(created, data=data, expect=True, body_at=created.body_at + len(line))


def _upgrade(draw: Random) -> Planned:
    created = _request(
        draw, b"GET", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", connection=False
    )
    return replace(created, upgrade=True)


def _old(draw: Random) -> Planned:
    mark = token(draw)
    fields = [b"Connection: keep-alive"] if draw.random() < 0.3 else []
    body = b""
    if method_has_body := draw.random() < 0.3:
        body = payload(draw, mark, draw.choice(SIZES))
        fields.append(b"Content-Length: %d" % len(body))
    method = b"POST" if method_has_body else draw.choice((b"GET", b"GET", b"HEAD"))
    created = _request(draw, method, *fields, body=body, mark=mark, version=b"HTTP/1.0", connection=False)
    return replace(created, last=True)


def _last(draw: Random) -> Planned:
    created = _request(draw, draw.choice((b"GET", b"POST")), b"Connection: close", connection=False)
    return replace(created, last=True)


def _absolute(draw: Random) -> Planned:
    mark = token(draw)
    target = draw.choice((b"http://fuzz.test/f/%b?a=http://b/", b"HTTP://fuzz.test:80/f/%b", b"https://FUZZ.test/f/%b"))
    return _request(draw, b"GET", mark=mark, target=target % mark, host=b"fuzz.test")


def _turned_away(draw: Random) -> Planned:
    mark = token(draw)
    target, refused = draw.choice(((b"/nowhere/%b", 404), (b"/k/%b", 401), (b"/nowhere/%b/..", 404)))
    body = payload(draw, mark, draw.choice((0, 0, 5, 100)))
    fields = [b"Content-Length: %d" % len(body)] if body else []
    created = _request(draw, b"POST" if body else b"GET", *fields, body=body, mark=mark, target=target % mark)
    # The edge does not wait for the body of a refused request: it ends the connection.
    return replace(created, refused=refused, last=bool(body))


def huge(draw: Random) -> Planned:
    """Return an upload of several megabytes."""
    mark = token(draw)
    body = payload(draw, mark, draw.choice((1_000_000, 7_000_000)))
    if draw.random() < 0.5:
        created = _request(draw, draw.choice(BODIED), b"Content-Length: %d" % len(body), body=body, mark=mark)
    else:
        coded = chunked(draw, body, mark)
        created = _request(draw, draw.choice(BODIED), b"Transfer-Encoding: chunked", body=coded, mark=mark)
    return replace(created, kind="huge")


def seldom(draw: Random) -> Planned:
    """Return a request to the service with few requests."""
    mark = token(draw)
    return replace(_request(draw, b"GET", mark=mark, target=b"/s/%b" % mark), kind="seldom")


def _keyed(draw: Random) -> Planned:
    mark = token(draw)
    line = draw.choice((b"X-API-Key: %b", b"Authorization: Bearer %b", b"authorization: bearer  %b"))
    return _request(draw, b"GET", line % KEY, mark=mark, target=b"/k/%b" % mark, basic=False)


KINDS: dict[str, tuple[int, Callable[[Random], Planned]]] = {
    "plain": (30, _plain),
    "sized": (16, _sized),
    "chunked": (14, _chunked),
    "large": (2, _large),
    "expect": (5, _expect),
    "upgrade": (4, _upgrade),
    "HTTP/1.0": (5, _old),
    "close": (4, _last),
    "absolute": (4, _absolute),
    "turned away": (5, _turned_away),
    "keyed": (5, _keyed),
}
"""Each kind: its weight, and the function that creates it."""


def _request(
    draw: Random,
    method: bytes,
    *fields: bytes,
    body: bytes = b"",
    mark: bytes = b"",
    target: bytes = b"",
    host: bytes = b"",
    version: bytes = b"HTTP/1.1",
    connection: bool = True,
    basic: bool = True,
) -> Planned:
    mark = mark or token(draw)
    target = target or draw.choice(TARGETS) % mark
    lines = [b"Host: " + (host or draw.choice(HOSTS)), b"X-Token: " + mark, *fields]
    for line in draw.sample(FIELDS, draw.choice((0, 0, 1, 2, 4))):
        taken = line.startswith(b"Connection") or b"X-Hop" in line
        if (connection or not taken) and (basic or not line.startswith(b"Authorization")):
            lines.append(line % mark if b"%b" in line else line)
    draw.shuffle(lines)
    if sum(line.startswith(b"Connection: ") for line in lines) > 1:
        lines.remove(b"Connection: keep-alive")
    head = b"\r\n".join([b"%b %b %b" % (method, target, version), *lines, b"", b""])
    blank = b"\r\n" * draw.choice((0,) * 12 + (1, 3))
    data = blank + head + body
    return Planned("", data, mark, method, body_at=len(blank + head))


TARGETS = (
    b"/f/%b",
    b"/f/%b/a/b?c=d&e=%%20",
    b"/f/./%b",
    b"/x/../f/%b",
    b"/f/%b?",
    b"/f/%b/{a|b}",
    b"/f/%b;v=1?x=\\",
    b"/%%66/%b",
    b"/f/%b//a",
)


def payload(draw: Random, mark: bytes, size: int) -> bytes:
    """Return about this number of bytes. They contain the mark many times, between random bytes."""
    if size < 60:
        return (mark * 4)[:size]
    return b"".join([mark + draw.randbytes(24) for _ in range(min(size, 8000) // 40)]) * (1 + size // 8000)


def chunked(draw: Random, data: bytes, mark: bytes = b"") -> bytes:
    """Return a chunked body with random chunk sizes, extensions and trailers."""
    parts = []
    most = draw.choice((7, 100, 5000, 100_000)) if len(data) < 6000 else max(1000, len(data) // 20)
    while data:
        size = draw.randint(1, most)
        piece, data = data[:size], data[size:]
        extension = draw.choice((b"",) * 8 + (b";a", b' ;a="b c"', b";a=b;c"))
        line = b"%x" if draw.random() < 0.8 else b"%04X"
        parts.append(line % len(piece) + extension + b"\r\n" + piece + b"\r\n")
    trailers = b"X-Trailer: %b\r\nContent-Length: 7\r\n" % mark if draw.random() < 0.2 else b""
    return b"".join(parts) + draw.choice((b"0", b"0", b"000", b"0;a=b")) + b"\r\n" + trailers + b"\r\n"


# ---- faulty requests


def spoilt(draw: Random) -> Planned:
    """Return a request with one to three faults. By chance it may be valid, or be several requests."""
    created = sound(draw)
    head, body = created.data[: created.body_at].lstrip(b"\r\n"), created.data[created.body_at :]
    kind, spoil = draw.choices(SPOILERS, weights=[weight for weight, _, _ in SPOILERS])[0][1:]
    head, body = spoil(draw, head, body)
    return replace(created, kind=kind, data=head + body, sound=False, body_at=len(head))


Spoil = Callable[[Random, bytes, bytes], tuple[bytes, bytes]]


def _spoil_head(draw: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    head = head[:-2]
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        head = draw.choice((*MUTATORS, NEW_LINE))(draw, head) or b"\r\n"
    return head + b"\r\n", body


NEW_LINE = new_start(REQUEST_LINES)


def _reframe(draw: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Add framing lines that contradict the body, and a body that fits both."""
    for _ in range(draw.choice((1, 1, 2))):
        at = head.find(b"\r\n") + 2
        line = draw.choice((*FRAMING, b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"))
        head = head[:at] + line + b"\r\n" + head[at:]
    return head, _double(draw, body)


def _double(draw: Random, body: bytes) -> bytes:
    """Return a body that ends early for a reader of chunks, and contains a request."""
    hidden = b"GET /f/%b HTTP/1.1\r\nHost: fuzz.test\r\n\r\n" % token(draw)
    return draw.choice(
        (
            body,
            b"0\r\n\r\n" + hidden,
            b"5\r\nhello\r\n0\r\n\r\n" + hidden,
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden),
            hidden,
        )
    )


def _smuggle(draw: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Add two framings, one disguised so that some readers overlook it."""
    hidden = b"GET /f/%b HTTP/1.1\r\nHost: fuzz.test\r\n\r\n" % token(draw)
    body = draw.choice((b"0\r\n\r\n", b"1\r\na\r\n0\r\n\r\n", b"%x\r\n" % len(hidden))) + hidden
    lines = [b"Content-Length: %d" % draw.choice((len(body), 5, 0, len(hidden))), draw.choice(CODINGS)]
    if draw.random() < 0.3:
        lines = lines[1:]
    draw.shuffle(lines)
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"content-l", b"transfer-e"))]
    at = draw.randint(1, len(kept) - 2)
    return b"\r\n".join([*kept[:at], *lines, *kept[at:]]), body


CODINGS = (
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding: chunked\t",
    b"Transfer-Encoding: \x00chunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    b"Transfer-Encoding\r\n : chunked",
    b"X: y\r\n Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"Transfer_Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    b"Connection: Content-Length",
    b"Content-Length: 3",
    b"Content-Length: +3",
    b"Content-Length: 3, 3",
    b"Upgrade: websocket\r\nConnection: Upgrade",
)


def _spoil_body(draw: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    for _ in range(draw.choice((1, 1, 2))):
        body = spoil_bytes(draw, body)
    return head, body


def spoil_bytes(draw: Random, data: bytes) -> bytes:
    """Insert, delete or change a few bytes, in most cases near the end of a line."""
    if not data:
        return draw.choice(NOISE)
    at = draw.randrange(len(data))
    if draw.random() < 0.6:
        near = data.find(b"\r\n", at)
        at = max(0, near + draw.randint(-2, 2)) if near >= 0 else len(data)
    gone = draw.choice((0, 0, 1, 2))
    return data[:at] + draw.choice((b"", *NOISE)) + data[at + gone :]


NOISE = (
    *(b"\r", b"\n", b"\r\n", b"\0", b" ", b";", b"0", b"f", b"-", b"0x", b"\r\n\r\n", b"0\r\n\r\n", b"\t", b"\xff"),
    *(b"5\r\nhello\r\n", b"fffffffffffffffff\r\n", b"0\r\nContent-Length: 9\r\n\r\n", b"0\n\n", b"\r\r\n"),
)


def _wrong_length(draw: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Set a wrong Content-Length."""
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"content-l", b"transfer-e"))]
    length = max(0, len(body) + draw.choice((-20, -1, 1, 7, 40, 100_000)))
    return b"\r\n".join([*kept[:-2], b"Content-Length: %d" % length, b"", b""]), body


def _stuff(draw: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Insert bytes between this request and the one before it."""
    return draw.choice((*NOISE, draw.randbytes(20), b"GET", b"\r\n" * 30, b"HTTP/1.1 200 OK\r\n\r\n")) + head, body


def _overfill(draw: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Add more lines, or longer ones, than any server accepts."""
    filler = draw.choice((b"X-A: b\r\n" * 150, b"X-Long: %b\r\n" % (b"a" * 40_000), b"X-Long: %b\r\n" % (b"a" * 5000)))
    at = head.find(b"\r\n") + 2
    return head[:at] + filler + head[at:], body


def _add_lines(draw: Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    at = head.find(b"\r\n") + 2
    return head[:at] + b"".join([draw.choice(LINES) + b"\r\n" for _ in range(2)]) + head[at:], body


SPOILERS: tuple[tuple[int, str, Spoil], ...] = (
    (30, "head spoilt", _spoil_head),
    (18, "framed twice", _reframe),
    (18, "smuggling", _smuggle),
    (16, "body spoilt", _spoil_body),
    (8, "length wrong", _wrong_length),
    (6, "noise before", _stuff),
    (2, "too much", _overfill),
    (6, "lines added", _add_lines),
)
