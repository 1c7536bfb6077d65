"""Meters of usage stated in response bodies. They count after the response, which passes unchanged and undelayed."""

import gzip
from typing import Any

import pytest
import zstandard
from h2.events import DataReceived

from edgeproxy.edge.proxy.exchange import open_connections
from tests.edge.body_usage.transcripts import ANTHROPIC_STREAM, CHAT_STREAM, TRANSCRIPTS, compact
from tests.edge.proxy.asking import is_limited
from tests.support.http2_server import Http2Server
from tests.support.http2_wire import http2
from tests.support.transcript import KEY, Edge, chunks, get, head, post
from tests.support.wire import Wire

SPLIT = {"model": 5, "estimated": 2}
METERS: dict[str, Any] = {
    "in": {"count": "input_tokens", "missing": "bytes/4", "dimensions": SPLIT},
    "out": {"count": "output_tokens", "missing": "bytes/10", "dimensions": SPLIT},
    "cached": {"count": "cached_tokens", "missing": "bytes/4"},
    "all": {"count": "total_tokens"},
}
UNPACK = {
    "gzip": gzip.decompress,
    "zstd": lambda packed: zstandard.ZstdDecompressor().decompressobj().decompress(packed),
}
REQUEST = post(b"x" * 42, "/v1/chat", f"X-API-Key: {KEY}", "Accept-Encoding: gzip, br")
JSON, STREAM = "Content-Type: application/json", "Content-Type: text/event-stream; charset=utf-8"
TIMES = ("to_first_token", "per_output_token")
CHAT = TRANSCRIPTS["openai chat"].body
STATED = '{"estimated":"no","model":"gpt-4o-2024-08-06"}'
CHAT_COUNTS = {("in", STATED): 19, ("out", STATED): 10, ("cached", ""): 7, ("all", ""): 29}


def find_route(edge: Edge) -> dict[str, Any]:
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    return route


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["meters"] = METERS
    find_route(edge)["response_usage"] = "openai"
    find_route(edge)["errors"] = "problem"
    return edge


def counted(edge: Edge) -> dict[tuple[str, str], int]:
    """Return the billed usage of acme by meter and dimensions as text."""
    assert edge._supervisor is not None
    totals = edge._supervisor.usage_totals()
    return {(row[1], row[4] if len(row) == 5 else ""): row[3] for row in totals if row[0] == "acme" and row[3]}


def missing(edge: Edge) -> dict[str, int]:
    return {reason: words[0] for (_, reason), words in edge.metrics("edge_usage_missing_total").items()}


def answer(body: bytes, *fields: str, status: int = 200) -> bytes:
    return head(f"HTTP/1.1 {status} OK", f"Content-Length: {len(body)}", *fields) + body


async def asked(edge: Edge, data: bytes = REQUEST) -> tuple[Wire, Wire]:
    client = await edge.client()
    await client.sends(data)
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    return client, upstream


# ---- responses with every framing

ANSWERS: dict[str, tuple[bytes, ...]] = {
    "whole": (answer(CHAT, JSON),),
    "head and body": (head("HTTP/1.1 200 OK", JSON, f"Content-Length: {len(CHAT)}"), CHAT),
    "sized, in pieces": (answer(CHAT, JSON)[:-200], CHAT[-200:-30], CHAT[-30:-1], CHAT[-1:]),
    "sized, streamed": (answer(CHAT_STREAM, STREAM)[:-200], CHAT_STREAM[-200:]),
    "chunked": (head("HTTP/1.1 200 OK", JSON, "Transfer-Encoding: chunked") + chunks(CHAT[:50], CHAT[50:]),),
    "streamed": (
        head("HTTP/1.1 200 OK", STREAM, "Transfer-Encoding: chunked"),
        *[chunks(event + b"\n\n")[: -len(chunks())] for event in CHAT_STREAM.split(b"\n\n")[:-1]],
        chunks(),
    ),
    "until close": (head("HTTP/1.1 200 OK", STREAM), CHAT_STREAM[:700], CHAT_STREAM[700:]),
    "of HTTP/1.0": (head("HTTP/1.0 201 OK", JSON), CHAT[:70], CHAT[70:]),
    "packed": (answer(gzip.compress(CHAT), JSON, "Content-Encoding: gzip"),),
    "packed stream": (
        head("HTTP/1.1 200 OK", STREAM, "Content-Encoding: gzip"),
        gzip.compress(CHAT_STREAM)[:50],
        gzip.compress(CHAT_STREAM)[50:],
    ),
    "zstd": (answer(zstandard.compress(CHAT), JSON, "Content-Encoding: zstd"),),
    "stream of zstd": (
        head("HTTP/1.1 200 OK", STREAM, "Content-Encoding: zstd"),
        zstandard.compress(CHAT_STREAM)[:50],
        zstandard.compress(CHAT_STREAM)[50:],
    ),
}


@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize("name", ANSWERS)
async def test_stated_usage_is_counted_with_every_framing(edge: Edge, name: str, minor: int) -> None:
    client, upstream = await asked(edge, REQUEST.replace(b"HTTP/1.1", b"HTTP/1.%d" % minor))
    pieces = ANSWERS[name]
    for piece in pieces:
        await upstream.sends(piece)
        await edge.settles()
    if b"Content-Length" not in pieces[0] and b"chunked" not in pieces[0]:
        upstream.closes()
    got = await client.gets_answer()
    body = UNPACK[got["Content-Encoding"]](got.body) if "Content-Encoding" in got else got.body
    assert body in (CHAT, CHAT_STREAM)
    assert counted(edge) == CHAT_COUNTS
    assert missing(edge) == {}
    times = [len(edge.metrics(f"edge_time_{time_}_seconds")) for time_ in TIMES]
    assert times == ([1, 1] if b"event-stream" in pieces[0] else [0, 0])


async def test_metering_neither_changes_nor_delays_a_stream(edge: Edge) -> None:
    """Each byte of a stream arrives unchanged before the upstream sends the next."""
    client, upstream = await asked(edge)
    await upstream.sends(head("HTTP/1.1 200 OK", STREAM, f"Content-Length: {len(CHAT_STREAM)}"))
    got = await client.gets_head()
    assert (got["Content-Length"], got["Content-Type"]) == (str(len(CHAT_STREAM)), STREAM.partition(": ")[2])
    for at in range(len(CHAT_STREAM)):
        piece = CHAT_STREAM[at : at + 1]
        await upstream.sends(piece)
        assert await client.gets_bytes(1) == piece
    assert counted(edge) == CHAT_COUNTS


@pytest.mark.parametrize("name", ["whole", "sized, in pieces", "streamed"])
async def test_usage_is_counted_before_the_last_byte_is_written(edge: Edge, name: str) -> None:
    client, upstream = await asked(edge)
    (held,) = edge.runtime.connections.clients
    write, seen = held.write, []

    def looks_then_writes(data: bytes) -> None:
        seen.append(counted(edge).get(("all", ""), 0))
        write(data)

    held.write = looks_then_writes
    for piece in ANSWERS[name]:
        await upstream.sends(piece)
        await edge.settles()
    await client.gets_answer()
    assert seen == [0] * (len(seen) - 1) + [29]


async def test_a_metered_route_requests_identity_encoding(edge: Edge) -> None:
    request, _ = await edge.passes(REQUEST, answer(CHAT, JSON))
    assert request.all("Accept-Encoding") == ["identity"]
    del find_route(edge)["response_usage"]
    await edge.reloads()
    request, _ = await edge.passes(REQUEST, answer(CHAT, JSON))
    assert request.all("Accept-Encoding") == ["gzip, br"]
    assert counted(edge) == CHAT_COUNTS, "the second response has a route without response_usage"


async def test_usage_counts_on_each_answer_of_one_connection(edge: Edge) -> None:
    client, upstream = await asked(edge)
    for n in range(1, 4):
        await upstream.tells(client, ANSWERS["streamed"][0] + b"".join(ANSWERS["streamed"][1:]))
        assert counted(edge)[("all", "")] == 29 * n
        if n < 3:
            await client.sends(REQUEST)
            await upstream.gets_request()
    await client.sends(get("/public/x"))
    await upstream.gets_request()
    await upstream.tells(client, answer(CHAT, JSON))
    assert counted(edge)[("all", "")] == 87


# ---- responses without stated usage


@pytest.mark.parametrize(
    ("body", "fields", "reason"),
    [
        (b'{"content":"one two three"}', (JSON,), "absent"),
        (b'data: {"content":"one two"}\n\n', (STREAM,), "absent"),
        (b'{"usage":{"prompt_tokens":-4}}', (JSON,), "unreadable"),
        (b'{"content":"one two three"', (JSON,), "unreadable"),
        (b"\x00" * 30, (JSON, "Content-Encoding: br"), "coding"),
        (b"\x00" * 30, (JSON, "Content-Encoding: gzip"), "coding"),
        (b"\x00" * 30, (JSON, "Content-Encoding: zstd"), "coding"),
    ],
    ids=["json", "stream", "number", "broken", "br", "gzip", "zstd"],
)
@pytest.mark.parametrize("in_pieces", [False, True])
async def test_unstated_usage_is_estimated(
    edge: Edge, body: bytes, fields: tuple[str, ...], reason: str, in_pieces: bool
) -> None:
    body = body[:30].ljust(30)
    client, upstream = await asked(edge)
    whole = answer(body, *fields)
    for piece in (whole[:-4], whole[-4:]) if in_pieces else (whole,):
        await upstream.sends(piece)
        await edge.settles()
    assert (await client.gets_answer()).body == body
    guessed = '{"estimated":"yes"}'
    # An invalid number still shows that there was a prompt. The output is not stated and counts as none.
    estimates = {("in", guessed): 11} if b"-4" in body else {("in", guessed): 11, ("out", guessed): 3}
    assert counted(edge) == estimates
    assert missing(edge) == {reason: 1}
    unreadable = {name for (name,) in edge.metrics("edge_usage_unreadable_total")}
    assert unreadable == ({"in", "all"} if b"-4" in body else set())


@pytest.mark.parametrize(
    ("status", "body", "fields", "reasons"),
    [
        (400, b'{"error":{"message":"no"}}', (JSON,), {}),
        (500, CHAT, (JSON,), {}),
        (302, CHAT, (JSON,), {}),
        (200, b"", (JSON,), {}),
        (200, b"RIFF" * 1000, ("Content-Type: audio/mpeg",), {"type": 1}),
        (200, b"no model speaks here" * 10, (), {"type": 1}),
    ],
)
async def test_responses_without_model_output_count_nothing(
    edge: Edge, status: int, body: bytes, fields: tuple[str, ...], reasons: dict[str, int]
) -> None:
    for pieces in (
        [answer(body, *fields, status=status)],
        [*answer(body, *fields, status=status).partition(b"\r\n\r\n")],
    ):
        client, upstream = await asked(edge)
        for piece in pieces:
            await upstream.sends(piece)
            await edge.settles()
        assert (await client.gets_answer()).body == body
        upstream.closes()
    assert counted(edge) == {}
    assert missing(edge) == {reason: 2 * n for reason, n in reasons.items()}


async def test_a_stream_that_arrives_at_once_gives_no_time_per_token(edge: Edge) -> None:
    client, upstream = await asked(edge)
    await upstream.sends(answer(CHAT_STREAM, STREAM))
    await client.gets_answer()
    assert [len(edge.metrics(f"edge_time_{time_}_seconds")) for time_ in TIMES] == [1, 0]


async def test_a_response_to_head_counts_nothing(edge: Edge) -> None:
    request = get("/v1/x", f"X-API-Key: {KEY}").replace(b"GET", b"HEAD")
    await edge.passes(request, head("HTTP/1.1 200 OK", JSON, "Content-Length: 5000"), to="HEAD")
    assert (counted(edge), missing(edge)) == ({}, {})


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 9000"])
async def test_a_response_cut_off_by_the_upstream_is_estimated(edge: Edge, framing: str) -> None:
    """Anthropic's stream has stated the input before the cut, so the input counts as stated."""
    find_route(edge)["response_usage"] = "anthropic"
    part = ANTHROPIC_STREAM[: ANTHROPIC_STREAM.index(b"event: message_delta")]
    client, upstream = await asked(edge)
    await upstream.sends(head("HTTP/1.1 200 OK", STREAM, framing))
    await upstream.sends(chunks(part)[: -len(chunks())] if "chunked" in framing else part)
    await client.gets_until(b"content_block_stop")
    upstream.closes()
    await client.gets_cut()
    model = '"model":"claude-sonnet-4-20250514"}'
    estimate = 50  # The text has a hundred bytes.
    await edge.until(lambda: len(counted(edge)) == 3)
    assert counted(edge) == {
        ("in", '{"estimated":"no",' + model): 20,
        ("cached", ""): 3,
        ("out", '{"estimated":"yes",' + model): estimate,
    }
    assert missing(edge) == {"cut": 1}


# ---- clients that leave

BEFORE, AFTER = CHAT_STREAM[:700], CHAT_STREAM[700:]


async def leaves(edge: Edge, framing: str = "Transfer-Encoding: chunked") -> Wire:
    """Let a client leave during a response. Return the upstream, which goes on sending."""
    client, upstream = await asked(edge)
    await upstream.sends(head("HTTP/1.1 200 OK", STREAM, *([framing] if framing else [])))
    await upstream.sends(chunks(BEFORE)[: -len(chunks())] if "chunked" in framing else BEFORE)
    await client.gets_until(BEFORE[-20:])
    client.aborts()
    await edge.until(lambda: not edge.runtime.connections.clients)
    return upstream


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", f"Content-Length: {len(CHAT_STREAM)}", ""])
async def test_a_client_that_leaves_pays_for_the_generated_output(edge: Edge, framing: str) -> None:
    upstream = await leaves(edge, framing)
    assert counted(edge) == {}
    assert len(edge.runtime.connections.readers) == 1
    await upstream.sends(chunks(AFTER) if "chunked" in framing else AFTER)
    if framing:
        await upstream.gets_cut()
    else:
        upstream.closes()
    await edge.until(lambda: not edge.runtime.connections.readers)
    assert counted(edge) == CHAT_COUNTS
    assert missing(edge) == {}


async def test_the_response_to_a_reset_http2_stream_is_read_to_its_end(edge: Edge) -> None:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    client = await http2(edge)
    number = await client.begins_request("POST", "/v1/x", ("x-api-key", KEY), ("content-length", "2"), ended=False)
    await client.sends_data(number, b"{}", ended=True)
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 200 OK", STREAM, "Transfer-Encoding: chunked"))
    await upstream.sends(chunks(BEFORE)[: -len(chunks())])
    await client.next_event(number, DataReceived)
    client.protocol.reset_stream(number)
    await client.flushes()
    await edge.until(lambda: len(edge.runtime.connections.readers) == 1)
    await upstream.sends(chunks(AFTER))
    await upstream.gets_cut()
    await edge.until(lambda: not edge.runtime.connections.readers)
    assert counted(edge) == CHAT_COUNTS
    assert missing(edge) == {}
    # The client's connection stays usable.
    edge.config["upstreams"]["api"]["protocol"] = "h2c"
    await edge.reloads()
    number = await client.begins_request("GET", "/v1/x", ("x-api-key", KEY))
    server = await Http2Server(await edge.upstream.accepts()).begins()
    await server.gets_request(1)
    await server.sends_head(1, 200, ("content-type", "text/event-stream"))
    await server.sends_data(1, BEFORE)
    await client.next_event(number, DataReceived)
    client.protocol.reset_stream(number)
    await client.flushes()
    await edge.until(lambda: len(edge.runtime.connections.readers) == 1)
    await server.sends_data(1, AFTER, ended=True)
    await edge.until(lambda: not edge.runtime.connections.readers)
    assert counted(edge) == {name: 2 * value for name, value in CHAT_COUNTS.items()}


ESTIMATED_STATED = '{"estimated":"yes","model":"gpt-4o-2024-08-06"}'
ESTIMATES = {("in", ESTIMATED_STATED): 11, ("out", ESTIMATED_STATED): 50}
"""The received text has a hundred bytes, and a token has at least two bytes."""


async def test_a_cut_after_the_client_left_is_estimated_from_the_received_part(edge: Edge) -> None:
    upstream = await leaves(edge)
    upstream.closes()
    await edge.until(lambda: not edge.runtime.connections.readers)
    assert (counted(edge), missing(edge)) == (ESTIMATES, {"client": 1})


@pytest.mark.parametrize("reason", ["client", "cut"])
async def test_broken_stream_with_a_request_id_is_no_ticket(edge: Edge, reason: str) -> None:
    """Its first event has only a role, so nothing but the prompt has been used."""
    event = b'data: {"request_id":"r1","model":"m","choices":[{"delta":{"role":"assistant"}}]}\n\n'
    client, upstream = await asked(edge)
    await upstream.sends(head("HTTP/1.1 200 OK", STREAM, "Transfer-Encoding: chunked"))
    await upstream.sends(chunks(event)[: -len(chunks())])
    await client.gets_until(b"assistant")
    if reason == "client":
        client.aborts()
        await edge.until(lambda: not edge.runtime.connections.clients)
    upstream.closes()
    if reason == "cut":
        await client.gets_cut()
    await edge.until(lambda: missing(edge) == {reason: 1})
    assert counted(edge) == {("in", '{"estimated":"yes","model":"m"}'): 11}


async def test_reading_on_stops_at_a_malformed_body(edge: Edge) -> None:
    upstream = await leaves(edge)
    await upstream.sends(b"no chunk\r\n")
    await upstream.gets_cut()
    assert (counted(edge), missing(edge)) == (ESTIMATES, {"client": 1})


@pytest.mark.parametrize("read_on", [{"read_on": "0s"}, {"read_on_size": "10B"}, {"read_on": "500ms"}])
async def test_reading_on_is_bounded_in_time_and_size(edge: Edge, read_on: dict[str, str]) -> None:
    find_route(edge)["response_usage"] = {"format": "openai", **read_on}
    upstream = await leaves(edge)
    if "read_on_size" in read_on:
        await upstream.sends(b"400\r\n: ten bytes and more")
    await upstream.gets_cut()
    await edge.until(lambda: missing(edge))
    assert missing(edge) == {"client": 1}
    assert counted(edge)[("in", ESTIMATED_STATED)] == 11


async def test_the_number_of_responses_read_on_is_bounded(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_connections, "READERS_MAX", 1)
    first, second = await leaves(edge), await leaves(edge)
    await second.gets_cut()
    assert (counted(edge), missing(edge)) == (ESTIMATES, {"client": 1})
    edge.runtime.connections.end_readers()
    await first.gets_cut()
    twice = {name: 2 * n for name, n in ESTIMATES.items()}
    assert (counted(edge), missing(edge)) == (twice, {"client": 2})


async def test_a_worker_that_ends_counts_partial_responses_once(edge: Edge) -> None:
    upstream = await leaves(edge)
    for _ in range(2):
        edge.runtime.connections.end_readers()
    await upstream.gets_cut()
    assert (counted(edge), missing(edge)) == (ESTIMATES, {"client": 1})


# ---- meters


async def test_models_are_bounded_and_paths_counted(edge: Edge) -> None:
    edge.config["meters"] = {
        "units": {"count": "response_json", "json": "usage.units", "dimensions": {"model": 2}},
        "tokens": {"count": "input_tokens"},
    }
    find_route(edge)["response_usage"] = "json"
    for model in ("a", "b", "a", "c", "no model", 5, None):
        await edge.passes(REQUEST, answer(compact({"model": model, "usage": {"units": 3}}), JSON))
    a, b, other = '{"model":"a"}', '{"model":"b"}', '{"model":"~other"}'
    assert counted(edge) == {("units", a): 6, ("units", b): 3, ("units", other): 9, ("units", ""): 3}
    assert missing(edge) == {}, "this format states no tokens"


async def test_a_quota_of_tokens_is_charged(edge: Edge) -> None:
    edge.config["meters"] = {"out": METERS["out"]}
    quotas = [{"meter": "out", "per": "month", "included": 15, "cap": "hard"}]
    edge.config["tiers"]["basic"] = {"limits": [], "quotas": quotas}
    for n, whole in enumerate((answer(CHAT, JSON), b"".join(ANSWERS["streamed"])), 1):
        await edge.passes(REQUEST, whole)
        assert edge.used() == {"out-month": 10 * n}
    is_limited(await edge.refuses(REQUEST), "out-month")
    assert sum(counted(edge).values()) == 20
