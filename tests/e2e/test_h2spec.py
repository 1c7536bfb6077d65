"""The cases of h2spec at a whole edge, in turn over TLS and with prior knowledge, each over its own connection.

`tests/edge/http2/test_h2spec.py` runs all of them on the protocol alone, without TLS. Only the preface is parsed
elsewhere, so its case runs over both. Like h2spec, this client waits for the answer to a request before it sends the
following frames of its row.
"""

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from edgeproxy.edge.http2.errors import ErrorCode
from loadtest.testbed.ports import HOST
from loadtest.testbed.upstream import Upstream
from tests.contract.stage import connect
from tests.edge.http2.peer import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Frame,
    frame,
    settings,
)
from tests.edge.proxy.tls_wire import TlsWire
from tests.support.h2spec import ACKNOWLEDGED, CASES, INVALID_PREFACE, Expected
from tests.support.http2_site import Http2Site
from tests.support.wire import Cut, Wire

FENCE = frame(PING, 0, 0, b"fence\0\0\0")


class Client:
    """A connection with hand-written frames."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.frames: list[Frame] = []
        """All received frames."""
        self.window = 65535
        """The window of a new stream."""

    async def read(self) -> bool:
        """Read one more frame; return whether there was one before the end of the connection."""
        try:
            prefix = await self.wire.gets_bytes(9)
            payload = await self.wire.gets_bytes(int.from_bytes(prefix[:3], "big"))
        except (Cut, ConnectionError):
            return False
        self.frames.append(Frame(prefix[3], prefix[4], int.from_bytes(prefix[5:], "big"), payload))
        return True

    def list_of(self, kind: int) -> list[Frame]:
        return [frame for frame in self.frames if frame.kind == kind]

    async def send_row(self, row: bytes) -> None:
        """Send the frames of a row. After each request, wait for as much of its answer as its window allows."""
        ending = 0
        while row and not self.list_of(GOAWAY):
            size, kind, flags = int.from_bytes(row[:3], "big"), row[3], row[4]
            number, payload = int.from_bytes(row[5:9], "big"), row[9 : 9 + size]
            await self.wire.sends(row[: 9 + size])
            row = row[9 + size :]
            if kind == SETTINGS and not flags & ACK and row:
                windows = [payload[at + 2 : at + 6] for at in range(0, size, 6) if payload[at : at + 2] == b"\0\x04"]
                self.window = int.from_bytes(windows[-1], "big") if windows else self.window
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                ending = number
            is_whole = kind == DATA or (kind in (HEADERS, CONTINUATION) and flags & END_HEADERS)
            if row and ending and is_whole and number == ending:
                await self._await_answer(ending)
                ending = 0

    async def _await_answer(self, number: int) -> None:
        while True:
            mine = [frame for frame in self.frames if frame.number == number]
            taken = sum(len(frame.payload) for frame in mine if frame.kind == DATA)
            has_head = any(frame.kind == HEADERS for frame in mine)
            if has_head and taken >= min(self.window, 5):
                return
            if any(frame.kind == RST_STREAM for frame in mine) or self.list_of(GOAWAY) or not await self.read():
                return

    async def pings(self) -> None:
        """Wait until the edge has answered a ping, and so has read everything before it."""
        with suppress(ConnectionError):
            await self.wire.sends(FENCE)
        while not any(frame.payload == FENCE[9:] for frame in self.list_of(PING)):
            assert await self.read(), f"the connection has ended: {self.frames[-3:]}"


async def connect_to(site: Http2Site, *, secure: bool) -> Client:
    wire = await connect(site.secure_port if secure else site.edge.port)
    if secure:
        wire = TlsWire(wire._end, site.authority.trusted(("h2",)), name=HOST)
        await wire.shakes_hands()
    return Client(wire)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Http2Site]:
    with closing(Http2Site(tmp_path_factory.mktemp("h2spec"), upstream)) as site:
        yield site


TURNS = [(*case, number % 2 == 0) for number, case in enumerate(CASES)]
TURNS += [(*case, not secure) for *case, secure in TURNS if case[0] == INVALID_PREFACE]


@pytest.mark.parametrize(
    ("case", "frames", "expected", "secure"),
    TURNS,
    ids=[f"{case}-{'TLS' if secure else 'prior knowledge'}" for case, _, _, secure in TURNS],
)
def test_edge_answers_each_h2spec_case(
    site: Http2Site, case: str, frames: bytes, expected: Expected, secure: bool
) -> None:
    asyncio.run(check(site, case, frames, expected, secure))


async def check(site: Http2Site, case: str, frames: bytes, expected: Expected, secure: bool) -> None:
    client = await connect_to(site, secure=secure)
    try:
        if case == INVALID_PREFACE:
            await client.wire.sends(frames)
            if not secure:
                # Without the preface, the connection is HTTP/1.1, and a bad request is answered.
                assert (await client.wire.gets_answer()).status == 400
                await client.wire.gets_eof()
                return
        else:
            await client.wire.sends(PREFACE, settings())
            while not any(frame.flags & ACK for frame in client.list_of(SETTINGS)):
                assert await client.read()
            await client.send_row(frames)
        await check_outcome(client, expected)
        if expected == ACKNOWLEDGED:
            assert len([frame for frame in client.list_of(SETTINGS) if frame.flags & ACK]) == (2 if frames else 1)
    finally:
        client.wire.closes()


async def check_outcome(client: Client, expected: Expected) -> None:
    outcome = expected[0]
    if outcome == "connection error":
        while await client.read():
            pass
        assert [ErrorCode(frame.code) for frame in client.list_of(GOAWAY)] == [expected[-1]]
        return
    if outcome == "stream error":
        while not client.list_of(RST_STREAM):
            assert await client.read(), f"the connection has ended: {client.frames[-3:]}"
        assert {ErrorCode(frame.code) for frame in client.list_of(RST_STREAM)} == {expected[-1]}
    elif outcome == "head":
        while not client.list_of(HEADERS):
            assert await client.read()
        (head,) = client.list_of(HEADERS)
        assert (head.number, head.payload[:2]) == (1, b"\x20\x88")
    elif outcome == "data of 1 byte":
        while not (data := client.list_of(DATA)) or len(data[-1].payload) != 1:
            assert await client.read()
        assert (data[-1].number, data[-1].flags) == (1, 0)
    await client.pings()
    assert not client.list_of(GOAWAY)
    if outcome == "pong":
        assert client.list_of(PING)[0].payload == b"h2spec\0\0"
