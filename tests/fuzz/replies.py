"""Replies of the fuzzer's upstream: valid replies of every kind, and faulty ones."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.edge.http1.mutants import FRAMING, MUTATORS, STATUS_LINES, new_start
from tests.fuzz.conversation import ANSWER, POISON, Planned, Reply
from tests.fuzz.requests import SIZES, chunked, spoil_bytes

LARGE = (70_000, 200_000, 600_000)
REASONS = {200: b"OK", 201: b"Created", 204: b"No Content", 304: b"Not Modified", 404: b"Not Found", 500: b"Oh"}
FIELDS = (
    b"Server: fuzz",
    b"Date: Tue, 15 Nov 1994 08:12:31 GMT",
    b"Content-Type: application/octet-stream",
    b"Set-Cookie: a=" + ANSWER,
    b"Set-Cookie: b=c; HttpOnly",
    b"X-Request-Id: " + ANSWER,
    b'RateLimit: "default";r=1;t=2',
    b"Keep-Alive: timeout=5",
    b"Vary: Origin",
    b"X-Spaced : " + ANSWER,
    b"X-Latin: caf\xe9",
    b"Trailer: X-Trailer",
)
UNASKED = b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\nX-Answer: " + POISON + b"\r\n\r\n" + POISON
INTERIMS = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Answer: " + ANSWER + b"\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\nX-Answer: " + ANSWER + b"\r\n\r\n",
)


def sound(draw: Random, request: Planned) -> Reply:
    """Return a reply that the client must get unchanged."""
    if request.upgrade and draw.random() < 0.75:
        return _switch(draw)
    old = draw.random() < 0.05
    version = b"HTTP/1.0" if old else b"HTTP/1.1"
    status = draw.choice((200, 200, 200, 200, 201, 204, 304, 404, 500))
    bodiless = status in (204, 304) or request.method == b"HEAD"
    size = draw.choice(LARGE) if draw.random() < 0.02 else draw.choice(SIZES)
    body = ANSWER + draw.randbytes(size) if size else b""
    lines = [b"X-Answer: " + ANSWER, *draw.sample(FIELDS, draw.choice((0, 0, 1, 2, 4)))]
    framing = draw.choices(("sized", "chunked", "until close"), weights=(60, 30, 10))[0]
    end = "keep"
    if framing == "until close" and not bodiless:
        end = "fin"
    elif framing == "chunked" and not old and status != 204:
        lines.append(b"Transfer-Encoding: chunked")
        body = chunked(draw, body, ANSWER)
    elif status != 204:
        lines.append(b"Content-Length: %d" % len(body))
    if end == "keep" and (old or draw.random() < 0.05):
        end = "fin"
        if not old:
            lines.append(b"Connection: close")
    draw.shuffle(lines)
    head = b"\r\n".join([b"%b %d %b" % (version, status, REASONS[status]), *lines, b"", b""])
    if not old and draw.random() < 0.08:
        head = b"".join(draw.choices(INTERIMS, k=draw.randint(1, 3))) + head
    data = head if bodiless else head + body
    reply = Reply(f"{framing} {version.decode()}", sound=True, data=data, end=end, cuts=cuts(draw, len(data)))
    return _in_time(draw, reply, request)


def large(draw: Random, request: Planned) -> Reply:
    """Return a valid reply of several megabytes."""
    body = ANSWER + draw.randbytes(50_000) * draw.choice((20, 160))
    lines = [b"HTTP/1.1 200 OK", b"X-Answer: " + ANSWER, b"Content-Length: %d" % len(body)]
    if draw.random() < 0.5:
        lines[2] = b"Transfer-Encoding: chunked"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    if request.method == b"HEAD":
        body = b""
    return Reply("large", sound=True, data=b"\r\n".join([*lines, b"", b""]) + body)


def slow(draw: Random, request: Planned) -> Reply:
    """Return a valid reply from an upstream that waits before it reads the request's body."""
    return replace(sound(draw, request), wait=draw.choice((0.05, 0.2, 0.4)), kind="slow")


def _switch(draw: Random) -> Reply:
    lines = [b"Connection: Upgrade", b"Upgrade: websocket", b"X-Answer: " + ANSWER]
    draw.shuffle(lines)
    head = b"\r\n".join([b"HTTP/1.1 101 Switching Protocols", *lines, b"", b""])
    words = ANSWER * draw.choice((0, 0, 1, 50))
    return Reply("switch", sound=True, data=head + words, cuts=cuts(draw, len(head + words)))


def _in_time(draw: Random, made: Reply, request: Planned) -> Reply:
    """Add a 100 if the client waits for one, or send the reply before the body has arrived."""
    if request.expect and draw.random() < 0.8:
        first = b"HTTP/1.1 100 Continue\r\n" + draw.choice((b"", b"X-Answer: " + ANSWER + b"\r\n")) + b"\r\n"
        return replace(made, first=first)
    if request.expect or draw.random() < 0.06:
        return replace(made, early=True, kind="early")
    return made


def cuts(draw: Random, length: int) -> tuple[tuple[int, float], ...]:
    """Return random offsets for cuts in this number of bytes, each with a pause in seconds."""
    if length < 2 or draw.random() < 0.55:
        return ()
    places = sorted({draw.randrange(1, length) for _ in range(draw.choice((1, 1, 2, 4)))})
    return tuple((place, draw.choice((0.0, 0.0, 0.001, 0.005))) for place in places)


# ---- faulty replies


def spoilt(draw: Random, request: Planned) -> Reply:
    """Return a reply with a random fault. By chance the result may be valid."""
    kind, spoil = draw.choices(SPOILERS, weights=[weight for weight, _, _ in SPOILERS])[0][1:]
    created = sound(draw, request)
    created = spoil(draw, created)
    kept = tuple(cut for cut in created.cuts if cut[0] < len(created.data))
    return replace(created, kind=kind, sound=False, cuts=kept)


def _spoil_head(draw: Random, made: Reply) -> Reply:
    head, _, body = made.data.partition(b"\r\n\r\n")
    head += b"\r\n"
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        head = draw.choice((*MUTATORS, NEW_STATUS))(draw, head) or b"\r\n"
    return replace(made, data=head + b"\r\n" + body)


NEW_STATUS = new_start(STATUS_LINES)


def _reframe(draw: Random, made: Reply) -> Reply:
    at = made.data.rfind(b"\r\n", 0, made.data.find(b"\r\n\r\n") + 2) + 2
    line = draw.choice((*FRAMING, b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Content-Length: 100000"))
    return replace(made, data=made.data[:at] + line + b"\r\n" + made.data[at:])


def _spoil_body(draw: Random, made: Reply) -> Reply:
    at = made.data.find(b"\r\n\r\n") + 4
    return replace(made, data=made.data[:at] + spoil_bytes(draw, made.data[at:]))


def _truncate(draw: Random, made: Reply) -> Reply:
    at = draw.randrange(len(made.data))
    if draw.random() < 0.4:
        at = max(0, len(made.data) - draw.randint(1, 8))
    return replace(made, data=made.data[:at], end=draw.choice(("fin", "fin", "fin", "rst", "rst", "rst", "stall")))


def _lost(draw: Random, made: Reply) -> Reply:
    """Close the connection before the reply, once or twice."""
    return replace(made, lost=draw.choice((1, 1, 1, 2)))


def _no_answer(draw: Random, made: Reply) -> Reply:
    end = draw.choice(("fin", "fin", "rst", "rst", "stall"))
    return replace(made, data=b"", cuts=(), end=end, first=b"", early=draw.random() < 0.5)


def _extra(draw: Random, made: Reply) -> Reply:
    """Add bytes after a whole answer, in the last piece of it."""
    extra = draw.choice((UNASKED, UNASKED, b"\r\n", b"x", draw.randbytes(30), UNASKED * 2))
    return replace(made, data=made.data + extra, cuts=(), end="keep")


def _late(draw: Random, made: Reply) -> Reply:
    """Add bytes some time after a whole answer."""
    return replace(made, late=draw.choice((UNASKED, UNASKED.replace(b"200 OK", b"408 Request Timeout"), b"\r\n")))


def spoilt_late(draw: Random, request: Planned) -> Reply:
    """Return a whole answer. The upstream then spoils the connection or closes it without notice."""
    made = replace(sound(draw, request), early=False)
    while made.end != "keep":
        made = replace(sound(draw, request), early=False)
    made = _late(draw, made) if draw.random() < 0.7 else replace(made, end="fin")
    # Late bytes may still come with the answer.
    return replace(made, kind="spoilt while idle", sound=not made.late)


def _flood(draw: Random, made: Reply) -> Reply:
    """Add more interim answers than any client accepts."""
    return replace(made, data=draw.choice(INTERIMS) * draw.choice((20, 40, 200)) + made.data, cuts=())


def _switch_unasked(draw: Random, made: Reply) -> Reply:
    return replace(_switch(draw), data=_switch(draw).data + draw.choice((b"", UNASKED)))


def _reset(draw: Random, made: Reply) -> Reply:
    """Break the connection after the answer, or close it without notice."""
    return replace(made, end=draw.choice(("rst", "fin")))


def _until_broken(draw: Random, made: Reply) -> Reply:
    """Return a body that ends with its connection, and reset the connection."""
    data = b"HTTP/1.1 200 OK\r\nX-Answer: %b\r\n\r\n%b" % (ANSWER, ANSWER * draw.randint(1, 400))
    return replace(made, data=data, cuts=cuts(draw, len(data)), end="rst", early=False)


def _junk(draw: Random, made: Reply) -> Reply:
    """Return bytes that are not HTTP."""
    data = draw.choice((draw.randbytes(60), b"\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"<html>\r\n\r\n", b"\0" * 9))
    return replace(made, data=data, cuts=(), end=draw.choice(("keep", "fin")))


def _overfill(draw: Random, made: Reply) -> Reply:
    at = made.data.find(b"\r\n") + 2
    filler = draw.choice((b"X-A: b\r\n" * 200, b"X-Long: %b\r\n" % (b"a" * 40_000)))
    return replace(made, data=made.data[:at] + filler + made.data[at:])


Spoil = Callable[[Random, Reply], Reply]
SPOILERS: tuple[tuple[int, str, Spoil], ...] = (
    (24, "head spoilt", _spoil_head),
    (12, "framed twice", _reframe),
    (12, "body spoilt", _spoil_body),
    (16, "truncated", _truncate),
    (6, "no answer", _no_answer),
    (8, "lost at first", _lost),
    (10, "extra bytes", _extra),
    (3, "late bytes", _late),
    (3, "interim flood", _flood),
    (4, "101 unasked", _switch_unasked),
    (5, "reset behind", _reset),
    (5, "broken until close", _until_broken),
    (4, "junk", _junk),
    (2, "too much", _overfill),
)
