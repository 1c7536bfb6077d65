"""The same exchanges over HTTP/2: the requests of a scenario as frames, of one stream or of several in each read."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeproxy.edge.http2 import frames
from edgeproxy.edge.http2.answer import encode_integer, encode_string
from edgeproxy.edge.http2.appendices import STATIC
from edgeproxy.edge.http2.hpack import ENTRY_OVERHEAD, TABLE_BYTES
from edgeproxy.edge.proxy.connections.http2_client import Http2Client
from edgeproxy.edge.proxy.exchange.runtime import Runtime
from loadtest.bench.scenario import SCENARIOS, Scenario

DISTINCT = 1500
"""Requests that differ: with three new strings each they are more than a worker remembers (edge/http2/huffman.py)."""

WINDOW = (1 << 30) - 1
"""The window of h2load: no answer waits for one."""


@dataclass(frozen=True)
class Kind:
    """`streams` of them come in one read. With many customers their keys are in no table."""

    scenario: Scenario
    streams: int = 1
    has_crowd: bool = False


KINDS = {
    "http2": Kind(SCENARIOS["small"]),
    "http2-10": Kind(SCENARIOS["small"], 10),
    "http2-100": Kind(SCENARIOS["small"], 100),
    "http2-rich": Kind(SCENARIOS["rich"]),
    "http2-vary": Kind(SCENARIOS["vary"]),
    "http2-64k": Kind(SCENARIOS["64k"]),
}


class Encoder:
    """Encodes field blocks: every field but `:path` goes into the table, and of several customers not the key either.

    nghttp2 never indexes `authorization`.
    """

    def __init__(self, *, indexes_keys: bool) -> None:
        self._literal = {b":path"} if indexes_keys else {b":path", b"authorization"}
        self._table: list[tuple[bytes, bytes]] = []
        """The newest entry first."""

    def encode(self, fields: list[tuple[bytes, bytes]]) -> bytes:
        return b"".join([self._encode_field(name, value) for name, value in fields])

    def _encode_field(self, name: bytes, value: bytes) -> bytes:
        table = [*STATIC, *self._table]
        if (name, value) in table:
            return encode_integer(table.index((name, value)) + 1, 0x7F, 0x80)
        index = next((number for number, (each, _) in enumerate(table, 1) if each == name), 0)
        mask, kind = (0x0F, 0x00) if name in self._literal else (0x3F, 0x40)
        if kind:
            self._table.insert(0, (name, value))
            while sum(len(each) + len(its) + ENTRY_OVERHEAD for each, its in self._table) > TABLE_BYTES:
                self._table.pop()
        return encode_integer(index, mask, kind) + (b"" if index else encode_string(name)) + encode_string(value)


def encode_requests(texts: list[str], *, indexes_keys: bool = True) -> list[bytes]:
    """Encode requests of HTTP/1.1 as field blocks.

    If they are alike, all but the first may be sent repeatedly. Otherwise all may, because the first empties the table.
    """
    encoder = Encoder(indexes_keys=indexes_keys)
    blocks = [encoder.encode(parse_fields(text)) for text in texts]
    if len(texts) == 1:
        return [*blocks, encoder.encode(parse_fields(texts[0]))]
    return [b"\x20" + encode_integer(TABLE_BYTES, 0x1F, 0x20) + blocks[0], *blocks[1:]]


def parse_fields(text: str) -> list[tuple[bytes, bytes]]:
    """Parse a request of HTTP/1.1 into the fields of one of HTTP/2."""
    line, *lines = text.partition("\r\n\r\n")[0].encode().split(b"\r\n")
    method, path, _ = line.split(b" ")
    fields = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
    ((_, host),) = [field for field in fields if field[0] == b"host"]
    pseudo = [(b":method", method), (b":path", path), (b":scheme", b"https"), (b":authority", host)]
    return pseudo + [field for field in fields if field[0] not in (b"host", b"connection")]


class Frames:
    """A client's frames, without end."""

    def __init__(self, blocks: list[bytes]) -> None:
        first, *rest = blocks
        self._blocks = itertools.chain([first], itertools.cycle(rest)) if len(blocks) == 2 else itertools.cycle(blocks)
        self._numbers = itertools.count(1, 2)

    def begin(self) -> bytes:
        windows = frames.format_window_update(0, WINDOW - frames.DEFAULT_WINDOW)
        return frames.PREFACE + frames.format_settings({frames.Setting.INITIAL_WINDOW_SIZE: WINDOW}) + windows

    def take(self, streams: int) -> bytes:
        """Return so many requests."""
        numbers, blocks = self._numbers, self._blocks
        return b"".join([frames.format_block(next(numbers), next(blocks), ended=True) for _ in range(streams)])


def exchanges(
    runtime: Runtime, kind: Kind, texts: list[str], answered: bytes, connector: Any, transport: Any
) -> Callable[[int], None]:
    """Set up a client; returns what lets so many exchanges take place."""
    client: Any = Http2Client(runtime, "127.0.0.1", runtime.snapshot.addresses.compute_subject("127.0.0.1"))
    client.connection_made(transport)
    asked = Frames(encode_requests(texts, indexes_keys=not kind.has_crowd))
    client.data_received(asked.begin())
    streams = kind.streams
    # The end of a turn, which allows further slices of input, is a callback of the loop, and no loop runs here.
    runtime.turns.clock = lambda: 0.0

    def run(times: int) -> None:
        for _ in range(times // streams):
            client.data_received(asked.take(streams))
            assert len(client.http2.streams) == streams, "not all requests were read"
            for stream in tuple(client.http2.streams.values()):
                stream.exchange.server.data_received(answered)
            client._writer.flush()
            connector.transport.written.clear()
            transport.written.clear()

    return run
