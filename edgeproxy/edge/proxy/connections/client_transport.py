"""A client's connection as a stream of bytes: flow control, and the end of the connection. It knows no requests.

The last bytes of a connection are easily lost: closing over unread input resets the connection, and a reset destroys
bytes that are still on their way. So an ending connection goes through states of its own (client_states.py). Each has a
deadline that is put off while the client takes bytes.
"""

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeproxy.edge.proxy.connections.client_states import CLOSED, CLOSING, LAST, LINGERING, RESETTING, SERVING
from edgeproxy.edge.proxy.transport.deadlines import NEVER
from edgeproxy.edge.proxy.transport.reset import count_unacknowledged, reset_connection, was_reset
from edgeproxy.edge.proxy.transport.socket_input import discard_input

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.exchange.runtime import Runtime

LINGER_SECONDS: Final = 2.0
"""A closing connection still reads, and drops, its client's input for this many seconds (RFC 9112 section 9.6)."""

COPIED_BYTES_MAX: Final = 16 << 10
"""Bytes of a body that are copied behind the head, so that both go out in one piece. Writing a longer body separately
is cheaper.
"""

LINGER_SECONDS_MAX: Final = 30.0
"""The maximum of those seconds while the client keeps sending: a client in the middle of an upload reads the answer
only afterwards.
"""

DROP_SECONDS, DROP_SECONDS_MAX = 0.01, 0.64
"""Seconds between two discards of a lingering connection's input. The interval grows to the second value while no input
comes.
"""


class ClientTransport:
    """The stream below a client's requests; by its methods an asyncio.Protocol. `deadline` is in monotonic seconds."""

    __slots__ = (
        "_linger_until",
        "_reset_by",
        "_taken_by",
        "_unsent_bytes",
        "copied_bytes_max",
        "deadline",
        "half_closed",
        "reading",
        "runtime",
        "state",
        "transport",
        "write",
        "write_paused",
        "writelines",
    )

    transport: asyncio.Transport
    write: Callable[[bytes | memoryview], None]
    writelines: Callable[[Iterable[bytes | memoryview]], None]
    deadline: float
    _linger_until: float
    """LINGERING: the latest time until which the client's side is read."""
    _taken_by: float
    """LINGERING, CLOSING: until this time the client may take none of the bytes on their way."""
    _reset_by: float
    """RESETTING: when it is reset at the latest."""

    def __init__(self, runtime: "Runtime") -> None:
        self.runtime = runtime
        self.state = SERVING
        """The state of the connection, one of client_states.py."""
        self.copied_bytes_max = COPIED_BYTES_MAX
        """The largest body of an answer, in bytes, that is written in one piece with its head."""
        self.half_closed = False
        """True if the client has closed its side."""
        self.write_paused = False
        """True if the client does not read the bytes that are written to it."""
        self.reading = True
        """True while the socket is read."""
        self._unsent_bytes = 0
        """The bytes on their way at the last count, while writing is paused or the connection ends."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        # Set as attributes for their types: uvloop's transports have no asyncio base class.
        self.transport, self.write, self.writelines = transport, transport.write, transport.writelines

    @property
    def descriptor(self) -> int:
        """The descriptor of its socket."""
        descriptor: int = self.transport.get_extra_info("socket").fileno()
        return descriptor

    @property
    def is_last(self) -> bool:
        """True if no request after this one is served."""
        return self.state >= LAST

    def serve_no_more(self) -> None:
        """Serve no request after the current one."""
        if self.state == SERVING:
            self.state = LAST

    # ---- flow control

    def pause_reading(self) -> None:
        """Stop reading for now."""
        if self.reading and self.state <= LAST:
            self.reading = False
            self.transport.pause_reading()

    def check_reset(self) -> None:
        """Detect a reset while the socket is not read; called twice a second.

        The kernel reports a reset only to a read or a write.
        """
        if was_reset(self.transport):
            self.transport.abort()

    def count_unsent(self) -> int:
        """Return the bytes that were written and that the client's host has not acknowledged."""
        return self.transport.get_write_buffer_size() + count_unacknowledged(self.transport)

    def _has_taken_enough(self) -> bool:
        """Return whether the client has taken enough of the bytes on their way since the last call."""
        before, self._unsent_bytes = self._unsent_bytes, self.count_unsent()
        return 0 < self._unsent_bytes <= before - self.runtime.snapshot.body_idle_bytes

    # ---- ends

    def drop_input(self) -> None:
        """Drop input that was read and not served: the connection is about to end."""
        raise NotImplementedError

    def close(self, *, linger: bool = False) -> None:
        """Close once everything written has gone.

        With `linger` the client's side is read, and dropped, for a while: closing over unread input resets the
        connection, and the reset may destroy the answer before the client has read it (RFC 9112 section 9.6).
        """
        if self.state > LAST:
            return
        now = monotonic()
        self._unsent_bytes = self.count_unsent()
        # Bytes written just now are still on their way to any client, so the first check comes later.
        self.deadline = now + LINGER_SECONDS
        self._taken_by = now + self.runtime.snapshot.body_idle
        self.drop_input()
        if linger and not self.half_closed and self.transport.can_write_eof():
            if not self.reading:
                self.transport.resume_reading()
            self._linger_until = now + LINGER_SECONDS_MAX
            self.state = LINGERING
            self.transport.write_eof()
        else:
            self.state = CLOSING
            self.transport.close()

    def linger_on(self) -> None:
        """Put off the end of a lingering connection, because its client still sends. The kernel discards its input from
        now on.

        Clients that flood closed connections would take much of each turn if the loop read their input.
        """
        if self.state == LINGERING:
            self._put_off_end()
            if not self.transport.is_closing():
                self.transport.pause_reading()
                asyncio.get_running_loop().call_later(DROP_SECONDS, self._drop_input_again, DROP_SECONDS)

    def _drop_input_again(self, pause: float) -> None:
        """Discard the input of the last `pause` seconds. Resume reading once the client has closed its side."""
        if self.state != LINGERING or self.transport.is_closing():
            return
        count = discard_input(self.transport)
        if count is None:
            self.transport.resume_reading()
            return
        if count:
            self._put_off_end()
        pause = DROP_SECONDS if count else min(2 * pause, DROP_SECONDS_MAX)
        asyncio.get_running_loop().call_later(pause, self._drop_input_again, pause)

    def _put_off_end(self) -> None:
        self.deadline = max(self.deadline, min(monotonic() + LINGER_SECONDS, self._linger_until))

    def reset_when_sent(self) -> None:
        """Reset the connection within an answer, once everything written before has arrived.

        An immediate reset would destroy bytes still on their way, and these may be complete answers to earlier
        requests.
        """
        if self.state > LAST:
            return
        self.state = RESETTING
        self.drop_input()
        self._unsent_bytes = self.count_unsent()
        self._reset_by = monotonic() + self.runtime.snapshot.body_idle
        self._reset_if_sent()

    def _reset_if_sent(self) -> None:
        """Reset, or check again at the next sweep while the client takes some of the bytes on their way."""
        now = monotonic()
        before, self._unsent_bytes = self._unsent_bytes, self.count_unsent()
        if self._unsent_bytes < before:
            self._reset_by = now + self.runtime.snapshot.body_idle
        if not self._unsent_bytes or now > self._reset_by:
            self.abort()
        else:
            self.deadline = now

    def abort(self) -> None:
        """Reset the connection.

        A partial answer must not look complete, even if its end is the end of the connection.
        """
        self.state = CLOSED
        reset_connection(self.transport)

    def time_out_end(self) -> None:
        """End a closing connection whose deadline has passed, or give its client more time."""
        self.deadline = NEVER
        if self.state == RESETTING:
            self._reset_if_sent()
        elif self.state == CLOSED:
            self.abort()
        elif monotonic() < self._taken_by and self.count_unsent():
            self.deadline = self._taken_by
        elif self._has_taken_enough():
            # The client is slow, but it takes bytes.
            self.deadline = monotonic() + self.runtime.snapshot.body_idle
        elif self.transport.get_write_buffer_size():
            self.abort()
        else:
            self.transport.abort()
