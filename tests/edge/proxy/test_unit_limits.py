"""Limits in tokens: the reservation of a request, the charge of its answer, and the total under concurrency."""

from typing import Any

import pytest

from tests.edge.body_usage.transcripts import compact, events
from tests.edge.proxy.asking import is_limited, is_problem, left, limited, request
from tests.support.http2_wire import http2
from tests.support.transcript import KEY, Edge, chunks, head, ok
from tests.support.wire import Message, Wire

JSON, STREAM = "Content-Type: application/json", "Content-Type: text/event-stream"
LIMIT = {"name": "tokens", "rate": "1000/min", "of": "all", "reserve": 100}


def find_route(edge: Edge) -> dict[str, Any]:
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    return route


@pytest.fixture
def edge(edge: Edge) -> Edge:
    """An edge with a limit of a thousand tokens a minute. Each request reserves a hundred."""
    edge.config["meters"] = {"all": {"count": "total_tokens", "missing": "bytes/10"}}
    find_route(edge)["response_usage"] = "openai"
    find_route(edge)["errors"] = "problem"
    limited(edge, LIMIT)
    return edge


def stated(tokens: int) -> bytes:
    return compact({"model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": tokens - 1}})


def answers(edge: Edge, *tokens: int) -> None:
    """Answer each request with the next number of tokens. For 0, answer with an error."""
    numbers = iter(tokens)

    def answer(_: object) -> bytes:
        number = next(numbers)
        return ok(stated(number), JSON) if number else head("HTTP/1.1 500 X", JSON, "Content-Length: 2") + b"{}"

    edge.upstream.answers(answer)


async def asks(client: Wire, path: str = "/v1/x") -> Message:
    return await client.asks(request(path))


async def test_limit_charges_the_answer_rather_than_its_reservation(edge: Edge) -> None:
    answers(edge, 10, 0, 250, 640, 90)
    client = await edge.client()
    shown = [left(await asks(client))[:2] for _ in range(3)]
    assert shown == [("tokens", 900), ("tokens", 890), ("tokens", 890)], "the stated remainder excludes the reservation"
    assert edge.used() == {"tokens": 260}
    assert left(await asks(client))[:2] == ("tokens", 640)
    answer = await asks(client)
    assert answer.status == 200, "a hundred are left"
    refused = await asks(client)
    is_limited(refused, "tokens")
    assert left(refused)[:2] == ("tokens", 10)
    assert edge.used() == {"tokens": 990}
    assert "RateLimit-Policy" in refused
    edge.passes_time(int(refused["Retry-After"]))
    answers(edge, 5)
    assert (await asks(client)).status == 200


async def test_excess_over_a_reservation_drains_before_the_next_request(edge: Edge) -> None:
    answers(edge, 5000, 1)
    client = await edge.client()
    assert (await asks(client)).status == 200
    is_limited(await asks(client), "tokens")
    assert edge.used() == {"tokens": 5000}
    edge.passes_time(65)
    assert (await asks(client)).status == 200


async def test_active_requests_hold_their_reservations_until_they_end(edge: Edge) -> None:
    pairs = [await edge.forwards(request()) for _ in range(10)]
    client = await edge.client()
    refused = await asks(client)
    is_limited(refused, "tokens")
    assert refused["Retry-After"] == "1", "an active request may end at any time"
    (first, upstream), *others = pairs
    await upstream.tells(first, ok(stated(1), JSON))
    assert edge.used() == {"tokens": 1}
    is_limited(await asks(client), "tokens")
    for other, upstream in others:
        await upstream.tells(other, ok(stated(1), JSON))
    assert edge.used() == {"tokens": 10}
    assert edge.in_use() == 0


async def test_departed_client_releases_its_reservation_and_pays_generated_tokens(edge: Edge) -> None:
    client, upstream = await edge.forwards(request())
    body = events({"choices": []}, {"usage": {"prompt_tokens": 1, "completion_tokens": 299}})
    await upstream.sends(head("HTTP/1.1 200 OK", STREAM, "Transfer-Encoding: chunked") + chunks(body[:20])[:-5])
    await client.gets_head()
    client.aborts()
    await edge.until(lambda: edge.in_use() == 0, "the reservation is free")
    await upstream.sends(chunks(body[20:]))
    await edge.until(lambda: edge.used() == {"tokens": 300}, "the tokens are charged")


async def test_other_routes_have_no_tokens(edge: Edge) -> None:
    edge.config["routes"].append({"path": "/plain/*", "upstream": "api"})
    edge.upstream.answers(lambda _: ok())
    client = await edge.client()
    answer = await asks(client, "/plain/x")
    assert answer.status == 200
    assert "RateLimit" not in answer


async def test_request_and_token_limits_count_separately(edge: Edge) -> None:
    limited(edge, LIMIT, {"name": "requests", "rate": "1000/min"})
    answers(edge, 40, 40)
    client = await edge.client()
    for _ in range(2):
        await asks(client)
    assert edge.used() == {"tokens": 80, "requests": 2}


async def test_two_hundred_streams_at_once_admit_only_those_that_fit(edge: Edge) -> None:
    """The guarantee: the total stays within the limit, plus the tokens that answers use beyond their reservations."""
    limited(edge, {"name": "tokens", "rate": "100000/min", "of": "all", "reserve": 1000})
    clients = [await edge.client() for _ in range(200)]
    for client in clients:
        await client.sends(request())
    upstreams = [await edge.upstream.accepts() for _ in range(100)]
    event = events({"usage": {"prompt_tokens": 200, "completion_tokens": 1000}})
    stream = head("HTTP/1.1 200 OK", STREAM, "Transfer-Encoding: chunked") + chunks(event[:30], event[30:])
    for upstream in upstreams:
        await upstream.gets_head()
        await upstream.sends(stream)
    statuses = [(await client.gets_answer()).status for client in clients]
    assert (statuses.count(200), statuses.count(429)) == (100, 100)
    assert edge.used() == {"tokens": 120_000}, "a hundred fitted, each of which took 200 more than it had reserved"
    is_limited(await asks(clients[0]), "tokens")
    assert edge.in_use() == 0


# ---- reservations from the request's body


@pytest.fixture
def telling(edge: Edge) -> Edge:
    """An edge that reserves the tokens named in the request's body, at most 500."""
    limited(edge, {**LIMIT, "reserve": "request", "reserve_max": 500})
    return edge


def prompt(max_tokens: int, size: int = 400, *fields: str) -> bytes:
    """Return a request with this number of bytes of text, and this limit of output tokens."""
    return post(compact({"max_tokens": max_tokens, "prompt": "x" * size}), *fields)


def post(body: bytes, *fields: str) -> bytes:
    lines = ("POST /v1/x HTTP/1.1", "Host: edge.test", f"X-API-Key: {KEY}", *fields)
    return head(*lines, *([] if "chunked" in str(fields) else [f"Content-Length: {len(body)}"])) + body


async def test_request_reserves_tokens_for_its_prompt_and_maximum_answer(telling: Edge) -> None:
    answers(telling, 10, 10, 10)
    client = await telling.client()
    assert left(await client.asks(prompt(200)))[:2] == ("tokens", 700), "a hundred of input, and two hundred of output"
    assert left(await client.asks(post(b"x" * 400)))[:2] == ("tokens", 880), "by default a hundredth of output"
    assert left(await client.asks(prompt(10**9)))[:2] == ("tokens", 480), (
        "a reservation is capped and leaves room for other requests"
    )
    assert telling.used() == {"tokens": 30}


async def test_reserving_request_waits_for_its_body_and_forwards_it_unchanged(telling: Edge) -> None:
    client = await telling.client()
    data = prompt(300, 30_000)
    at = data.index(b"\r\n\r\n")
    await client.sends(data[: at + 2])
    for piece in (data[at + 2 : at + 9], data[at + 9 : 20_000], data[20_000:-1]):
        await client.sends(piece)
        await telling.settles()
        assert not telling.upstream.is_asked()
    await client.sends(data[-1:] + prompt(1))
    upstream = await telling.upstream.accepts()
    got = await upstream.gets_request()
    assert got.body == data[at + 4 :]
    await upstream.tells(client, ok(stated(5), JSON))
    second = await upstream.gets_request()
    assert second.body.startswith(b'{"max_tokens": 1,'), "the second request is read from its own start"
    await upstream.tells(client, ok(stated(5), JSON))
    assert telling.in_use() == 0
    assert telling.used() == {"tokens": 10}


@pytest.mark.parametrize(
    "data",
    [
        prompt(1, 70_000),
        post(chunks(b"{}"), "Transfer-Encoding: chunked"),
        head("GET /v1/x HTTP/1.1", "Host: edge.test", f"X-API-Key: {KEY}"),
    ],
    ids=["too long", "of no stated length", "none"],
)
async def test_a_request_that_tells_nothing_reserves_the_most(telling: Edge, data: bytes) -> None:
    telling.upstream.answers(lambda _: ok(stated(5), JSON))
    client = await telling.client()
    assert left(await client.asks(data))[:2] == ("tokens", 500)


async def test_a_client_that_waits_for_100_is_not_waited_for(telling: Edge) -> None:
    client = await telling.client()
    data = prompt(1, 100, "Expect: 100-continue")
    at = data.index(b"\r\n\r\n") + 4
    await client.sends(data[:at])
    upstream = await telling.upstream.accepts()
    await upstream.gets_head()
    await client.sends(data[at:])
    await upstream.gets(data[at:])
    assert left(await upstream.tells(client, ok(stated(5), JSON)))[:2] == ("tokens", 500)


async def test_missing_body_answers_408_without_a_reservation(telling: Edge) -> None:
    telling.config["limits"] = {"body_idle": "1s"}
    client = await telling.client()
    await client.sends(prompt(300)[:-1])
    is_problem(await client.gets_answer(), 408)
    assert telling.in_use() == 0
    assert not telling.upstream.is_asked()


@pytest.mark.parametrize("way", ["aborts", "sends_eof"])
async def test_a_client_that_leaves_while_its_body_is_waited_for_is_forgotten(telling: Edge, way: str) -> None:
    client = await telling.client()
    await client.sends(prompt(300)[:-1])
    await telling.settles()
    getattr(client, way)()
    await telling.until(lambda: not telling.runtime.connections.clients, "the connection is closed")
    assert telling.in_use() == 0
    assert not telling.upstream.is_asked()


async def test_request_beyond_the_token_limit_is_refused_without_asking_the_upstream(telling: Edge) -> None:
    pairs = []
    for _ in range(2):
        client = await telling.client()
        await client.sends(prompt(400))
        pairs.append((client, await telling.upstream.accepts()))
    client = await telling.client()
    for _ in range(2):
        is_limited(await client.asks(prompt(400)), "tokens")
    for other, upstream in pairs:
        await upstream.gets_request()
        await upstream.tells(other, ok(stated(1), JSON))
    assert telling.in_use() == 0


async def test_over_http2_the_body_is_waited_for_on_its_stream(telling: Edge) -> None:
    telling.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    body = compact({"max_tokens": 200, "prompt": "x" * 9000})
    client = await http2(telling)
    fields = ("x-api-key", KEY), ("content-length", str(len(body)))
    waiting = await client.begins_request("POST", "/v1/x", *fields, ended=False)
    await client.sends_data(waiting, body[:5000])
    small = await client.begins_request("POST", "/v1/x", ("x-api-key", KEY), ("content-length", "2"), ended=False)
    await client.sends_data(small, b"{}", ended=True)
    upstream = await telling.upstream.accepts()
    assert (await upstream.gets_request()).body == b"{}", "other requests are forwarded"
    await client.sends_data(waiting, body[5000:], ended=True)
    other = await telling.upstream.accepts()
    assert (await other.gets_request()).body == body
    for wire in (upstream, other):
        await wire.sends(ok(stated(7), JSON))
    answers = [await client.answer_of(number) for number in (small, waiting)]
    assert [answer["ratelimit"].partition(";t")[0] for answer in answers] == ['"tokens";r=990', '"tokens";r=500']
    assert telling.used() == {"tokens": 14}
