"""Hostile traffic over HTTP/1.1: many small things, few that never end, and large heads."""

from loadtest.neighbours.kinds.heads import CHUNKED, dribbled, endless, head, once
from loadtest.neighbours.neighbour import EDGE, Neighbour

_TRACEPARENTS = (
    "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
    "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    "ff-" + "a" * 32 + "-" + "b" * 16 + "-01",
    "00-" + "A" * 32 + "-" + "b" * 16 + "-01",
    "cc-" + "a" * 32 + "-" + "b" * 16 + "-01-what-the-future-will-be-like",
    "00-" + "a" * 31 + "-" + "b" * 16,
)
_LONG_TARGETS = ("/none/" + "a/../" * 1200, "/none/" + "%2e%2E%2f" * 600, "/none?" + "&a=%41" * 900)
_KEY = "X-API-Key: ek_good"
_COOKIES = "Cookie: " + "; ".join(f"c{number}=value" for number in range(1800))

ROWS = (
    Neighbour("pipelined-404", endless(head("/none") * 2000)),
    Neighbour("pipelined-401", endless(head("/keyed") * 2000)),
    Neighbour("pipelined-429", endless(head("/spent", "X-API-Key: ek_spent") * 1000)),
    Neighbour("pipelined-proxied", endless(head("/small") * 2000)),
    Neighbour("invented-keys", endless(b"".join(head("/keyed", f"X-API-Key: ek_{n:030d}") for n in range(5000)))),
    Neighbour("many-fields", endless(head("/small", *(f"x-f-{n}: {'v' * 200}" for n in range(95))) * 20)),
    Neighbour("long-cookies", endless(head("/small", _COOKIES) * 20)),
    Neighbour("long-targets", endless(b"".join(map(head, _LONG_TARGETS)) * 10)),
    Neighbour(
        "traceparents",
        endless(b"".join(head("/small", f"traceparent: {traceparent}") for traceparent in _TRACEPARENTS) * 200),
    ),
    Neighbour("chunks-up", endless(b"1\r\nx\r\n" * 20_000, head("/sink", CHUNKED, method="POST"))),
    Neighbour("chunks-down", once(head("/chunks"))),
    Neighbour("interim-answers", once(head("/interim"), 2.0)),
    Neighbour("compressible", once(head("/text", "Accept-Encoding: gzip"))),
    Neighbour("unread-answers", once(head("/text")), reads=False, parallel=10),
    Neighbour("slow-heads", dribbled(b"GET /none HTTP/1.1\r\nHost: a\r\nX: ", b"x" * 500, 0.1), parallel=50),
    Neighbour(
        "slow-bodies",
        dribbled(head("/sink", "Content-Length: 100000", method="POST"), b"x" * 500, 0.1),
        parallel=50,
    ),
    Neighbour("connections", lambda inbox: iter(()), pause=0.0),
    Neighbour("half-requests-reset", lambda inbox: iter((head("/hang"), 0.001)), resets=True, pause=0.0),
    Neighbour("upstream-refuses", endless(head("/refused") * 200)),
    Neighbour("upstream-hangs", once(head("/hang")), parallel=60),
    Neighbour("sse-usage", once(head("/ai/events", _KEY)), peers=EDGE),
    Neighbour("json-usage", once(head("/ai/json", _KEY), 0.5), peers=EDGE),
    Neighbour(
        "model-names",
        lambda inbox: (
            head("/ai/echo", _KEY, "Content-Type: application/json", f"Content-Length: {len(body)}", method="POST")
            + body
            for body in (b'{"model": "%08d%s"}' % (number, b"x" * 200_000) for number in range(1 << 20))
        ),
        peers=EDGE,
    ),
)
