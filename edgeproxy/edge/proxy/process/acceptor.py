"""Accepted connections: their admission, TLS if the listener has it, and then a Client.

Every connection is counted before a byte is read, so that excess connections cost neither a handshake nor a Client.
Each listening socket has one acceptor, which keeps no state per connection.
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, cast

from edgeproxy.base.client_tls import HTTP2
from edgeproxy.base.clock import EPOCH
from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.base.trust import format_tls_error
from edgeproxy.edge.http1 import message
from edgeproxy.edge.problem_codes import BY_CONNECTION_FAULT
from edgeproxy.edge.proxy.connections.authorization import CLIENTS
from edgeproxy.edge.proxy.connections.client import LAST_REQUEST_SECONDS, Client
from edgeproxy.edge.proxy.connections.client_transport import LINGER_SECONDS
from edgeproxy.edge.proxy.connections.http2_client import Http2Client
from edgeproxy.edge.proxy.connections.prior_knowledge import PlainClient
from edgeproxy.edge.proxy.exchange.connection_limits import LINGERING_MAX, TooManyConnectionsError
from edgeproxy.edge.proxy.transport import server_tls
from edgeproxy.edge.proxy.transport.client_hello import (
    ACME_TLS,
    NO_APPLICATION_PROTOCOL,
    is_first_record_complete,
    parse_alpn_offers,
)
from edgeproxy.edge.proxy.transport.deadlines import NEVER
from edgeproxy.edge.proxy.transport.proxy_header import InvalidProxyHeaderError, parse_proxy_header
from edgeproxy.edge.proxy.transport.tls import TlsTransport

if TYPE_CHECKING:
    from edgeproxy.config.edge.listeners import Listener
    from edgeproxy.edge.proxy.exchange.runtime import Runtime


WITHOUT_TLS = "This port speaks TLS, and this is HTTP without it: ask for https://"

BURST_SECONDS, BURST_ACCEPTED = 0.001, 16
"""If two connections arrive within the first number of seconds, at most the second number are accepted at once. The
loop itself accepts one in a turn. Otherwise a flood of short connections would fill the kernel's queue, and all clients
would wait behind it.
"""

HANDSHAKE_BYTES_MAX = 20 << 10
"""Maximum bytes of a client's handshake: its first message, and then a certificate chain. Each certificate of the chain
costs a verification. Four RSA 4096 certificates take about 7 KiB.
"""


class Acceptor(asyncio.Protocol):
    """The first protocol of each connection of one listening socket; another one replaces it at once."""

    def __init__(self, runtime: "Runtime", listener: "Listener", server_tls: server_tls.ServerTls | None) -> None:
        self._runtime = runtime
        self._is_proxied = listener.proxy_protocol
        self._server_tls = server_tls
        self._accepted_at = self._burst_at = 0.0
        """The times of the last connection and of the last burst."""
        self._kind: type[Client] = CLIENTS[listener.authorize]
        if listener.speaks_http2 and server_tls is None:
            self._kind = PlainClient

    def build_protocol(self) -> "Acceptor":
        """Return the first protocol of a connection."""
        return self

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        now = monotonic()
        self._accept_burst(now)
        peername = transport.get_extra_info("peername")
        if peername is None:
            # The client has left. Nobody would read an answer, and its address for the log is unknown.
            transport.abort()
            return
        if self._is_proxied:
            self._await_header(transport, peername[0], now)
        else:
            self.serve(transport, peername[0], now)

    def _await_header(self, transport: asyncio.Transport, proxy: str, now: float) -> None:
        """Read the header of a connection before anything else. Only trusted proxies may send one."""
        runtime = self._runtime
        if not runtime.snapshot.addresses.trusts(proxy):
            runtime.connections.limits.record_untrusted_proxy(proxy)
            transport.abort()
            return
        try:
            subject = runtime.connections.limits.admit(proxy, runtime.snapshot, now + runtime.offset)
        except TooManyConnectionsError:
            transport.abort()
            return
        header = ProxiedConnection(self, runtime, proxy, subject)
        transport.set_protocol(header)
        header.connection_made(transport)

    def serve(self, transport: asyncio.Transport, peer: str, now: float) -> asyncio.Protocol:
        """Serve a connection of this client, which nothing was read from. Return its protocol."""
        runtime, server_tls = self._runtime, self._server_tls
        protocol: asyncio.Protocol
        try:
            subject = runtime.connections.limits.admit(peer, runtime.snapshot, now + runtime.offset)
        except TooManyConnectionsError as error:
            if server_tls is not None:
                # An answer would need a handshake, and the refusal is meant to save that.
                transport.set_protocol(self)
                transport.abort()
                return self
            protocol = RejectedConnection(runtime, peer, error)
        else:
            protocol = (
                cast("asyncio.Protocol", self._kind(runtime, peer, subject))
                if server_tls is None
                else TlsHandshake(runtime, peer, subject, server_tls, self._kind)
            )
        if server_tls is None:
            runtime.write_batching.add(transport)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return protocol

    def data_received(self, data: bytes) -> None:
        """Drop the data of a connection that was refused without an answer."""

    def _accept_burst(self, now: float) -> None:
        """Accept more connections at once if this one came soon after the last one."""
        if now - self._accepted_at < BURST_SECONDS <= now - self._burst_at:
            self._burst_at = now
            self._runtime.turns.accept(BURST_ACCEPTED)
        self._accepted_at = now


class ProxiedConnection(asyncio.Protocol):
    """A trusted proxy's connection until its header of the PROXY protocol is complete."""

    __slots__ = ("_acceptor", "_data", "_proxy", "_runtime", "_transport", "deadline", "subject")

    def __init__(self, acceptor: Acceptor, runtime: "Runtime", proxy: str, subject: bytes) -> None:
        self._acceptor, self._runtime, self._proxy, self.subject = acceptor, runtime, proxy, subject
        self._data = b""
        self.deadline = monotonic() + runtime.snapshot.header_timeout

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._runtime.connections.add_handshake(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            header = parse_proxy_header(self._data)
        except InvalidProxyHeaderError as error:
            self._runtime.connections.limits.record_invalid_proxy_header(f"{self._proxy} {error}")
            self._transport.abort()
            return
        if header is None:
            return
        connections = self._runtime.connections
        # Its place is free for the client, who is counted by another address.
        connections.limits.release(self.subject)
        # A header without a client (LOCAL, UNKNOWN) says that the proxy speaks for itself.
        peer = self._proxy if header.source is None else header.source
        protocol = self._acceptor.serve(self._transport, peer, monotonic())
        connections.pass_on(self)
        if rest := self._data[header.size :]:
            protocol.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._runtime.connections.remove_handshake(self, gone=True)

    def drain(self) -> None:
        """Shorten the deadline to the deadline of an idle connection's last request."""
        self.deadline = min(self.deadline, monotonic() + LAST_REQUEST_SECONDS)

    def on_timeout(self) -> None:
        """End the connection: its header has not come in time. A proxy that only looks for the port sends nothing."""
        if self._data:
            self._runtime.connections.limits.record_invalid_proxy_header(f"{self._proxy} sends its header too slowly")
        self.abort()

    def abort(self) -> None:
        """End the connection at once."""
        self.deadline = NEVER
        self._transport.abort()


class TlsHandshake(TlsTransport):
    """A connection in its TLS handshake; then the transport of a Client."""

    __slots__ = ("_bytes", "_hello", "_kind", "_peer", "_runtime", "_spoken", "subject")

    def __init__(
        self, runtime: "Runtime", peer: str, subject: bytes, tls: server_tls.ServerTls, kind: type[Client]
    ) -> None:
        super().__init__(tls.context, runtime.turns, server_side=True)
        self._spoken = tls.spoken
        self._kind = kind
        self._runtime, self._peer, self.subject = runtime, peer, subject
        self._bytes = 0
        """The number of bytes received so far."""
        self._hello: bytes | None = b""
        """The received part of the first record; None once the record is complete."""
        self.deadline = monotonic() + runtime.snapshot.header_timeout
        runtime.connections.add_handshake(self)

    def drain(self) -> None:
        """Shorten the handshake's deadline to the deadline of an idle connection's last request: the worker is about to
        leave.
        """
        self.deadline = min(self.deadline, monotonic() + LAST_REQUEST_SECONDS)

    def on_handshake_data(self, data: bytes) -> bool:
        """Return whether the first record is worth a handshake. OpenSSL, too, answers only after the whole record."""
        self._bytes += len(data)
        if self._bytes > HANDSHAKE_BYTES_MAX:
            self._fail(ConnectionAbortedError("the handshake is too long"))
            return False
        if self._hello == b"" and data[:1].isalpha():
            # A TLS record never begins with a letter (RFC 8446 section 5.1), and every request does.
            self.respond_without_tls(400, WITHOUT_TLS, head_only=data.startswith(b"HEAD "))
            return False
        if self._hello is not None:
            hello = self._hello + data
            if not is_first_record_complete(hello):
                self._hello = hello
                return True
            self._hello = None
            protocols = parse_alpn_offers(hello)
            if protocols is not None and self._spoken.isdisjoint(protocols):
                challenges = self._runtime.challenges
                if challenges is not None and ACME_TLS.encode() in protocols:
                    self.restart_handshake(challenges, hello[: -len(data)])
                    return True
                self.send_alert(NO_APPLICATION_PROTOCOL, "no application protocol in common")
                return False
            if self.has_peer_gone():
                self._fail(None)
                return False
        return True

    def respond_without_tls(self, status: int, detail: str, *, head_only: bool) -> None:
        """Answer without TLS. Later input is read and dropped for a moment, because a reset would destroy the
        answer.
        """
        self._is_closed = True
        self._plain.write(_format_rejection(self._runtime, self._peer, status, detail, head_only=head_only))
        self._plain.write_eof()
        self.deadline = monotonic() + LINGER_SECONDS
        self.on_handshake_failed(ConnectionAbortedError("a request without TLS"))

    def on_handshake_done(self) -> asyncio.Protocol:
        """Return the client whose requests follow."""
        if self._tls.selected_alpn_protocol() == ACME_TLS:
            return CheckedChallenge()
        self._runtime.connections.remove_handshake(self)
        self._runtime.write_batching.add(self._plain)
        kind = Http2Client if self._tls.selected_alpn_protocol() == HTTP2 else self._kind
        return cast("asyncio.Protocol", kind(self._runtime, self._peer, self.subject, secure=True))

    def on_handshake_failed(self, why: BaseException | None) -> None:
        """Count the failure. A peer that came and left without a byte does not count."""
        if self._bytes or why is not None:
            self._runtime.connections.limits.record_handshake_failure(format_tls_error(why))

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection and the address of its client, which a proxy may have stated."""
        return super().describe()[0], self._peer

    def connection_lost(self, exc: Exception | None) -> None:
        if self._protocol is None or isinstance(self._protocol, CheckedChallenge):
            self._runtime.connections.remove_handshake(self, gone=True)
        super().connection_lost(exc)


class CheckedChallenge(asyncio.Protocol):
    """The connection of an authority that has seen the certificate of its challenge. Nothing else follows."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.close()

    def data_received(self, data: bytes) -> None:
        """Drop the data."""


class RejectedConnection(asyncio.Protocol):
    """An excess connection: it gets one answer to any request, and its input is dropped."""

    __slots__ = ("_peer", "_refusal", "_runtime", "_transport", "deadline")

    def __init__(self, runtime: "Runtime", peer: str, refusal: TooManyConnectionsError) -> None:
        self._runtime, self._peer, self._refusal = runtime, peer, refusal
        self.deadline = monotonic() + LINGER_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        runtime, refusal = self._runtime, self._refusal
        again = b"" if refusal.status == 403 else b"Retry-After: 1\r\n"
        code = BY_CONNECTION_FAULT.get(refusal.reason)
        transport.write(_format_rejection(runtime, self._peer, refusal.status, refusal.detail, again, code=code))
        lingering = runtime.connections.limits.lingering
        if len(lingering) < LINGERING_MAX:
            lingering.add(self)
            runtime.deadlines.timed.add(self)
            transport.write_eof()
        else:
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Drop the data."""

    def eof_received(self) -> bool:
        return False

    def on_timeout(self) -> None:
        """Close the connection: its client had enough time to read the answer."""
        self.deadline = NEVER
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._runtime.connections.limits.lingering.discard(self)
        self._runtime.deadlines.timed.discard(self)


def _format_rejection(
    runtime: "Runtime",
    peer: str,
    status: int,
    detail: str,
    fields: bytes = b"",
    *,
    code: ProblemCode | None = None,
    head_only: bool = False,
) -> bytes:
    """Format the answer to a refused connection, and write it to the access log."""
    snapshot, now = runtime.snapshot, monotonic() + runtime.offset
    rid = runtime.ids.create_request_id(now + EPOCH)
    lines = (message.PROBLEM, runtime.date_line, fields, snapshot.own_lines[False], b"X-Request-Id: ", rid, b"\r\n")
    fields = b"".join(lines)
    body = message.format_problem(status, detail, rid, code)
    if snapshot.access_log is not None:
        snapshot.access_log.log_rejection(now, rid, peer, status, detail, 0 if head_only else len(body))
    return message.format_response(status, fields, body, close=True, head_only=head_only)
