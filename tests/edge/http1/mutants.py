"""Heads with one to four faults. The mutators aim at the parts of a head that are easily misread."""

from collections.abc import Callable, Iterator
from random import Random

INTERESTING = (
    *(b"\r", b"\n", b"\r\n", b"\r\r\n", b"\n\r\n", b"\r\n\r\n", b" ", b"\t", b"\r\n ", b"\r\n\t", b"\0", b"\x0b"),
    *(b"\x0c", b"\x7f", b"\x80", b"\xa0", b"\xff", b":", b"::", b" :", b": ", b",", b";", b"=", b'"', b"(", b"/"),
    *(b"?", b"#", b"%", b"@", b"[", b"]", b"\\", b"|", b"_", b"-", b"+", b".", b"0", b"1", b"9", b"a", b"F", b"x"),
)

FRAMING = (
    *(b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: 5, 5", b"Content-Length: +5", b"Content-Length:"),
    *(
        b"Content-Length: 05",
        b"Content-Length: 5 ",
        b"Content-Length: 0x5",
        b"Content-Length : 5",
        b"Content_Length: 5",
    ),
    *(b"content-length:\t7", b"Content-Length: 99999999999999999999", b"Content-Length: 1844674407370955161"),
    *(b"Content-Length: 5;a", b"Content-Length: 1e1", b"Content-Length: 1 2", b"Content-Length: -1"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked", b"Transfer-Encoding: chunked, chunked"),
    *(b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding: identity"),
    *(b"Transfer-Encoding:\tchunked\t", b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked;q=1"),
    *(
        b"Transfer-Encoding:",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunkedx",
        b"Transfer_Encoding: chunked",
    ),
    *(
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding: \x0bchunked",
        b'Transfer-Encoding: "chunked"',
        b"TE: trailers",
    ),
)

CONNECTION = (
    *(b"Connection: close", b"Connection: keep-alive", b"Connection: Keep-Alive, close", b"Connection: close, x"),
    *(
        b"Connection: upgrade",
        b"Connection: keep-alive, Upgrade",
        b"Connection:",
        b"Connection: ,",
        b"Connection: closed",
    ),
    *(b"Connection: x close", b"Connection: close;x", b"Connection: keep-alive2", b"Connection: host, te, upgrade"),
    *(
        b"Connection:\tCLOSE",
        b"Connection: upgradex",
        b"Connection: ,close,",
        b"Connection: close ,x",
        b"Connection: clos",
    ),
    *(b"Upgrade: websocket", b"Upgrade: h2c", b"Upgrade: WebSocket, h2c", b"Upgrade:", b"Proxy-Connection: close"),
    *(b"Proxy-Connection: keep-alive", b"Keep-Alive: timeout=5", b"Expect: 100-continue", b"Expect: 100-Continue, x"),
)

PEOPLE = (
    *(b"Host: a.example", b"Host: b.example:80", b"Host:", b"Host: a b", b"host: [::1]", b"Host: a@b", b"Host: a,b"),
    *(b"Host: %61", b"Host: a:99999", b"X-Customer-Id: a", b"X_Customer_Id: a", b"Authorization: Bearer a"),
    *(b"Authorization: Basic a", b"X-API-Key: a", b"X-Forwarded-For: 192.0.2.1", b"Via: 1.1 a", b"tracestate: a=b"),
    *(b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"X-Empty:", b"X-Long: " + b"a" * 300),
)

LINES = FRAMING + CONNECTION + PEOPLE

REQUEST_LINES = (
    *(b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"POST /a?b=c HTTP/1.1", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET /"),
    *(b"GET / HTTP/1.2", b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET / HTTP/1.10", b"GET / http/1.1", b"GET / ICE/1.0"),
    *(b"get / HTTP/1.1", b"BREW / HTTP/1.1", b"PROPFIND / HTTP/1.1", b"CONNECT a:80 HTTP/1.1", b"OPTIONS * HTTP/1.1"),
    *(b"GET * HTTP/1.1", b"GET http://api.example.com/a HTTP/1.1", b"GET http://a:80 HTTP/1.1", b"GET /a#b HTTP/1.1"),
    *(
        b"GET http://u@a.example/ HTTP/1.1",
        b"GET a HTTP/1.1",
        b"GET //a HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"GET / RTSP/1.0",
    ),
    *(b"GET ?a HTTP/1.1", b"GET /\x80 HTTP/1.1", b"HEAD / HTTP/1.1", b"M-SEARCH * HTTP/1.1", b"SOURCE / ICE/1.0"),
)

STATUS_LINES = (
    *(b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 204 No Content"),
    *(b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 20 OK"),
    *(b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 OK", b"HTTP/1.1 600 OK", b"HTTP/2.0 200 OK", b"HTTP/1.1  200 OK"),
    *(b"http/1.1 200 OK", b"ICE/1.0 200 OK", b"HTTP/1.1 2 0 OK", b"HTTP/1.1 205 Reset Content", b"HTTP/1.1 200\tOK"),
    *(b"HTTP/0.9 200 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.2 200 OK", b"HTTP/1.1 200OK", b"HTTP/1.1 103 Early Hints"),
)


def place(random: Random, head: bytes) -> int:
    """Somewhere in a head: as often as not beside a byte that separates."""
    somewhere = random.randrange(len(head))
    if random.random() < 0.5:
        near = head.find(random.choice((b"\r", b"\n", b":", b" ", b",", b"\r\n\r\n", b"/")), somewhere)
        if near >= 0:
            return near + random.randrange(2)
    return somewhere


def insert(random: Random, head: bytes) -> bytes:
    """Interesting bytes somewhere."""
    at = place(random, head)
    return head[:at] + random.choice(INTERESTING) + head[at:]


def replace(random: Random, head: bytes) -> bytes:
    """A byte by interesting ones."""
    at = place(random, head)
    return head[:at] + random.choice(INTERESTING) + head[at + 1 :]


def any_byte(random: Random, head: bytes) -> bytes:
    """A byte by any other."""
    at = place(random, head)
    return head[:at] + bytes([random.randrange(256)]) + head[at + 1 :]


def delete(random: Random, head: bytes) -> bytes:
    """One to three bytes."""
    at = place(random, head)
    return head[:at] + head[at + random.randint(1, 3) :]


def stutter(random: Random, head: bytes) -> bytes:
    """A few bytes twice."""
    at = place(random, head)
    end = at + random.randint(1, 12)
    return head[:end] + head[at:end] + head[end:]


def swap_case(random: Random, head: bytes) -> bytes:
    """A stretch in the other case."""
    at = place(random, head)
    end = at + random.randint(1, 20)
    return head[:at] + head[at:end].swapcase() + head[end:]


def add_line(random: Random, head: bytes) -> bytes:
    """A line that means something, somewhere among the fields."""
    lines = head.split(b"\r\n")
    lines.insert(random.randint(1, len(lines)), random.choice(LINES))
    return b"\r\n".join(lines)


def double_line(random: Random, head: bytes) -> bytes:
    """A line of the head once more, somewhere else."""
    lines = head.split(b"\r\n")
    lines.insert(random.randint(1, len(lines)), random.choice(lines))
    return b"\r\n".join(lines)


def drop_line(random: Random, head: bytes) -> bytes:
    """A line less."""
    lines = head.split(b"\r\n")
    del lines[random.randrange(len(lines))]
    return b"\r\n".join(lines)


def new_value(random: Random, head: bytes) -> bytes:
    """A field's name with another's value."""
    lines = head.split(b"\r\n")
    at = random.randrange(len(lines))
    lines[at] = lines[at].partition(b":")[0] + b":" + random.choice(LINES).partition(b":")[2]
    return b"\r\n".join(lines)


def new_start(starts: tuple[bytes, ...]) -> Callable[[Random, bytes], bytes]:
    """A mutator that puts one of these in place of the first line."""

    def mutate(random: Random, head: bytes) -> bytes:
        return random.choice(starts) + b"\r\n" + head.partition(b"\r\n")[2]

    return mutate


MUTATORS = (
    *(insert, insert, replace, replace, any_byte, delete, stutter, swap_case),
    *(add_line, add_line, add_line, double_line, drop_line, new_value),
)


def mutants(random: Random, corpus: tuple[bytes, ...], starts: tuple[bytes, ...], number: int) -> Iterator[bytes]:
    """`number` heads made of those in `corpus`, each with a blank line somewhere, at the latest at its end."""
    mutators = (*MUTATORS, new_start(starts))
    for _ in range(number):
        head = random.choice(corpus)
        for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
            head = random.choice(mutators)(random, head) or b"\r\n"
        yield head + b"\r\n" if random.random() < 0.98 else head
