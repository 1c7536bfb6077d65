"""A connection whose requests differ in some lines: what each means does not depend on those before it."""

import random

from tests.support.http2_wire import http2
from tests.support.transcript import UNLIMITED, Edge, ok
from tests.support.wire import Message, Wire

OWN = {"x-request-id", "traceparent"}
"""Fields of which the edge makes others in each request."""
NAMES = ("X-Seq", "x-seq", "Cookie", "If-None-Match", "X-Customer-Id", "Accept-Language", "X-Forwarded-Host")
VALUES = ("1", "a=1; b=2", "", "\t", "edge.test", '"e"', "é", "\x00", "a\rb", "x" * 300, "100")
ODD = (
    *("Connection: X-Seq", "Connection: cookie, close", "Connection: keep-alive", " folded: 1", "tracestate: a=1"),
    *("X-API-Key: nobody's", "Content-Length: 0", "Host: edge.test", "Host: other.test", "X-Seq : 1"),
    *("Transfer-Encoding: gzip", "TE: trailers", "X_Seq: 1", "traceparent: 00-1-2-01", "Via: 1.1 other", "no colon"),
)


def echo(request: Message) -> bytes:
    """Answer with what the upstream got, but for the edge's own, in an order of its own."""
    fields = sorted(request.fields, key=lambda field: field[0].lower())  # Those of one name stay in their order.
    told = [f"{name}: {value}" for name, value in fields if name.lower() not in OWN]
    traces = [value[:35] for name, value in request.fields if name == "traceparent"]
    return ok("\n".join([request.first, *told, *traces]).encode("latin-1"))


def trace(chance: random.Random) -> str:
    return f"traceparent: 00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-0{chance.choice('0129')}"


def request(chance: random.Random, usual: list[str]) -> bytes:
    """A request of a client that has some lines in all of its requests, and others that change."""
    seq = chance.choice(VALUES) if chance.random() < 0.1 else chance.getrandbits(40)
    lines = [*usual, trace(chance), f"X-Seq: {seq}", f"Cookie: seen={chance.getrandbits(40)}"]
    if chance.random() < 0.5:
        chance.shuffle(lines)
    for _ in range(chance.choice((0, 0, 0, 0, 0, 1, 2))):
        odd = chance.choice((chance.choice(ODD), trace(chance), f"{chance.choice(NAMES)}: {chance.choice(VALUES)}"))
        lines.insert(chance.randrange(len(lines) + 1), odd)
    if chance.random() < 0.1:
        lines.remove(chance.choice(lines))
    if chance.random() < 0.05:
        lines += ["X-More: 1"] * chance.choice((92, 93, 94, 95, 96))
    head = "".join(f"{line}\r\n" for line in (f"GET /v1/{chance.getrandbits(20)}?q=1 HTTP/1.1", *lines))
    return head.encode("latin-1") + b"\r\n"


async def ask(client: Wire, head: bytes) -> tuple[int, bytes | None, bool]:
    """The status, what the upstream got, and whether the connection ends."""
    answer = await client.asks(head)
    told, _, continued = answer.body.rpartition(b"\n")
    told += continued if continued in head else b"a trace of its own"
    return answer.status, told if answer.status == 200 else None, "Connection" in answer


async def test_a_request_means_the_same_whatever_came_before_it(edge: Edge, seed: int) -> None:
    chance = random.Random(seed)
    edge.upstream.answers(echo)
    client, read = await edge.client(), set()
    usual = ["Host: edge.test", "Accept: */*", f"Authorization: Bearer {UNLIMITED}", "User-Agent: a client"]
    for number in range(800):
        if number == 500:
            edge.config["strip"] = ["x-seq"]
            await edge.reloads()
        head = request(chance, usual)
        meant = await ask(client, head)  # The first, as to the edge its lines are new.
        alone = await edge.client()
        assert await ask(alone, head) == meant, head
        alone.closes()
        read.add(meant[0])
        if meant[2]:
            client.closes()
            client = await edge.client()
    assert {200, 400, 401, 431} <= read
    assert edge.runtime.snapshot.rests, "none was read without its changing lines"


async def test_streams_of_a_connection_change_in_the_same_lines(edge: Edge, seed: int) -> None:
    chance = random.Random(seed)
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.upstream.answers(echo)
    client = await http2(edge)
    for number in range(6):
        parent = trace(chance).partition(": ")[2]
        answer = await client.asks("/public/x", ("traceparent", parent), ("x-seq", str(number)))
        told = answer.body.decode().split("\n")
        assert (told[-1], f"x-seq: {number}" in told, "Via: 2.0 edgeproxy" in told) == (parent[:35], True, True), told
    assert edge.runtime.snapshot.rests
