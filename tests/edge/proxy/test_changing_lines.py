"""On a connection whose requests differ in some header lines, earlier requests do not change how one is read."""

import random

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1.lines import RequestLines
from edgeproxy.edge.http1.request import PLAIN, read_fields
from edgeproxy.edge.proxy.connections.client import Client
from edgeproxy.edge.proxy.exchange.exchange import Exchange
from edgeproxy.edge.proxy.exchange.snapshot import Snapshot
from edgeproxy.edge.proxy.routing.router import NO_SITE
from tests.support.http2_wire import http2
from tests.support.transcript import EXPIRED, KEY, READER, UNLIMITED, Edge, get, ok
from tests.support.wire import Message, Wire

OWN = {"x-request-id", "traceparent"}
"""Fields that the edge generates anew for each request."""
NAMES = ("X-Seq", "x-seq", "Cookie", "If-None-Match", "X-Customer-Id", "Accept-Language", "X-Forwarded-Host")
VALUES = ("1", "a=1; b=2", "", "\t", "edge.test", '"e"', "é", "\x00", "a\rb", "x" * 300, "100")
ODD = (
    *("Connection: X-Seq", "Connection: cookie, close", "Connection: keep-alive", " folded: 1", "tracestate: a=1"),
    *("X-API-Key: nobody's", "Content-Length: 0", "Host: edge.test", "Host: other.test", "X-Seq : 1"),
    *("Transfer-Encoding: gzip", "TE: trailers", "X_Seq: 1", "traceparent: 00-1-2-01", "Via: 1.1 other", "no colon"),
)


def echo(request: Message) -> bytes:
    """Answer with the sorted request as the upstream received it, without the fields in OWN."""
    fields = sorted(request.fields, key=lambda field: field[0].lower())  # The sort is stable.
    told = [f"{name}: {value}" for name, value in fields if name.lower() not in OWN]
    traces = [value[:35] for name, value in request.fields if name == "traceparent"]
    return ok("\n".join([request.first, *told, *traces]).encode("latin-1"))


def trace(chance: random.Random) -> str:
    return f"traceparent: 00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-0{chance.choice('0129')}"


def request(chance: random.Random, usual: list[str]) -> bytes:
    """Return a request head with the `usual` lines and some lines that change with each request."""
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
    """Return the status, the request as the upstream received it, and whether the edge closes the connection."""
    answer = await client.asks(head)
    told, _, continued = answer.body.rpartition(b"\n")
    told += continued if continued in head else b"a trace of its own"
    return answer.status, told if answer.status == 200 else None, "Connection" in answer


async def test_a_request_is_read_alike_on_a_used_and_a_new_connection(edge: Edge, seed: int) -> None:
    chance = random.Random(seed)
    edge.upstream.answers(echo)
    client, read = await edge.client(), set()
    usual = ["Host: edge.test", "Accept: */*", f"Authorization: Bearer {UNLIMITED}", "User-Agent: a client"]
    for number in range(800):
        if number == 500:
            edge.config["strip"] = ["x-seq"]
            await edge.reloads()
        head = request(chance, usual)
        meant = await ask(client, head)  # On a new connection, all lines are new to the edge.
        alone = await edge.client()
        assert await ask(alone, head) == meant, head
        alone.closes()
        read.add(meant[0])
        if meant[2]:
            client.closes()
            client = await edge.client()
    assert {200, 400, 401, 431} <= read
    assert edge.runtime.snapshot.rests, "the edge cached no head without its changing lines"


async def test_each_http2_stream_reaches_the_upstream_with_its_own_fields(edge: Edge, seed: int) -> None:
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


KEYS = (KEY, UNLIMITED, READER, EXPIRED, "nobody's", "", "Bearer x", "with space", "é", "\x00", " first", "\tlast\t")
KEY_LINES = (
    *("Authorization: Bearer ", "authorization: Bearer ", "X-API-Key: ", "x-api-key: ", "X-Api-Key: "),
    *("Authorization: bearer ", "Authorization:Bearer ", "Authorization: Basic ", "X_API_Key: ", "X-API-Key:"),
)


def read_as_a_whole(snapshot: Snapshot, block: bytes) -> tuple[object, ...]:
    """Read a header block without any cache. Return its meaning, or the status and the reason of its rejection."""
    most, rules = snapshot.head_limits.fields, RequestLines(snapshot.lines.rules)
    try:
        host, key, credentials, keep, length, trace, head = read_fields(block, False, most, rules)
    except RejectedError as error:
        return error.status, str(error)
    found = snapshot.directory.resolve(key)
    return found, host is not None, credentials, sorted(keep.split(b"\r\n")), length, trace, head is PLAIN


def read(snapshot: Snapshot, client: Client, block: bytes, path: bytes) -> tuple[object, ...]:
    """Read a request as a client's connection does, with its caches. Return the meaning of its header block."""
    data = b"GET %b HTTP/1.1\r\n%b\r\n" % (path, block)
    seen = None if client.expects_new_head else snapshot.recall_head(client, data)
    request = Exchange(client, client.runtime)
    try:
        request.read_request(data, len(data) - 4, seen)
    except RejectedError as error:
        return error.status, str(error)
    if request.site is not NO_SITE:
        assert (request.method, request.path) == (b"GET", path)
        assert request.request_line == data[: -len(block) - 2]
    if seen is not None:
        assert data.find(b"\r\n\r\n") == len(data) - 4
    # The edge forwards changing lines after the others, so the lines are compared sorted.
    keep, is_plain = sorted(request.keep.split(b"\r\n")), request.head is PLAIN
    return (
        request.identity,
        request.site is not NO_SITE,
        request.credentials,
        keep,
        request.length,
        request.trace,
        is_plain,
    )


async def test_a_cached_block_never_resolves_to_the_key_of_another_customer(edge: Edge, seed: int) -> None:
    (await edge.client()).closes()
    chance, snapshot = random.Random(seed), edge.runtime.snapshot
    clients = [Client(edge.runtime, "192.0.2.1", b"") for _ in range(40)]
    for client in clients:
        client.trusted, client.key_place = False, None
    programs = [["Host: edge.test", "Accept: */*", f"User-Agent: program {number}"] for number in range(4)]
    refused = 0
    for _ in range(6000):
        lines = list(chance.choice(programs))
        for _ in range(chance.choice((0, 1, 1, 1, 1, 1, 1, 2))):
            line = chance.choice(KEY_LINES[:1] * 10 + KEY_LINES) + chance.choice(KEYS)
            lines.insert(chance.randrange(len(lines) + 1), line)
        if chance.random() < 0.1:
            lines.insert(chance.randrange(len(lines) + 1), chance.choice(ODD))
        if chance.random() < 0.02:
            lines += ["X-More: 1"] * chance.choice((94, 95, 96, 97))
        if chance.random() < 0.2:
            lines += [trace(chance), f"X-Seq: {chance.getrandbits(40)}"][chance.randrange(2) :]
        block, client = "".join(f"{line}\r\n" for line in lines).encode("latin-1"), chance.choice(clients)
        expected = read_as_a_whole(snapshot, block)
        refused += len(expected) == 2
        path = chance.choice((b"/v1/x", b"/v1/longer", b"/v1/%d" % chance.getrandbits(20)))
        assert read(snapshot, client, block, path) == expected, block
    assert refused > 50
    assert len(snapshot.shared) > 3
    assert len(snapshot.keyed_heads) > 3


async def test_customers_with_equal_header_lines_share_a_cached_block(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok(dict(request.fields)["X-Customer-Id"].encode()))
    for key, name in ((UNLIMITED, b"free"), (KEY, b"acme")) * 4:
        client = await edge.client()
        assert (await client.asks(get("/v1/x", f"Authorization: Bearer {key}"))).body == name
        client.closes()
    assert len(edge.runtime.snapshot.shared) == 1
    client = await edge.client()
    assert (await client.asks(get("/v1/x", "Authorization: Bearer nobodys"))).status == 401
