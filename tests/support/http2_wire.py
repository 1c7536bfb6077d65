"""An HTTP/2 client for tests, based on the library h2, and a variant with the interface of a Wire.

The variant takes an HTTP/1.1 request as bytes and returns a Message, so that a test for HTTP/1.1 can run over
HTTP/2.
"""

import hashlib
from base64 import b64encode
from collections import defaultdict
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from tests.support.transcript import Edge, head
from tests.support.wire import Cut, Message, Wire

Fields = list[tuple[str, str]]
DROPPED = frozenset(("connection", "transfer-encoding", "keep-alive", "proxy-connection", "upgrade", "host"))
"""Fields of HTTP/1.1 that HTTP/2 requests must not have."""
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Http2Peer:
    """One side of a connection of streams. `wire` is the connection of bytes below it."""

    def __init__(self, wire: Wire, config: H2Configuration) -> None:
        self.wire = wire
        self.protocol = H2Connection(config)
        self.events: dict[int, list[Event]] = defaultdict(list)
        """Received events by stream; events of the connection are under 0."""
        self.window = True
        """Received data is acknowledged, so that the edge may send more."""

    async def flushes(self) -> None:
        """Send the protocol's pending bytes."""
        await self.wire.sends(self.protocol.data_to_send())

    async def reads(self) -> None:
        """Wait for bytes, and process their events. Raises Cut at the end of the connection."""
        if not self.wire._held:
            await self.wire._read_on()
        for event in self.protocol.receive_data(self.wire._take(len(self.wire._held))):
            self.events[getattr(event, "stream_id", None) or 0].append(event)
            if isinstance(event, DataReceived) and self.window:
                self.protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.wire.tries(self.protocol.data_to_send())

    async def gets_acknowledgement(self) -> None:
        """Wait until the edge has acknowledged the settings of this side."""
        while not any(isinstance(event, SettingsAcknowledged) for event in self.events[0]):
            await self.reads()

    async def sends_data(self, number: int, data: bytes, *, ended: bool = False) -> None:
        """Send part of a body, as the windows allow."""
        protocol = self.protocol
        while data or ended:
            room = min(protocol.local_flow_control_window(number), protocol.max_outbound_frame_size)
            piece, data = data[:room], data[room:]
            if piece or not data:
                protocol.send_data(number, piece, end_stream=ended and not data)
                await self.flushes()
                if not data:
                    return
            else:
                await self.reads()


class Http2Wire(Http2Peer):
    """The side of a client."""

    def __init__(self, wire: Wire, *, authority: str = "edge.test", checks: bool = True) -> None:
        """With `checks`, the library refuses to send invalid frames."""
        config = H2Configuration(
            header_encoding="latin-1",
            validate_outbound_headers=checks,
            normalize_outbound_headers=checks,
            validate_inbound_headers=True,
        )
        super().__init__(wire, config)
        self.authority = authority
        self.asked: list[int] = []
        """Streams whose answers the test has not read yet."""

    @property
    def open(self) -> bool:
        return self.wire.open

    async def begins(self) -> "Http2Wire":
        """Send the preface, and wait until the edge has sent its own."""
        self.protocol.initiate_connection()
        await self.flushes()
        await self.gets_acknowledgement()
        return self

    # ---- requests

    async def begins_request(
        self, method: str, path: str, *fields: tuple[str, str], ended: bool = True, **pseudo: str
    ) -> int:
        """Send the head of a request; returns its stream."""
        number = self.protocol.get_next_available_stream_id()
        names = {":method": method, ":path": path, ":scheme": "http", ":authority": self.authority}
        names.update({f":{name}": value for name, value in pseudo.items()})
        self.protocol.send_headers(number, [*names.items(), *fields], end_stream=ended)
        await self.flushes()
        return number

    async def asks(self, path: str = "/public/", *fields: tuple[str, str], method: str = "GET") -> Message:
        """Send a request without a body and return the answer."""
        return await self.answer_of(await self.begins_request(method, path, *fields))

    async def posts(self, path: str, body: bytes, *fields: tuple[str, str]) -> Message:
        """Send a request with a body of unknown length and return the answer."""
        number = await self.begins_request("POST", path, *fields, ended=False)
        await self.sends_data(number, body, ended=True)
        return await self.answer_of(number)

    # ---- answers

    async def next_event(self, number: int, *kinds: type) -> Any:
        """Return the next event of a stream of one of these kinds, and drop the events before it.

        Raises Cut if the stream is reset or the connection ends.
        """
        while True:
            while self.events[number]:
                event = self.events[number].pop(0)
                if isinstance(event, kinds):
                    return event
                if isinstance(event, StreamReset):
                    raise Cut(f"stream {number} was reset with {event.error_code}")
            await self.reads()

    async def reset_of(self, number: int) -> int:
        """Wait for the reset of a stream; return its code."""
        event = await self.next_event(number, StreamReset)
        return int(event.error_code)

    async def goaway(self) -> ConnectionTerminated:
        """Wait for the GOAWAY of the edge."""
        event: ConnectionTerminated = await self.next_event(0, ConnectionTerminated)
        return event

    async def head_of(self, number: int) -> Message:
        """Return the head of the next response of a stream, interim or final."""
        event = await self.next_event(number, ResponseReceived, InformationalResponseReceived)
        return _format_head(event.headers)

    async def answer_of(self, number: int) -> Message:
        """Return the whole final response of a stream."""
        answer = await self.head_of(number)
        while answer.status < 200:
            answer = await self.head_of(number)
        return await self.rest_of(number, answer)

    async def rest_of(self, number: int, answer: Message) -> Message:
        """Return a response whose head has arrived, with its body and trailers."""
        while True:
            event = await self.next_event(number, DataReceived, TrailersReceived, StreamEnded)
            if isinstance(event, DataReceived):
                answer.body += event.data
                answer.pieces.append(event.data)
            elif isinstance(event, TrailersReceived):
                answer.trailers += event.headers
            else:
                return answer

    # ---- as a Wire of HTTP/1.1

    async def sends(self, *parts: bytes) -> None:
        """Send one whole HTTP/1.1 request."""
        head, _, body = b"".join(parts).partition(b"\r\n\r\n")
        request = Message(head + b"\r\n\r\n")
        method, path, _ = request.first.split(" ")
        fields = [(name.lower(), value) for name, value in request.fields if name.lower() not in DROPPED]
        hosts = request.all("Host")
        number = await self.begins_request(method, path, *fields, ended=not body, authority=hosts[0])
        self.asked.append(number)
        if body:
            await self.sends_data(number, body, ended=True)

    async def gets_answer(self, to: str = "GET") -> Message:
        """Return the next response, interim or final, to the oldest request."""
        answer = await self.head_of(self.asked[0])
        return answer if answer.status < 200 else await self.rest_of(self.asked.pop(0), answer)

    def has(self) -> bytes:
        """Return the unread bytes: always none, because a test need not read connection frames."""
        return b""

    def closes(self) -> None:
        """Close the connection."""
        self.wire.closes()


async def http2(edge: Edge, address: str = "127.0.0.1", **how: bool) -> Http2Wire:
    """Return a new client of this test bed that speaks HTTP/2 with prior knowledge."""
    wire = await edge.client(address)
    client = Http2Wire(wire, **how)
    edge.clients[edge.clients.index(wire)] = client  # type: ignore[call-overload]
    return await client.begins()


def compute_accept(key: str) -> bytes:
    """Return Sec-WebSocket-Accept for a key (RFC 6455 section 4.2.2)."""
    return b64encode(hashlib.sha1(key.encode() + GUID).digest())


async def opens_websocket(
    edge: Edge, client: Http2Wire, *fields: tuple[str, str], accept: bytes | None = None, path: str = "/ws"
) -> tuple[int, Wire]:
    """Open a WebSocket stream that the upstream accepts. Returns the stream and the upstream's connection."""
    fields = (("sec-websocket-version", "13"), *fields)
    number = await client.begins_request("CONNECT", path, *fields, ended=False, protocol="websocket")
    upstream = await edge.upstream.accepts()
    request = await upstream.gets_request()
    assert (request.first, request["Upgrade"]) == (f"GET {path} HTTP/1.1", "websocket")
    accept = compute_accept(request["Sec-WebSocket-Key"]) if accept is None else accept
    switching = ("HTTP/1.1 101 Switching", "Upgrade: websocket", "Connection: Upgrade")
    await upstream.sends(head(*switching, f"Sec-WebSocket-Accept: {accept.decode()}"))
    return number, upstream


def _format_head(headers: Any) -> Message:
    (_, status), *fields = headers
    lines = [f"HTTP/1.1 {status} ", *(f"{name}: {value}" for name, value in fields)]
    return Message("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1"))
