"""Several requests on their way at once: answered in order, each by its own rules (RFC 9112 section 9.3.2)."""

import asyncio
from time import monotonic

from tests.support.transcript import UNLIMITED, Edge, get, head, ok, post
from tests.support.wire import Message


def echo(request: Message) -> bytes:
    return ok(f"{request.first} {request.body.decode()}".encode())


async def test_requests_sent_ahead_are_answered_in_order(edge: Edge) -> None:
    n = 1000
    edge.upstream.answers(echo)
    client = await edge.client()

    async def sends() -> None:
        await client.sends(*(get(f"/public/{k}") for k in range(n)))

    async def gets() -> None:
        for k in range(n):
            assert (await client.gets_answer()).body == b"GET /public/%d HTTP/1.1 " % k

    await asyncio.gather(sends(), gets())
    assert len(edge.upstream.wires) == 1
    assert [request.first.split()[1] for request in edge.upstream.requests] == [f"/public/{k}" for k in range(n)]


async def test_pipelined_refusals_are_answered_in_order(edge: Edge) -> None:
    edge.upstream.answers(echo)
    client = await edge.client()
    script = [
        (get("/public/a"), 200),
        (get("/nowhere"), 404),
        (get("/v1/a"), 401),
        (get("/v1/a", f"X-API-Key: {UNLIMITED}"), 200),
        (head("POST /get/a HTTP/1.1", "Host: h", "Content-Length: 3") + b"abc", 405),
        (post(b"xyz", "/public/b"), 200),
        (get("/read/a", f"X-API-Key: {UNLIMITED}"), 403),
        (get("/public/c"), 200),
    ] * 20
    await client.sends(*(request for request, _ in script))
    assert [(await client.gets_answer()).status for _ in script] == [status for _, status in script]
    assert len(edge.upstream.requests) == 4 * 20


async def test_the_second_request_waits_for_the_answer_to_the_first(edge: Edge) -> None:
    client, upstream = await edge.forwards(get("/public/1"), get("/public/2"))
    await edge.settles()
    assert upstream.has() == b""
    assert not edge.upstream.is_asked()
    await upstream.tells(client, ok())
    await upstream.serves(client, ok())


async def test_empty_lines_between_refused_requests_do_no_harm(edge: Edge) -> None:
    client = await edge.client()
    n = 1100  # more than Python nests calls
    await client.sends((get("/nowhere") + b"\r\n") * n)
    for _ in range(n):
        assert (await client.gets_answer()).status == 404


async def test_read_ahead_stays_bounded_while_answers_go_out(edge: Edge) -> None:
    """Each answer makes room for a request, not for a further read of any length."""
    edge.upstream.answers(lambda request: ok(b""))
    client = await edge.client()
    n = 2000
    most = 0

    async def watches(request: Message) -> None:
        nonlocal most
        most = max(most, *(len(held.buffer) for held in edge.runtime.connections.clients))

    async def gets() -> None:
        for _ in range(n):
            await watches(await client.gets_answer())

    await asyncio.gather(client.sends(get("/public/", f"X-Filler: {'x' * 400}") * n), gets())
    assert most < 384 << 10, "what is read ahead, and a read"


async def test_a_body_behind_many_requests_arrives(edge: Edge) -> None:
    """More requests than the edge reads ahead, and then a body, so the edge must resume reading."""
    edge.upstream.answers(lambda request: ok(b"%d" % len(request.body)))
    client = await edge.client()
    n = 600
    answers = [(200, b"0")] * n + [(200, b"500000"), (404, None), (200, b"200000"), (200, b"0")]
    stream = (
        get("/public/", f"X-Filler: {'x' * 400}") * n
        + post(bytes(500_000))
        + get("/nowhere")
        + post(bytes(200_000))
        + get()
    )

    async def gets() -> None:
        for status, body in answers:
            answer = await client.gets_answer()
            assert (answer.status, answer.body if answer.status == 200 else None) == (status, body)

    await asyncio.gather(client.sends(stream), gets())


async def test_read_ahead_is_bounded_while_no_answer_goes_out(edge: Edge) -> None:
    """A client that sends without waiting is not read further than a bound, while nothing is answered."""
    client, upstream = await edge.forwards(get("/public/first"))
    request = get("/public/next", "X-Filler: " + "x" * 1000)
    taken = await client.sends_while_taken(request * 16, 64 << 20)
    assert taken < 16 << 20, "beyond what the kernel's buffers explain"
    (held,) = edge.runtime.connections.clients
    assert len(held.buffer) < 1 << 20
    client.aborts()
    await upstream.sends(ok())
    await upstream.gets_cut()


async def test_head_longer_than_the_read_ahead_is_read_to_its_end(edge: Edge) -> None:
    edge.config["limits"] = {"head": "256KiB"}
    client, upstream = await edge.forwards(get("/public/first"))
    request = get("/public/next", *(f"X-Filler-{n}: {'x' * 3000}" for n in range(60)))
    await client.sends(request[:100_000])
    (held,) = edge.runtime.connections.clients
    await edge.until(lambda: not held.reading)
    assert (await upstream.tells(client, ok())).status == 200
    await client.sends(request[100_000:])
    assert (await upstream.gets_request()).first == "GET /public/next HTTP/1.1"
    assert (await upstream.tells(client, ok(b"next"))).body == b"next"


async def test_head_after_a_late_head_has_its_own_deadline(edge: Edge) -> None:
    edge.config["limits"] = {"header_timeout": "60s"}
    client = await edge.client()
    await client.sends(b"GET /nowhere HTTP/1.1\r\n")
    (held,) = edge.runtime.connections.clients
    await edge.until(lambda: held.buffer)
    held.deadline = late = monotonic() + 5.0
    assert (await client.asks(b"Host: h\r\n\r\nGET /")).status == 404
    assert held.buffer == b"GET /"
    assert held.deadline > late + 50.0


async def test_no_more_requests_are_read_ahead_than_configured(edge: Edge) -> None:
    edge.config["limits"] = {"pipelined": 4}
    client, upstream = await edge.forwards(get("/public/0"))
    (held,) = edge.runtime.connections.clients
    for n in range(1, 4):
        await client.sends(get(f"/public/{n}"))
        await edge.until(lambda n=n: held.buffer.count(b"\r\n\r\n") == n)  # type: ignore[misc]
        assert held.reading
    await client.sends(get("/public/4"))
    await edge.until(lambda: not held.reading)
    await client.sends(*(get(f"/public/{n}") for n in range(5, 20)))
    await edge.settles()
    assert held.buffer.count(b"\r\n\r\n") == 4
    assert (await upstream.tells(client, ok(b"0"))).body == b"0"
    for n in range(1, 20):
        assert (await upstream.gets_request()).first == f"GET /public/{n} HTTP/1.1"
        assert (await upstream.tells(client, ok(b"%d" % n))).body == b"%d" % n
    assert held.reading


async def test_blank_lines_within_a_body_do_not_count_as_pipelined_heads(edge: Edge) -> None:
    edge.config["limits"] = {"pipelined": 2}
    client, upstream = await edge.forwards()
    body = b"\r\n\r\n" * 100
    await client.sends(post(body)[:-7])
    (held,) = edge.runtime.connections.clients
    await edge.until(lambda: not held.reading)
    await client.sends(post(body)[-7:], post(body))
    await upstream.tells(client, ok())
    for _ in range(2):
        assert (await upstream.gets_request()).body == body
        await upstream.tells(client, ok())


async def test_bytes_after_an_upgrade_request_reach_the_tunnel(edge: Edge) -> None:
    edge.config["limits"] = {"pipelined": 1}
    upgrade = ("Connection: Upgrade", "Upgrade: websocket")
    client, upstream = await edge.opens(get("/public/", *upgrade))
    await client.sends(b"\r\n\r\n\r\n\r\n")
    (held,) = edge.runtime.connections.clients
    await edge.until(lambda: not held.reading)
    await client.sends(b"more")
    await upstream.sends(head("HTTP/1.1 101 Switching Protocols", *upgrade))
    await client.gets_head()
    await upstream.gets(b"\r\n\r\n\r\n\r\nmore")
    client.sends_eof()
    await upstream.gets_eof()
    upstream.closes()
    await client.gets_eof()
