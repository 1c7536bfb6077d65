"""TLS over one connection. To the socket it is a protocol; to a client or upstream connection it is the transport.

OpenSSL does the work; this class moves bytes between it and the socket. asyncio's own TLS would keep 256 KiB for each
connection, does not support half-closed connections, and logs a traceback for every failed handshake.

Both sides keep the contract that they have over TCP, in terms of TLS (RFC 8446 section 6.1): `close_notify` is the end
of a stream. The end of the connection without it is a truncation: `connection_lost` comes without `eof_received` before
it.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from edgeproxy.edge.proxy.transport.deadlines import NEVER
from edgeproxy.edge.proxy.transport.turns import InputBacklog, Turns

RECORD_BYTES_MAX = 16 << 10
"""Bytes that one record of TLS carries at most (RFC 8446 section 5.1)."""

READ_BYTES_MAX = 256 << 10
"""More than the loop reads at once."""

UNASKED_BYTES_MAX = 1 << 20
"""Bytes of TLS's own replies that may wait for a peer. Relayed data stops far below this bound."""

RECORDS_BYTES_MAX = 4 << 10
"""Reads of at most this many bytes are decrypted at once. Even the shortest records take only about 0.2 ms then."""

TLS_PIECE_BYTES, TLS_PIECE_BYTES_MAX = 2 << 10, 24 << 10
"""Bytes that are decrypted at a time: at first, and at most. OpenSSL processes all messages before the next data in one
call. Key updates take it about 4 ms for 2 KiB, and 40 ms for 24 KiB.
"""

RECORD_OVERHEAD_BYTES = 29
"""Bytes of a TLS 1.2 record besides its content: header, explicit nonce and tag. A TLS 1.3 record has 22."""

EMPTY_BYTES_MAX, EMPTY_BYTES_PER_SECOND = 24 << 10, 16 << 10
"""Bytes without content that a connection may send at once, and per second. The second bound allows 600 key updates per
second. Empty records and padding count too. An incomplete record counts for the first bound.
"""


GONE = (7, 8)
"""TCP states after the peer has closed its side: CLOSE and CLOSE_WAIT of linux/tcp_states.h."""


@cache
def certificate_thread() -> ThreadPoolExecutor:
    """Return the thread that verifies certificates. OpenSSL needs up to 40 ms for the chain of one handshake."""
    return ThreadPoolExecutor(1, "certificates")


_room = memoryview(bytearray(READ_BYTES_MAX + 4 * RECORD_BYTES_MAX))
"""The buffer for decrypted records of all connections. Its content leaves it before the next read."""


class TlsTransport(asyncio.Protocol):
    """One connection under TLS. A subclass continues in `on_handshake_done` and `on_handshake_failed`."""

    __slots__ = (
        "_empty_bytes",
        "_empty_since",
        "_ended",
        "_error",
        "_incoming",
        "_is_closed",
        "_is_half_closed",
        "_outgoing",
        "_paused",
        "_plain",
        "_protocol",
        "_tls",
        "_turns",
        "_verification",
        "_verifies_next",
        "backlog",
        "deadline",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        turns: Turns,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname, session)
        self._protocol: asyncio.Protocol | None = None
        """The protocol above it, once the handshake is done."""
        self._is_closed = False
        """True if this side has sent close_notify or is closed."""
        self._ended = False
        """True if the peer has sent close_notify and the protocol above does not know it yet."""
        self._is_half_closed = False
        """True if the peer has sent close_notify and the protocol above still writes."""
        self._error: BaseException | None = None
        """The error that ended the connection."""
        self._paused = False
        self._turns = turns
        self._verifies_next = False
        """True if the peer's next flight of the handshake has certificates that must be verified."""
        self._verification: asyncio.Future[None] | None = None
        """The step of the handshake that runs in a thread. Nothing else may use OpenSSL's objects meanwhile."""
        self.backlog: InputBacklog | None = None
        """Records and handshake messages that wait for a slice."""
        self._empty_bytes, self._empty_since = 0.0, 0.0
        """Bytes without content, less the allowance per second, and the time when this was last computed."""
        self.deadline = NEVER
        """The deadline of the handshake, in seconds of the monotonic clock."""

    # ---- the handshake

    def restart_handshake(self, context: ssl.SSLContext, data: bytes) -> None:
        """Begin the handshake of a server again under another context. `data` has arrived so far."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(data)

    def on_handshake_data(self, data: bytes) -> bool:
        """Inspect the peer's bytes before the handshake is done. Return False if they led to a refusal."""
        return True

    def on_handshake_done(self) -> asyncio.Protocol:
        """Return the protocol above this transport after the handshake. Its `connection_made` is called next."""
        raise NotImplementedError

    def on_handshake_failed(self, why: BaseException | None) -> None:
        """Handle a failed handshake; `why` is None if the peer just left. The connection is closing."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._plain = transport
        if not self._tls.server_side:
            self._finish_step(self._tls.do_handshake)

    def _finish_step(self, step: Callable[[], None]) -> None:
        """Process the result of a step of the handshake: `step` raises what OpenSSL raised."""
        try:
            step()
        except ssl.SSLWantReadError:
            # The peer sends its certificates after this side's first flight.
            if self._outgoing.pending and self._tls.context.verify_mode != ssl.CERT_NONE:
                self._verifies_next = True
            self._flush()
            return
        except OSError as error:
            # OpenSSL's alert to the peer goes out before the end.
            self._fail(error)
            return
        self._flush()
        app = self._protocol = self.on_handshake_done()
        app.connection_made(self)  # type: ignore[arg-type]
        self._read(0)

    def _verify(self) -> None:
        """Make the next step of the handshake in a thread. The socket is not read until then."""
        self.pause_reading()
        self._verification = asyncio.get_running_loop().run_in_executor(certificate_thread(), self._verify_in_thread)
        self._verification.add_done_callback(self._on_verified)

    def _verify_in_thread(self) -> None:
        if self.has_peer_gone():
            raise ConnectionResetError("the peer has closed the connection")
        self._tls.do_handshake()

    def has_peer_gone(self) -> bool:
        """Return whether the peer has closed its side, so that it can never finish the handshake.

        Handshakes of peers that have gone must not delay the other handshakes. The edge has stopped reading, so it asks
        for the state of the TCP connection.
        """
        state: bytes = self._plain.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return state[0] in GONE

    def _on_verified(self, verification: "asyncio.Future[None]") -> None:
        self._verification = None
        if verification.cancelled() or self._is_closed:
            return
        self.resume_reading()
        self._finish_step(verification.result)

    def send_alert(self, alert: bytes, why: str) -> None:
        """End the handshake with this alert record."""
        self._plain.write(alert)
        self._fail(ConnectionAbortedError(why))

    def _fail(self, why: BaseException | None) -> None:
        if not self._is_closed:
            if self._verification is None:
                self._flush()
            self._stop_verification()
            self._is_closed = True
            self._plain.close()
            self.on_handshake_failed(why)

    def _stop_verification(self) -> None:
        """Remove the step from the thread's queue. If it runs already, its result is dropped."""
        if self._verification is not None:
            self._verification.cancel()

    def on_timeout(self) -> None:
        """End a handshake that takes too long."""
        self.deadline = NEVER
        self._fail(TimeoutError("the handshake took too long"))
        self._plain.abort()

    # ---- input from the socket

    def data_received(self, data: bytes) -> None:
        # A step of a handshake takes a millisecond, and a record may carry only one byte.
        if (self._protocol is None or len(data) > RECORDS_BYTES_MAX) and self._take_in_slices(data):
            return
        if self._verification is not None:
            return  # The connection was lost during the handshake.
        if self._protocol is None and (self._is_closed or not self.on_handshake_data(data)):
            return
        if self._is_half_closed:
            return  # Bytes after close_notify are ignored (RFC 8446 section 6.1).
        self._incoming.write(data)
        if self._protocol is not None:
            self._read(len(data))
        elif self._verifies_next:
            self._verify()
        else:
            self._finish_step(self._tls.do_handshake)

    def _take_in_slices(self, data: bytes) -> bool:
        """Process input in slices. Return False if the caller must process it at once, as on a lost connection."""
        if self._plain.is_closing():
            return False
        if self.backlog is None:
            self.backlog = InputBacklog(self._turns, self, TLS_PIECE_BYTES)
        return self.backlog.receive(data)

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection and the address of its peer."""
        peer = self._plain.get_extra_info("peername")
        return "TLS" if self._protocol is not None else "TLS handshake", peer[0] if peer else ""

    def process_backlog(self) -> None:
        """Process the input that arrived before the connection was lost, unless this side had closed the connection."""
        if self.backlog is not None:
            backlog, self.backlog = self.backlog, None
            last = backlog.close()
            if last and not self._is_closed:
                self.data_received(last)

    takes_bulk = False
    """All bytes must be decrypted."""
    piece_bytes_max = TLS_PIECE_BYTES_MAX

    def has_room_for_input(self) -> bool:
        """Return whether the protocol above takes more data."""
        return not (self._paused or self._plain.is_closing())

    def hold_input(self) -> None:
        """Stop reading the socket until the waiting input has had its slice."""
        if not self._plain.is_closing():
            self._plain.pause_reading()

    def on_backlog_done(self) -> None:
        """Resume reading the socket."""
        if self.has_room_for_input():
            self._plain.resume_reading()

    def _read(self, fresh: int) -> None:
        """Decrypt all received records and pass their content on in one piece; `fresh` bytes have just arrived."""
        incoming, read, room = self._incoming, self._tls.read, _room
        there, broken, records = 0, None, 0
        try:
            while incoming.pending:
                taken = read(RECORD_BYTES_MAX, room[there:] if there else room)
                if not taken:
                    self._ended = True
                    break
                there += taken  # type: ignore[operator]
                records += 1
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError as error:
            broken = error
        app = self._protocol
        assert app is not None
        if fresh - there > 2 * RECORD_OVERHEAD_BYTES or self._empty_bytes:
            self._count_empty_bytes(fresh - there - records * RECORD_OVERHEAD_BYTES)
        if there:
            app.data_received(room[:there].tobytes())
        if self._outgoing.pending:
            self._flush()
            if self._plain.get_write_buffer_size() > UNASKED_BYTES_MAX:
                # For example a peer that keeps requesting new keys and does not read the replies.
                self.abort()
        if broken is not None:
            self._break(broken)
        elif self._ended:
            self._end()

    def _count_empty_bytes(self, more: int) -> None:
        """Count bytes without content, and abort the connection beyond the bound.

        `more` is negative once the rest of an incomplete record has arrived. Bytes count, not reads: a client cannot
        hide key updates by sending one byte of content after each.
        """
        now = self._turns.clock()
        left = max(0.0, self._empty_bytes - (now - self._empty_since) * EMPTY_BYTES_PER_SECOND)
        self._empty_bytes, self._empty_since = max(0.0, left + more), now
        if self._empty_bytes >= EMPTY_BYTES_MAX:
            self._error = ConnectionAbortedError("too many records without content")
            self.abort()

    def _break(self, why: ssl.SSLError) -> None:
        """End a stream that does not decrypt, or whose other direction failed according to the peer."""
        self._error = why
        self.abort()

    def _end(self) -> None:
        """Report the peer's close_notify to the protocol above."""
        if self._ended and not self._paused and self._protocol is not None:
            self._ended = False
            self._is_half_closed = bool(self._protocol.eof_received())
            if not self._is_half_closed:
                self.close()

    def eof_received(self) -> bool:
        if self._protocol is None:
            self._fail(None)
        # Without close_notify this is a truncation and nothing more is sent. After one the end adds nothing.
        return self._is_half_closed or self._ended

    def connection_lost(self, exc: Exception | None) -> None:
        self.process_backlog()
        # The protocol above refers to this object. This object must not refer back, or only the garbage collector would
        # free both.
        app, self._protocol = self._protocol, None
        if app is not None:
            self._is_closed = True
            app.connection_lost(self._error or exc)  # type: ignore[arg-type]
        elif not self._is_closed:
            self._stop_verification()
            self._is_closed = True
            self.on_handshake_failed(exc)

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    # ---- the transport

    def write(self, data: bytes) -> None:
        """Send these bytes."""
        if data and not self._is_closed:
            self._tls.write(data)
            self._plain.write(self._outgoing.read())

    def writelines(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Send these pieces together."""
        if not self._is_closed:
            for piece in pieces:
                self._tls.write(piece)
            self._plain.write(self._outgoing.read())

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._is_closed and not self._plain.is_closing():
            self._plain.write(data)

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    def write_eof(self) -> None:
        """Close the sending side; data from the peer is still read."""
        if not self._is_closed:
            self._send_close_notify()
            self._plain.write_eof()

    def _send_close_notify(self) -> None:
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # OpenSSL also waits for the peer's close_notify.
        self._flush()
        self._is_closed = True

    def close(self) -> None:
        """Close once everything written has gone."""
        if not self._is_closed and not self._plain.is_closing():
            self._send_close_notify()
        self._is_closed = True
        self._plain.close()

    def abort(self) -> None:
        """Close at once, without close_notify."""
        self._is_closed = True
        self._plain.abort()

    def is_closing(self) -> bool:
        """Return whether it is closed, or about to be."""
        return self._plain.is_closing()

    def pause_reading(self) -> None:
        """Stop reading for now."""
        self._paused = True
        self._plain.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading."""
        self._paused = False
        if self.backlog is None or not self.backlog.blocks_reading():
            self._plain.resume_reading()
        if self._ended:
            asyncio.get_running_loop().call_soon(self._end)

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the socket has not taken yet."""
        return self._plain.get_write_buffer_size()

    def peer_certificate(self) -> bytes | None:
        """Return the peer's certificate in DER if the context requires one, else None."""
        required = self._tls.context.verify_mode == ssl.CERT_REQUIRED
        return self._tls.getpeercert(binary_form=True) if required else None

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return information from the socket's transport."""
        return self._plain.get_extra_info(name, default)
