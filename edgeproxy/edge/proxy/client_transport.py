"""A client's connection as a stream of bytes: flow control, and how it ends. Of requests it knows nothing.

The last bytes of a connection are the ones that are easily lost: a connection that is closed over unread input is
reset, and a reset destroys what is still on its way. So a connection that ends goes through a state of its own
(client_states.py), each of which has a deadline that is put off while the client takes what it is sent.
"""

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeproxy.edge.proxy.client_states import CLOSED, CLOSING, LAST, LINGERING, RESETTING, SERVING
from edgeproxy.edge.proxy.deadlines import NEVER
from edgeproxy.edge.proxy.reset import count_unacknowledged, reset_connection, was_reset
from edgeproxy.edge.proxy.socket_input import discard_input

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.runtime import Runtime

LINGER_SECONDS: Final = 2.0
"""Seconds for which a closing connection still takes, and drops, what its client sends (RFC 9112 section 9.6)."""

COPIED_BYTES_MAX: Final = 16 << 10
"""Bytes of a body that are copied behind their head, to go out in one piece with it; a longer one is cheaper apart."""

LINGER_SECONDS_MAX: Final = 30.0
"""Seconds for which it does so as long as the client sends: who is in the middle of an upload reads the answer only
after that."""

DROP_SECONDS, DROP_SECONDS_MAX = 0.01, 0.64
"""Seconds between two discards of a lingering connection's input. The second holds where nothing came for long."""


class ClientTransport:
    """The stream below a client's requests, an asyncio.Protocol by its methods. `deadline` is in seconds of the
    monotonic clock."""

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
    """LINGERING: until when the client's side is read at most."""
    _taken_by: float
    """LINGERING, CLOSING: until when the client may take nothing of what is on its way."""
    _reset_by: float
    """RESETTING: when it is reset at the latest."""

    def __init__(self, runtime: "Runtime") -> None:
        self.runtime = runtime
        self.state = SERVING
        """The state of the connection, one of client_states.py."""
        self.copied_bytes_max = COPIED_BYTES_MAX
        """Bytes of an answer's body up to which it is written in one piece with its head."""
        self.half_closed = False
        """Whether the client has closed its side."""
        self.write_paused = False
        """Whether the client does not take what is written to it."""
        self.reading = True
        """Whether the socket is read at present."""
        self._unsent_bytes = 0
        """Bytes on their way when these were last counted, while writing is paused or the connection ends."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        # Typed as what it does: uvloop's transports have no asyncio class among their bases.
        self.transport, self.write, self.writelines = transport, transport.write, transport.writelines

    @property
    def descriptor(self) -> int:
        """The descriptor of its socket."""
        descriptor: int = self.transport.get_extra_info("socket").fileno()
        return descriptor

    @property
    def is_last(self) -> bool:
        """Whether no request after this one is served."""
        return self.state >= LAST

    def serve_no_more(self) -> None:
        """Serve no request after the one under way."""
        if self.state == SERVING:
            self.state = LAST

    # ---- flow control

    def pause_reading(self) -> None:
        """Read no more for now."""
        if self.reading and self.state <= LAST:
            self.reading = False
            self.transport.pause_reading()

    def check_reset(self) -> None:
        """Notice a reset while the socket is not read; called twice a second.

        A reset is reported to who reads or writes, and to nobody else.
        """
        if was_reset(self.transport):
            self.transport.abort()

    def count_unsent(self) -> int:
        """Return the bytes that were written, and that the client's host has not acknowledged yet."""
        return self.transport.get_write_buffer_size() + count_unacknowledged(self.transport)

    def _has_taken_enough(self) -> bool:
        """Return whether the client has taken enough of what is on its way since the last call."""
        before, self._unsent_bytes = self._unsent_bytes, self.count_unsent()
        return 0 < self._unsent_bytes <= before - self.runtime.snapshot.body_idle_bytes

    # ---- ends

    def drop_input(self) -> None:
        """Forget what was read and not served: the connection is about to end."""
        raise NotImplementedError

    def close(self, *, linger: bool = False) -> None:
        """Close once everything written has gone.

        With `linger` the client's side is read, and dropped, for a while: a connection closed over unread input
        is reset, and the reset may destroy the answer before the client has read it (RFC 9112 section 9.6).
        """
        if self.state > LAST:
            return
        now = monotonic()
        self._unsent_bytes = self.count_unsent()
        # What was written just now is still on its way whoever the client is: that is looked at in a while.
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
        """Put off the end of a lingering connection, because its client still sends. From now on the kernel discards
        what comes.

        Clients that flood closed connections would take much of each turn if the loop read their input.
        """
        if self.state == LINGERING:
            self._put_off_end()
            if not self.transport.is_closing():
                self.transport.pause_reading()
                asyncio.get_running_loop().call_later(DROP_SECONDS, self._drop_input_again, DROP_SECONDS)

    def _drop_input_again(self, pause: float) -> None:
        """Discard what has come in the last `pause` seconds. Resume reading once the client has closed its side."""
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
        """Reset the connection within an answer, once what was written before has arrived.

        A reset at once would destroy what is still on its way, and that may be whole answers to requests before.
        """
        if self.state > LAST:
            return
        self.state = RESETTING
        self.drop_input()
        self._unsent_bytes = self.count_unsent()
        self._reset_by = monotonic() + self.runtime.snapshot.body_idle
        self._reset_if_sent()

    def _reset_if_sent(self) -> None:
        """Reset, or look again at the next sweep, as long as the client takes something of what is on its way."""
        now = monotonic()
        before, self._unsent_bytes = self._unsent_bytes, self.count_unsent()
        if self._unsent_bytes < before:
            self._reset_by = now + self.runtime.snapshot.body_idle
        if not self._unsent_bytes or now > self._reset_by:
            self.abort()
        else:
            self.deadline = now

    def abort(self) -> None:
        """Reset the connection: what was sent so far must not look whole, not even where only its end tells that."""
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
            # It is slow, but it takes what it is sent.
            self.deadline = monotonic() + self.runtime.snapshot.body_idle
        elif self.transport.get_write_buffer_size():
            self.abort()
        else:
            self.transport.abort()
