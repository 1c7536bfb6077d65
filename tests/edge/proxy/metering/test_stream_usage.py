"""Usage that the edge asks for in the place of clients who forget it: they get the stream that they asked for."""

import gzip
import re
from typing import Any

import pytest
from h2.events import DataReceived, StreamEnded

from tests.edge.body_usage.test_stream_options import USAGE_EVENT, WITHOUT
from tests.edge.body_usage.transcripts import CHAT_STREAM, TRANSCRIPTS, compact
from tests.support.http2_server import Http2Server
from tests.support.http2_wire import http2
from tests.support.transcript import KEY, Edge, chunks, head, post
from tests.support.wire import Wire

PATH = "/v1/chat/completions"
STREAM = "Content-Type: text/event-stream"
ASKS = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Größe"}]}
BODY = compact(ASKS)
OPTIONS = b',"stream_options":{"include_usage":true}}'
ASKING = BODY[:-1] + OPTIONS
FIELDS = (f"X-API-Key: {KEY}", "Content-Type: application/json")
REQUEST = post(BODY, PATH, *FIELDS)
CHUNKED = head("HTTP/1.1 200 OK", STREAM, "Transfer-Encoding: chunked") + chunks(CHAT_STREAM[:777], CHAT_STREAM[777:])
SIZED = head("HTTP/1.1 200 OK", STREAM, f"Content-Length: {len(CHAT_STREAM)}") + CHAT_STREAM
UNTIL_CLOSE = head("HTTP/1.0 200 OK", STREAM) + CHAT_STREAM


def find_route(edge: Edge) -> dict[str, Any]:
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    return route


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["meters"] = {"all": {"count": "total_tokens"}}
    find_route(edge)["response_usage"] = {"format": "openai", "ask_for_usage": True}
    return edge


def counted(edge: Edge) -> int:
    assert edge._supervisor is not None
    return sum(row[3] for row in edge._supervisor.usage_totals())


async def sent(edge: Edge, *pieces: bytes) -> tuple[Wire, Wire, bytes]:
    """The two ends of a request, and its body as the upstream gets it."""
    client = await edge.client()
    for piece in pieces:
        await client.sends(piece)
        await edge.settles()
    upstream = await edge.upstream.accepts()
    return client, upstream, (await upstream.gets_request()).body


@pytest.mark.parametrize("answer", [CHUNKED, SIZED, UNTIL_CLOSE], ids=["chunked", "sized", "until close"])
@pytest.mark.parametrize("at", [len(REQUEST), len(REQUEST) - 5, len(REQUEST) - len(BODY)])
async def test_edge_requests_stream_usage_and_hides_it_from_the_client(edge: Edge, answer: bytes, at: int) -> None:
    client, upstream, body = await sent(edge, REQUEST[:at], REQUEST[at:])
    assert body == ASKING
    await upstream.sends(answer)
    if answer is UNTIL_CLOSE:
        upstream.closes()
    got = await client.gets_answer()
    assert (got.body, got.all("Content-Length")) == (WITHOUT, [])
    assert counted(edge) == 29


async def test_each_event_passes_before_the_next_is_sent(edge: Edge) -> None:
    client, upstream, _ = await sent(edge, REQUEST)
    await upstream.sends(head("HTTP/1.1 200 OK", STREAM, "Transfer-Encoding: chunked"))
    await client.gets_head()
    for event in re.findall(rb".*?\n\n", CHAT_STREAM, re.DOTALL):
        chunk = chunks(event)[: -len(chunks())]
        await upstream.sends(chunk)
        if event != USAGE_EVENT:
            assert await client.gets_bytes(len(chunk)) == chunk
    await upstream.sends(chunks())
    assert await client.gets_bytes(len(chunks())) == chunks()


async def test_connection_serves_usage_streams_and_other_requests_in_turn(edge: Edge) -> None:
    client, upstream, _ = await sent(edge, REQUEST)
    for n in range(3):
        await upstream.sends(CHUNKED)
        assert (await client.gets_answer()).body == WITHOUT
        await client.sends(REQUEST if n < 2 else post(BODY, "/public/chat/completions"))
        assert (await upstream.gets_request()).body == (ASKING if n < 2 else BODY)
    await upstream.sends(SIZED)
    assert (await client.gets_answer()).body == CHAT_STREAM


LARGE = compact({**ASKS, "x": "y" * (128 << 10)})
ASKS_ITSELF = compact({**ASKS, "stream_options": {"include_usage": True}})
DIGEST = post(BODY, PATH, *FIELDS, "Content-Digest: sha-256=:x:")
IN_CHUNKS = head(f"POST {PATH} HTTP/1.1", "Host: edge", *FIELDS, "Transfer-Encoding: chunked") + chunks(BODY)


@pytest.mark.parametrize(
    ("request_bytes", "body"),
    [
        (post(LARGE, PATH, *FIELDS), LARGE),
        (post(ASKS_ITSELF, PATH, *FIELDS), ASKS_ITSELF),
        (post(b'{"stream": true', PATH, *FIELDS), b'{"stream": true'),
        (post(gzip.compress(BODY, mtime=0), PATH, *FIELDS, "Content-Encoding: gzip"), gzip.compress(BODY, mtime=0)),
        (post(BODY, "/v1/responses", *FIELDS), BODY),
        (DIGEST, BODY),
        (IN_CHUNKS, BODY),
        (REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"), BODY),
        (REQUEST.replace(b"POST", b"PUT"), BODY),
    ],
    ids=["large", "asks", "no JSON", "gzip", "responses", "digest", "chunked", "HTTP/1.0", "PUT"],
)
async def test_other_requests_and_streams_pass_unchanged(edge: Edge, request_bytes: bytes, body: bytes) -> None:
    client, upstream, got = await sent(edge, request_bytes)
    assert got == body
    await upstream.sends(SIZED)
    assert (await client.gets_answer()).body == CHAT_STREAM
    assert counted(edge) == 29


@pytest.mark.parametrize(
    ("status", "body", "fields"),
    [
        (200, TRANSCRIPTS["openai chat"].body, ("Content-Type: application/json",)),
        (200, gzip.compress(CHAT_STREAM, mtime=0), (STREAM, "Content-Encoding: gzip")),
        (400, CHAT_STREAM, (STREAM,)),
    ],
    ids=["JSON", "packed", "refused"],
)
async def test_an_answer_that_is_no_stream_to_be_read_passes_as_it_is(
    edge: Edge, status: int, body: bytes, fields: tuple[str, ...]
) -> None:
    client, upstream, _ = await sent(edge, REQUEST)
    await upstream.sends(head(f"HTTP/1.1 {status} OK", f"Content-Length: {len(body)}", *fields) + body)
    got = await client.gets_answer()
    assert (got.body, got["Content-Length"]) == (body, str(len(body)))


async def test_stream_usage_request_gets_100_continue(edge: Edge) -> None:
    request = post(BODY, PATH, *FIELDS, "Expect: 100-continue")
    client = await edge.client()
    await client.sends(request[: -len(BODY)])
    await client.gets_until(b"100 Continue\r\n\r\n")
    await client.sends(BODY)
    upstream = await edge.upstream.accepts()
    assert (await upstream.gets_request()).body == ASKING


@pytest.mark.parametrize("buffer", [None, "1MiB"])
async def test_stream_usage_is_requested_in_buffered_requests_too(edge: Edge, buffer: str | None) -> None:
    if buffer is not None:
        edge.config["upstreams"]["api"]["buffer"] = buffer
    limit = {"rate": "1000/min", "of": "all", "reserve": "request"}
    edge.config["tiers"]["basic"] = {"limits": [limit]}
    client, upstream, body = await sent(edge, REQUEST[:-9], REQUEST[-9:])
    assert body == ASKING
    await upstream.sends(CHUNKED)
    assert (await client.gets_answer()).body == WITHOUT


async def test_over_http2_to_either_kind_of_upstream(edge: Edge) -> None:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    client = await http2(edge)

    async def asks() -> int:
        fields = ("x-api-key", KEY), ("content-length", str(len(BODY)))
        number = await client.begins_request("POST", PATH, *fields, ended=False)
        await client.sends_data(number, BODY[:9])
        await client.sends_data(number, BODY[9:], ended=True)
        return number

    async def gets(number: int) -> bytes:
        body = b""
        while not isinstance(event := await client.next_event(number, DataReceived, StreamEnded), StreamEnded):
            body += event.data
        return body

    number = await asks()
    upstream = await edge.upstream.accepts()
    assert (await upstream.gets_request()).body == ASKING
    await upstream.sends(CHUNKED)
    assert await gets(number) == WITHOUT
    edge.config["upstreams"]["api"]["protocol"] = "h2c"
    await edge.reloads()
    number = await asks()
    server = await Http2Server(await edge.upstream.accepts()).begins()
    _, body, _ = await server.gets_request(1)
    assert body == ASKING
    await server.sends_head(1, 200, ("content-type", "text/event-stream"))
    await server.sends_data(1, CHAT_STREAM, ended=True)
    assert await gets(number) == WITHOUT
    assert counted(edge) == 58


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (REQUEST.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked"), 411),
        (REQUEST.replace(b"\r\n\r\n", b"\r\nContent-Digest: sha-256=:AAAA:\r\n\r\n", 1), 400),
        (REQUEST.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1), 415),
        (REQUEST.replace(BODY, b"x" * len(BODY)), 400),
    ],
    ids=["chunked", "digest", "packed", "no JSON"],
)
async def test_request_that_cannot_be_changed_is_refused_where_the_route_says_so(
    edge: Edge, request_: bytes, status: int
) -> None:
    find_route(edge)["response_usage"]["ask_for_usage"] = {"else": "refuse"}
    client = await edge.client()
    await client.sends(request_)
    assert (await client.gets_answer()).status == status
    assert counted(edge) == 0
