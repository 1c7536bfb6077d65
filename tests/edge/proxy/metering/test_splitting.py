"""The boundaries of TCP segments must not change a conversation: TCP guarantees only the order of the bytes.

Each conversation is played once whole, then with the client's stream cut in two at every point, then with the
upstream's stream cut in two at every point, and finally with both streams sent byte by byte.
"""

import asyncio
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from edgeproxy.edge.proxy.upstreams.idle_lifetime import IdleLifetime
from tests.support.transcript import KEY, Edge, chunks, get, head, ok, post
from tests.support.wire import Message, Wire

NEW_EACH_TIME = re.compile(
    rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|(?<=traceparent: 00-)[0-9a-f-]{49}|(?<=;[rt]=)\d+"
    rb"|(?<=Date: )[^\r]+"
)
"""Text that differs in each play: request ids, traces, remaining amounts of limits, and the date."""


class Conversation(NamedTuple):
    """The client's bytes, the upstream's answer to each request, and the method of each answer that the client gets."""

    client: bytes
    answers: tuple[bytes, ...]
    methods: tuple[str, ...] = ("GET",)
    closes: bool = False
    """True if the upstream closes its connection after each answer."""


def chunked(*fields: str) -> bytes:
    return head("POST /public/ HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", *fields)


UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
CHUNKED = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")

CONVERSATIONS = {
    "get": Conversation(get("/public/a?b", "Accept: */*"), (ok(),)),
    "with key": Conversation(get("/v1/a", f"X-API-Key: {KEY}"), (ok(b"abc", "RateLimit: theirs"),)),
    "unusual head": Conversation(
        get("/public/../public/%7ea", "Connection: x-hop", "X-Hop: 1", "TE: trailers", "Via: 1.1 a"),
        (head("HTTP/1.1 200 OK", "Connection: x-hop", "X-Hop: 1", "Content-Length: 3") + b"abc",),
    ),
    "post": Conversation(post(b"0123456789"), (ok(b"0123456789"),)),
    "empty lines": Conversation(b"\r\n\r\n" + get() + b"\r\n" + get(), (ok(), ok()), ("GET", "GET")),
    "chunked both ways": Conversation(
        chunked() + chunks(b"abc", b"defgh", trailers=("X-Sum: 1",)),
        (CHUNKED + chunks(b"12", b"345", trailers=("X-Sum: 2",)),),
    ),
    "chunks with extensions": Conversation(
        chunked() + b"3;a=b\r\nabc\r\n0;last\r\n\r\n", (CHUNKED + b"00a ; x\r\n0123456789\r\n000\r\n\r\n",)
    ),
    "pipelined": Conversation(
        get("/public/1") + post(b"abc") + chunked() + chunks(b"de") + get("/public/4"),
        (ok(b"1"), CHUNKED + chunks(b"2"), head("HTTP/1.1 204 No Content"), ok(b"4")),
        ("GET", "POST", "POST", "GET"),
    ),
    "mixed with refusals": Conversation(
        get("/nowhere") + get("/public/1") + get("/v1/x") + head("HEAD /n HTTP/1.1", "Host: h") + get("/public/2"),
        (ok(b"1"), ok(b"2")),
        ("GET", "GET", "GET", "HEAD", "GET"),
    ),
    "head": Conversation(
        head("HEAD /public/ HTTP/1.1", "Host: h") + get(),
        (head("HTTP/1.1 200 OK", "Content-Length: 5"), ok(b"next")),
        ("HEAD", "GET"),
    ),
    "not modified": Conversation(
        get() + get(), (head("HTTP/1.1 304 Not Modified", "Content-Length: 5"), ok()), ("GET", "GET")
    ),
    "interims": Conversation(
        get(),
        (head("HTTP/1.1 100 Continue") + head("HTTP/1.1 103 Early Hints", "Link: <a>") + ok(),),
        ("1xx", "1xx", "GET"),
    ),
    "until close": Conversation(get(), (head("HTTP/1.1 200 OK") + b"until the end",), closes=True),
    "HTTP/1.0": Conversation(b"GET /public/ HTTP/1.0\r\n\r\n", (CHUNKED + chunks(b"abc", b"def"),)),
    "close": Conversation(get("/public/", "Connection: close"), (ok(b"abc", "Connection: close"),)),
    "tunnel": Conversation(
        get("/public/", *UPGRADE) + b"\x81\x03abc GET / HTTP/1.1\r\n\r\n",
        (head("HTTP/1.1 101 Switching Protocols", *UPGRADE) + b"\x82\x02HTTP/1.1 200 OK\r\n\r\n",),
        ("1xx",),
        closes=True,
    ),
    "malformed field": Conversation(get("/public/", "X-A : b"), ()),
    "malformed line": Conversation(head("GET  /public/ HTTP/1.1", "Host: h"), ()),
    "two framings": Conversation(chunked("Content-Length: 1"), ()),
    "second malformed": Conversation(get() + b"nonsense\r\n\r\n", (ok(),), ("GET", "GET")),
    "malformed answer": Conversation(get(), (b"HTTP/1.1 200 OK\r\nnonsense\r\nX-A: b\r\n\r\n",)),
    "answer of another version": Conversation(get(), (b"HTTP/3.0 200 OK\r\n\r\n",)),
}

TURNS = 8
"""Turns of the event loop after each piece, so that the edge reads the piece alone. Two turns suffice."""

Said = tuple[bytes, bytes, tuple[tuple[str, str], ...]]


def said(message: Message) -> Said:
    """Return a message without the text that differs in each play. Chunk boundaries do not count (RFC 9112 7.1)."""
    return (
        NEW_EACH_TIME.sub(b"*", message.raw),
        NEW_EACH_TIME.sub(b"*", message.body),
        tuple(message.trailers),
    )


class Cuts(NamedTuple):
    """The positions of cuts in the client's stream, and in the concatenated answers of the upstream."""

    client: frozenset[int] = frozenset()
    upstream: frozenset[int] = frozenset()


def pieces(stream: bytes, cuts: frozenset[int], start: int = 0) -> Iterator[bytes]:
    """Yield the pieces of `stream`, whose first byte has the position `start` in the numbering of the cuts."""
    begin = 0
    for cut in sorted(cuts):
        if begin < cut - start < len(stream):
            yield stream[begin : cut - start]
            begin = cut - start
    yield stream[begin:]


async def sends(edge: Edge, wire: Wire, parts: Iterator[bytes]) -> None:
    for part in parts:
        try:
            await wire.sends(part)
        except ConnectionError:
            return  # The edge has closed the connection. Its answer is complete.
        for _ in range(TURNS):
            await asyncio.sleep(0)


async def played(edge: Edge, script: Conversation, cuts: Cuts) -> tuple[list[Said], bytes, list[Said], bytes]:
    """Play a conversation. Return for upstream and client the messages received and the bytes after the last one."""
    requests: list[Said] = []
    answers: list[Said] = []
    rests = {"client": b"", "upstream": b""}
    client = await edge.client()
    tunnel = script.methods == ("1xx",)

    async def serves() -> None:
        wire, start = None, 0
        for answer in script.answers:
            if wire is None or not wire.open:
                wire = await edge.upstream.accepts()
            requests.append(said(await wire.gets_request()))
            await sends(edge, wire, pieces(answer, cuts.upstream, start))
            start += len(answer)
            if tunnel:
                rests["upstream"] = await wire.gets_bytes(len(script.client) - script.client.index(b"\x81"))
            if script.closes:
                wire.closes()
        if wire is not None and wire.open:
            await edge.settles()
            rests["upstream"] += wire.has()
            wire.closes()

    async def gets() -> None:
        for method in script.methods:
            answers.append(said(await client.gets_answer(method)))
        if not tunnel:
            client.sends_eof()
        rests["client"] = await client.gets_rest()

    await asyncio.gather(sends(edge, client, pieces(script.client, cuts.client)), serves(), gets())
    client.closes()
    await edge.until(lambda: not edge.runtime.connections.clients and not edge.runtime.connections.upstreams)
    return requests, rests["upstream"], answers, rests["client"]


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "100000/min"}]}
    return edge


@pytest.fixture(autouse=True)
def unlearning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off the estimate of idle lifetimes: each play closes its upstream connections, which would distort it."""
    monkeypatch.setattr(IdleLifetime, "record_close", lambda *_: None)


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_segment_boundaries_do_not_change_a_conversation(
    edge: Edge, name: str, seed: int, at_night: bool
) -> None:
    """By day each third place is tried alone, and all places together."""
    script = CONVERSATIONS[name]
    whole = await played(edge, script, Cuts())
    client, upstream = range(1, len(script.client)), range(1, sum(map(len, script.answers)))
    alone = slice(None) if at_night else slice(seed % 3, None, 3)
    for cut in client[alone]:
        assert await played(edge, script, Cuts(client=frozenset({cut}))) == whole, script.client[:cut]
    for cut in upstream[alone]:
        assert await played(edge, script, Cuts(upstream=frozenset({cut}))) == whole, cut
    assert await played(edge, script, Cuts(frozenset(client), frozenset(upstream))) == whole


async def test_each_whole_conversation_gets_its_expected_statuses(edge: Edge) -> None:
    """Each conversation, played whole, is complete and has the expected statuses."""
    firsts = {}
    for name, script in CONVERSATIONS.items():
        requests, _, answers, rest = await played(edge, script, Cuts())
        assert len(requests) == len(script.answers), name
        firsts[name] = [raw.split()[1].decode() for raw, _, _ in answers]
        assert rest == (b"\x82\x02HTTP/1.1 200 OK\r\n\r\n" if name == "tunnel" else b""), name
    assert firsts["mixed with refusals"] == ["404", "200", "401", "404", "200"]
    assert firsts["interims"] == ["100", "103", "200"]
    assert firsts["tunnel"] == ["101"]
    for name in ("malformed field", "malformed line", "two framings"):
        assert firsts[name] == ["400"]
    assert firsts["second malformed"] == ["200", "400"]
    for name in ("malformed answer", "answer of another version"):
        assert firsts[name] == ["502"]
