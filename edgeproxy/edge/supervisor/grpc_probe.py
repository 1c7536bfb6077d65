"""A probe of a gRPC service: one call of its health service, grpc.health.v1, over a connection of its own.

The messages are small, so they are encoded here (gRPC's health/v1/health.proto): a request has the name of the service
as field 1, an answer the status as field 1.
"""

import asyncio
from typing import Final

from edgeproxy.base.client_tls import ClientTls
from edgeproxy.config.edge.upstreams import Endpoint
from edgeproxy.edge.http1.grammar import create_answer_limits
from edgeproxy.edge.http2.answer import encode_lines
from edgeproxy.edge.http2.lines import OVERSIZED, Line
from edgeproxy.edge.http2.requester import AnsweredStream, Requester, encode_pseudo_fields
from edgeproxy.edge.http2.response import is_interim
from edgeproxy.edge.supervisor.health import ProbeTerms

PATH: Final = b"/grpc.health.v1.Health/Check"
FIELDS: Final = [b"content-type: application/grpc", b"te: trailers", b"user-agent: edgeproxy-health"]
STATUS: Final = b"grpc-status: "
SERVING: Final = b"\x08\x01"
STATUSES: Final = {b"": "UNKNOWN", b"\x08\x00": "UNKNOWN", b"\x08\x02": "NOT_SERVING", b"\x08\x03": "SERVICE_UNKNOWN"}
NOT_FOUND, UNIMPLEMENTED = b"5", b"12"
ANSWER_BYTES_MAX: Final = 64
STATUS_DIGITS_MAX: Final = 3
WIRE_BYTES_MAX: Final = 32 << 10
"""Bytes of all frames that are read beside a head and trailers. A service that answers sends a few hundred."""
PIECE_BYTES: Final = 8 << 10
"""Bytes that are parsed in one turn of the event loop. All of it as small frames takes 50 ms of CPU."""


class HealthCall(AnsweredStream):
    """The call, and its answer so far."""

    def __init__(self) -> None:
        super().__init__(0, 0, 0)
        self.lines: list[Line] = []
        self.message = b""
        self.is_reset = False
        self.excess: str | None = None
        """The part of the answer that exceeds its bound."""

    def on_response(self, lines: list[Line], *, ended: bool) -> None:
        if lines[-1:] == [OVERSIZED]:
            self.excess = "a head"
            return
        self.has_head = not is_interim(lines)
        self.lines += lines

    def on_oversized_trailers(self) -> None:
        self.excess = "trailers"

    def on_trailers(self, lines: list[bytes]) -> None:
        self.lines += lines

    def on_data(self, data: bytes) -> None:
        self.message = (self.message + data)[:ANSWER_BYTES_MAX]

    def on_reset(self, code: int) -> None:
        self.is_reset = True

    def describe(self, service: str) -> str | None:
        """Return why the service is down; None if it is serving. The answer must be complete."""
        codes = [
            line.removeprefix(STATUS) for line in self.lines if isinstance(line, bytes) and line.startswith(STATUS)
        ]
        if codes == [NOT_FOUND]:
            return f"its health service knows no {service}"
        if codes == [UNIMPLEMENTED]:
            return "it has no health service, grpc.health.v1"
        if codes != [b"0"]:
            return describe_status(codes[0]) if codes else "no answer of gRPC"
        status = self.message[5:]
        return None if status == SERVING else STATUSES.get(status, "no status of grpc.health.v1")


class GrpcProbe(asyncio.Protocol):
    """The connection of one probe."""

    def __init__(self, scheme: bytes, authority: bytes, service: str, head_bytes_max: int) -> None:
        self._head = encode_pseudo_fields(b"POST", scheme, PATH, authority) + encode_lines(FIELDS)
        self._service, self._limits = service, create_answer_limits(head_bytes_max)
        self._call = HealthCall()
        self._bytes_max = self._left = WIRE_BYTES_MAX + 2 * head_bytes_max
        self._rest = b""
        """Received bytes that wait for their turn. Meanwhile the transport does not read."""
        self._is_lost = False
        self._loop = asyncio.get_running_loop()
        self.verdict: asyncio.Future[str | None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._http2 = Requester(transport.write, transport.writelines, self._limits)
        self._http2.open(self._call, self._head, ended=False)
        self._http2.send_data(self._call, format_request(self._service), ended=True)

    def data_received(self, data: bytes) -> None:
        is_waiting = bool(self._rest)  # A transport may deliver more while it is paused.
        self._rest += data
        if not is_waiting:
            self._transport.pause_reading()
            self._parse_piece()

    def _parse_piece(self) -> None:
        """Parse a piece of the received bytes, and the next piece in the next turn of the event loop."""
        if self.verdict.done():
            return
        piece, self._rest = self._rest[:PIECE_BYTES], self._rest[PIECE_BYTES:]
        self._http2.receive(piece[: self._left])
        self._left -= len(piece)
        if self._call.excess is not None:
            self._settle(f"the health check's answer had {self._call.excess} of more than {self._limits.head} bytes")
        elif self._call.is_reset or self._http2.is_over:
            self._settle("it does not speak HTTP/2 as it should")
        elif self._call.request_ended:
            self._settle(self._call.describe(self._service))
        elif self._left < 0:
            self._settle(f"the health check's answer had more than {self._bytes_max} bytes")
        elif self._rest:
            self._loop.call_soon(self._parse_piece)
        elif self._is_lost:
            self._settle("it closed the connection")
        else:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        if not self._rest:
            self._settle("it closed the connection")

    def _settle(self, verdict: str | None) -> None:
        if not self.verdict.done():
            self.verdict.set_result(verdict)


def describe_status(code: bytes) -> str:
    """Describe a status of gRPC. A service may send any bytes, up to the bound of its head."""
    return f"grpc-status {int(code)}" if code.isdigit() and len(code) <= STATUS_DIGITS_MAX else "no status of gRPC"


def format_request(service: str) -> bytes:
    """Format the message that asks for a service of this name, after its prefix."""
    name = service.encode()
    message = b"\x0a%c%b" % (len(name), name) if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


async def probe_service(
    endpoint: Endpoint, address: str, terms: ProbeTerms, tls: ClientTls | None = None
) -> str | None:
    """Return why a service is down at this address; None if it is serving. Raises OSError."""
    authority = (terms.host or endpoint.authority).encode()
    probe = GrpcProbe(endpoint.scheme.encode(), authority, terms.service or "", terms.head_bytes_max)
    context = None if tls is None else tls.context
    name = None if tls is None else (tls.server_name or endpoint.host)
    transport, _ = await asyncio.get_running_loop().create_connection(
        lambda: probe, address, endpoint.port, ssl=context, server_hostname=name
    )
    try:
        return await probe.verdict
    finally:
        transport.abort()
