"""The features of routes over HTTP/2 equal those over HTTP/1.1, wherever streams could make a difference."""

import gzip
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from h2.events import DataReceived, StreamEnded

from edgeproxy.config.directory import KeyOwner
from edgeproxy.edge.messages import KeysLookedUp
from edgeproxy.edge.proxy.process import revocation
from edgeproxy.edge.proxy.routing.token_verifier import parse_keys
from tests.edge.proxy.shedding import Shedding
from tests.support.http2_wire import http2, opens_websocket
from tests.support.transcript import KEY, UNLIMITED, Edge, chunks, digest, head, ok
from tests.support.wire import Cut, Message

PAGE = "https://app.example.com"
EVENTS = head("HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
EVENT = b"data: 1\n\n"


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    return edge


# ---- answers that the edge changes


async def test_a_page_of_another_origin_asks_first_and_may_see_the_answer(edge: Edge) -> None:
    edge.config["cors"] = {"origins": [PAGE]}
    edge.upstream.answers(lambda request: ok(b"hello", "Access-Control-Allow-Origin: *"))
    client = await http2(edge)
    origin = ("origin", PAGE)
    asked = (origin, ("access-control-request-method", "POST"))
    preflight = await client.asks("/v1/x", *asked, method="OPTIONS")
    assert (preflight.status, preflight["access-control-allow-origin"]) == (204, PAGE)
    assert not edge.upstream.requests
    answer = await client.asks("/v1/x", origin, ("x-api-key", UNLIMITED))
    assert (answer.status, answer.all("access-control-allow-origin")) == (200, [PAGE])
    refused = await client.asks("/v1/x", origin)
    assert (refused.status, refused["access-control-allow-origin"]) == (401, PAGE)


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_is_compressed_on_its_stream_without_chunks(edge: Edge, chunked: bool) -> None:
    edge.config["routes"][1]["compress"] = "on"
    content = b"All the world's a stage. " * 20_000
    lines = ("Content-Type: text/plain", "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(content)}")
    edge.upstream.answers(lambda request: head("HTTP/1.1 200 OK", *lines) + (chunks(content) if chunked else content))
    client = await http2(edge)
    numbers = [await client.begins_request("GET", "/public/", ("accept-encoding", "gzip")) for _ in range(3)]
    for number in numbers:
        answer = await client.answer_of(number)
        assert answer["content-encoding"] == "gzip"
        assert not answer.all("content-length")
        assert gzip.decompress(answer.body) == content


# ---- upstreams


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_safe_request_that_a_kept_connection_lost_is_sent_again(edge: Edge, method: str) -> None:
    client = await http2(edge)
    number = await client.begins_request("GET", "/public/")
    stale = await edge.upstream.takes()
    await stale.sends(ok())
    await client.answer_of(number)
    number = await client.begins_request(method, "/public/x")
    first = await stale.gets_request()
    stale.aborts()
    another = await edge.upstream.accepts()
    assert (await another.gets_request()).raw == first.raw
    await another.sends(ok(b"again"))
    answer = await client.answer_of(number)
    assert (answer.status, answer.body) == (200, b"again")
    assert edge.count("edge_http2_resets_total", "edge", "INTERNAL_ERROR") == 0


async def test_unsafe_request_on_a_lost_connection_answers_502_without_a_retry(edge: Edge) -> None:
    client = await http2(edge)
    number = await client.begins_request("GET", "/public/")
    stale = await edge.upstream.takes()
    await stale.sends(ok())
    await client.answer_of(number)
    number = await client.begins_request("POST", "/public/x", ("content-length", "5"), ended=False)
    await client.sends_data(number, b"hello", ended=True)
    assert (await stale.gets_request()).body == b"hello"
    stale.aborts()
    assert (await client.answer_of(number)).status == 502


# ---- who asks


async def test_token_identifies_the_customer_of_only_its_stream(edge: Edge) -> None:
    edge.config["issuers"] = {
        "id": {"issuer": "https://id.example", "jwks": "https://id.example/k", "audiences": ["x"]}
    }
    edge.config["routes"][0]["auth"] = "jwt"
    edge.upstream.answers(lambda request: ok(request["X-Customer-Id"].encode()))
    client = await http2(edge)
    signing, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    listed = jwt.algorithms.ECAlgorithm.to_jwk(signing.public_key(), as_dict=True)
    edge.runtime.key_lookup.issuer_keys["id"] = parse_keys(json.dumps({"keys": [listed]}))

    def bearer(sub: str, key: Any) -> tuple[str, str]:
        said = {"iss": "https://id.example", "aud": "x", "sub": sub, "exp": time.time() + 3600}
        return "authorization", f"Bearer {jwt.encode(said, key, 'ES256')}"

    expected = [("acme", signing), ("free", signing), ("acme", other)]
    numbers = [await client.begins_request("GET", "/v1/x", bearer(*each)) for each in expected]
    numbers.append(await client.begins_request("GET", "/v1/x"))
    answers = [await client.answer_of(number) for number in numbers]
    assert [answer.status for answer in answers] == [200, 200, 401, 401]
    assert [answer.body for answer in answers[:2]] == [b"acme", b"free"]


async def test_customers_who_take_turns_on_a_connection_keep_their_identities(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok(request["X-Customer-Id"].encode()))
    client = await http2(edge)
    answers = []
    for number in range(24):
        key = (KEY, UNLIMITED, f"invented-{number}")[number % 3]
        # The library h2 never indexes this field.
        answers.append(await client.asks("/v1/x", ("authorization", f"Bearer {key}")))
    assert [answer.status for answer in answers] == [200, 200, 401] * 8
    assert [answer.body for answer in answers if answer.status == 200] == [b"acme", b"free"] * 8


async def test_revoked_key_ends_its_streams_and_keeps_the_connection(edge: Edge) -> None:
    edge.config |= {"hub": "redis://127.0.0.1:1", "directory": {"from": "hub", "revoked": "close"}}
    edge.config["routes"].insert(0, {"name": "ws", "path": "/ws", "upstream": "api", "upgrade": ["websocket"]})
    client = await http2(edge)
    dora, key = ("x-api-key", "key-of-dora"), bytes.fromhex(digest("key-of-dora"))
    lookup = edge.runtime.key_lookup
    waiting = await client.begins_request("GET", "/v1/x", dora)
    await edge.until(lambda: edge.inquiries, "the key is asked for")
    lookup.on_answer(KeysLookedUp({key: KeyOwner("dora", '{"tier": "basic"}', "{}")}, [], []))
    asked = await edge.upstream.takes()
    begun = await client.begins_request("GET", "/v1/x", dora)
    answering = await edge.upstream.takes()
    await answering.sends(head("HTTP/1.1 200 OK", "Content-Length: 10"), b"hello")
    await client.next_event(begun, DataReceived)
    socket, tunnel = await opens_websocket(edge, client, dora)
    assert (await client.head_of(socket)).status == 200
    other = await client.begins_request("GET", "/v1/x", ("x-api-key", UNLIMITED))
    kept = await edge.upstream.takes()
    edge.inquiries.clear()
    edge.worker.generations.forget_customers(["dora"])
    revocation.recheck_customers(edge.runtime, ["dora"])
    await edge.until(lambda: edge.inquiries, "the key is asked for again")
    lookup.on_answer(KeysLookedUp({}, [key], []))
    assert (await client.answer_of(waiting)).status == 401
    # Later senders share the errors, which must not keep the ended requests in memory.
    shared = edge.runtime.snapshot.directory.unknown._refusals.values()
    assert [error.__traceback__ for error in shared] == [None, None]
    with pytest.raises(Cut):
        await client.rest_of(begun, Message(b"HTTP/1.1 200 OK"))
    assert (await client.next_event(socket, DataReceived)).data == b"\x88\x02\x03\xf0"  # 1008
    for wire in (asked, answering):
        await wire.gets_cut()
    await tunnel.gets_until(b"\x88\x82")
    await tunnel.gets_cut()
    await kept.sends(ok(b"still"))
    assert (await client.answer_of(other)).body == b"still"
    assert (await client.asks("/v1/x", dora)).status == 401


# ---- streams that stay open


async def test_an_event_stream_passes_in_pieces_may_pause_and_ends_complete(edge: Edge) -> None:
    edge.config["routes"][1]["timeouts"] = {"idle": "50ms"}
    client = await http2(edge)
    number = await client.begins_request("GET", "/public/events")
    upstream = await edge.upstream.takes()
    await upstream.sends(EVENTS)
    assert (await client.head_of(number)).status == 200
    (one,) = edge.runtime.connections.http2_clients
    (stream,) = one.http2.streams.values()
    assert stream.deadline == float("inf")
    for _ in range(2):
        await upstream.sends(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
        assert (await client.next_event(number, DataReceived)).data == EVENT
    assert one.is_event_stream
    one.end_event_stream()
    await client.next_event(number, StreamEnded)
    await upstream.gets_cut()
    assert (await client.asks("/other")).status == 404


async def test_a_reload_while_streams_are_open(edge: Edge) -> None:
    """Open streams keep the old configuration. A later stream on that connection gets the new one."""
    client = await http2(edge)
    number = await client.begins_request("GET", "/public/")
    upstream = await edge.upstream.takes()
    upload = await client.begins_request("POST", "/public/up", ended=False)
    await client.sends_data(upload, b"hello")
    second = await edge.upstream.accepts()
    await second.gets_head()
    edge.config["limits"] = {"body": "8B"}
    edge.config["routes"] = [{"name": "other", "path": "/other/*", "upstream": "api", "auth": "none"}]
    await edge.reloads()
    assert (await client.asks("/public/")).status == 404
    await client.sends_data(upload, b"world", ended=True)
    await second.gets_until(b"0\r\n\r\n")
    for each, stream in ((upstream, number), (second, upload)):
        await each.sends(ok(b"late"))
        assert (await client.answer_of(stream)).body == b"late"
    assert (await client.posts("/other/x", b"123456789", ("content-length", "9"))).status == 413
    assert edge.count("edge_requests_total", "public", "-", "200") == 2


async def test_address_denied_by_a_reload_finishes_its_open_streams(edge: Edge) -> None:
    client = await http2(edge)
    number = await client.begins_request("GET", "/public/")
    upstream = await edge.upstream.takes()
    edge.config["networks"] = {"deny": ["127.0.0.1"]}
    await edge.reloads()
    assert (await client.goaway()).last_stream_id == number
    await upstream.sends(ok())
    await client.wire.gets_cut()


# ---- a worker that has too much to do


async def test_overload_sheds_http2_streams_by_priority(edge: Edge) -> None:
    edge.config["tiers"]["free"]["priority"] = 5
    edge.upstream.answers(lambda request: ok())
    client = await http2(edge)
    shedding = Shedding(edge, 5)
    asked = [("/public/",), ("/v1/x", ("x-api-key", UNLIMITED))] * 5
    numbers = [await client.begins_request("GET", *each) for each in asked]
    answers = [await client.answer_of(number) for number in numbers]
    assert [answer.status for answer in answers] == [503, 200] * 5
    assert answers[0]["retry-after"] == "1"
    assert sorted(set(shedding.asked)) == [0, 5]
    assert edge.count("edge_shed_total", "0") == 5
