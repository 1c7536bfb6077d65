"""Compressed answers: the client receives the original content, and caches keep the two forms apart."""

import gzip
import random
from typing import Any

import pytest
import zstandard

from edgeproxy.edge.proxy.transport.compression import parse_accepted_codings
from tests.support.transcript import Edge, chunks, get, head, ok, post
from tests.support.wire import Message

TEXT = b"All the world's a stage, and all the men and women merely players. " * 2000
JSON = "Content-Type: application/json; charset=utf-8"


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["routes"][1]["compress"] = "on"
    edge.config["meters"] = {"egress": {"count": "bytes_out"}}
    return edge


def unpacked(answer: Message) -> bytes:
    packed = answer.body
    if answer["Content-Encoding"] == "gzip":
        return gzip.decompress(packed)
    with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
        return reader.read()


def sized(body: bytes) -> bytes:
    return ok(body, JSON, 'ETag: "v1"', "Accept-Ranges: bytes", "Content-MD5: x")


def chunked(body: bytes) -> bytes:
    pieces = [body[at : at + 9000] for at in range(0, len(body), 9000)]
    return head("HTTP/1.1 200 OK", JSON, 'ETag: W/"v1"', "Transfer-Encoding: chunked") + chunks(*pieces)


@pytest.mark.parametrize("algorithm", ["gzip", "zstd"])
@pytest.mark.parametrize("answer", [sized, chunked])
async def test_compressed_answer_decompresses_to_the_original(edge: Edge, algorithm: str, answer: Any) -> None:
    content = random.Random(3).randbytes(40_000).hex().encode() + TEXT
    edge.upstream.answers(lambda request: answer(content))
    client = await edge.client()
    size = 0
    for _ in range(2):  # on one connection, and on one to the upstream
        got = await client.asks(get("/public/", f"Accept-Encoding: br, {algorithm}"))
        assert got["Content-Encoding"] == algorithm
        assert unpacked(got) == content
        assert len(got.body) < len(content) * 0.7
        assert got["ETag"] == 'W/"v1"'
        assert got["Vary"] == "Accept-Encoding"
        size += len(got.body)
        assert not {"Content-Length", "Accept-Ranges", "Content-MD5"} & {name.title() for name, _ in got.fields}
    assert edge.usage() == {("-", "egress", "public"): size}


async def test_routes_with_and_without_compression_share_connections(edge: Edge) -> None:
    edge.upstream.answers(lambda request: chunked(TEXT) if request.first.startswith("GET") else sized(TEXT))
    client = await edge.client()
    for method in ("GET", "POST", "GET"):
        for path in ("/public/", "/get/" if method == "GET" else "/maybe/"):
            request = get(path, "Accept-Encoding: gzip")
            got = await client.asks(request.replace(b"GET", method.encode(), 1))
            assert ("Content-Encoding" in got) is (path == "/public/")
            assert (unpacked(got) if path == "/public/" else got.body) == TEXT
    assert len(edge.upstream.wires) == 1


async def test_compressed_answer_ends_cleanly_at_close_but_not_when_truncated(edge: Edge) -> None:
    for lines in ((), ("Content-Length: 999999",)):
        client, upstream = await edge.forwards(get("/public/", "Accept-Encoding: gzip"))
        await upstream.sends(head("HTTP/1.1 200 OK", JSON, *lines), TEXT)
        upstream.closes()
        if lines:
            await client.gets_head()
            assert not (await client.gets_reset()).endswith(b"0\r\n\r\n")
        else:
            assert unpacked(await client.gets_answer()) == TEXT
        client.closes()


async def test_a_piece_of_a_stream_does_not_wait_for_the_next(edge: Edge) -> None:
    client, upstream = await edge.forwards(get("/public/", "Accept-Encoding: zstd"))
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Type: text/plain", "Transfer-Encoding: chunked"))
    await client.gets_head()
    reader, got = zstandard.ZstdDecompressor().decompressobj(), b""
    for piece in (b"first", b"second"):
        await upstream.sends(b"%x\r\n%b\r\n" % (len(piece), piece))
        while not got.endswith(piece):
            size = int(await client.gets_until(b"\r\n"), 16)
            got += reader.decompress(await client.gets_bytes(size))
            await client.gets(b"\r\n")
    await upstream.sends(b"0\r\n\r\n")
    assert (await client.gets_until(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")
    client.closes()
    upstream.closes()


UNTOUCHED = {
    "small": ok(b"x" * 1023, JSON),
    "an image": ok(TEXT, "Content-Type: image/png"),
    "of no type": ok(TEXT),
    "compressed": ok(gzip.compress(TEXT), JSON, "Content-Encoding: gzip"),
    "a bomb": ok(gzip.compress(b"0" * 10_000_000), JSON, "Content-Encoding: gzip"),
    "events": ok(TEXT, "Content-Type: text/event-stream"),
    "not to be changed": ok(TEXT, JSON, "Cache-Control: public, No-Transform"),
    "a range": head("HTTP/1.1 206 Part", JSON, "Content-Range: bytes 0-4/9", "Content-Length: 5") + b"hello",
    "nothing": head("HTTP/1.1 204 No"),
}


async def test_uncompressible_answers_pass_unchanged(edge: Edge) -> None:
    for name, answered in UNTOUCHED.items():
        _, got = await edge.passes(get("/public/", "Accept-Encoding: gzip, zstd"), answered)
        assert got.body == answered.partition(b"\r\n\r\n")[2]
        assert got.all("Content-Encoding") == (["gzip"] if name in ("compressed", "a bomb") else [])


async def test_client_without_compression_gets_the_plain_answer_with_vary(edge: Edge) -> None:
    for said in ("", "br", "identity", "gzip;q=0", "gzip; q=0.000, zstd;q=0", "*"):
        _, got = await edge.passes(get("/public/", f"Accept-Encoding: {said}"), sized(TEXT))
        assert (got.body, got["ETag"], got["Vary"]) == (TEXT, '"v1"', "Accept-Encoding")
        assert "Content-Encoding" not in got


async def test_http_1_0_client_gets_an_uncompressed_answer(edge: Edge) -> None:
    request = head("GET /public/ HTTP/1.0", "Host: h", "Accept-Encoding: gzip")
    _, got = await edge.passes(request, sized(TEXT))
    assert got.body == TEXT


async def test_head_request_gets_the_fields_of_a_compressed_get(edge: Edge) -> None:
    request = head("HEAD /public/ HTTP/1.1", "Host: h", "Accept-Encoding: gzip")
    told = head("HTTP/1.1 200 OK", JSON, 'ETag: "v1"', f"Content-Length: {len(TEXT)}")
    edge.upstream.answers(lambda _: told)
    client = await edge.client()
    for _ in range(2):
        got = await client.asks(request, to="HEAD")
        assert (got["Content-Encoding"], got["ETag"]) == ("gzip", 'W/"v1"')
        assert "Content-Length" not in got


async def test_not_modified_answer_keeps_the_clients_etag(edge: Edge) -> None:
    confirmed = head("HTTP/1.1 304 Not Modified", 'ETag: "v1"')
    for known, etag in (('W/"v1"', 'W/"v1"'), ('"v1"', '"v1"'), ('"v0", W/"v1"', 'W/"v1"')):
        received, got = await edge.passes(
            get("/public/", f"If-None-Match: {known}", "Accept-Encoding: gzip"), confirmed
        )
        assert received["If-None-Match"] == known
        assert (got.status, got["ETag"], got["Vary"]) == (304, etag, "Accept-Encoding")


async def test_a_request_is_never_unpacked(edge: Edge) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    received, _ = await edge.passes(post(bomb, "/public/", "Content-Encoding: gzip"), ok())
    assert received.body == bomb


def test_accepted_codings_are_the_named_ones_with_weight_above_zero() -> None:
    assert parse_accepted_codings(b"Accept-Encoding: GZIP;q=0.5, br\r\naccept-encoding: zstd;q=1.0\r\n") == {
        b"gzip",
        b"br",
        b"zstd",
    }
    assert parse_accepted_codings(b"Accept-Encoding: gzip;q=0, zstd; q=0.0\r\n") == set()
    assert parse_accepted_codings(b"") == set()
