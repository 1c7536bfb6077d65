"""One stream: how far its request and its answer are, and its windows (RFC 9113 sections 5.1 and 5.2).

    state             request_ended  response_ended  closed
    open                    -              -            -
    half-closed (remote)   yes             -            -       the request is whole
    half-closed (local)     -             yes           -       answered early: the rest of the request is dropped
    sending                yes            yes           -       what is left of the answer waits for a window
    closed                  .              .           yes      nothing more is told of it

A stream that was never begun is idle, and has no object. Whoever subclasses Stream is told of the request, and answers
by the methods of Sender (sender.py).
"""

from edgeproxy.edge.http2.errors import Http2StreamError


class Stream:
    """A request and its answer."""

    # What most streams never change stands in the class, as a stream lives for a fraction of a millisecond.
    body_left = -1
    """Bytes of the body that are still to come; -1 where its length was not given."""
    returnable_bytes = 0
    """Bytes that were taken, and for which the peer's window was not opened again yet."""
    request_ended = False
    response_ended = False
    """Whether all of the answer was given to the sender, which may still wait to send it."""
    reads_on = False
    """Whether the rest of the request is taken behind the end of the answer too: it is the other side of a tunnel."""
    closed = False
    waiting: "list[bytes | memoryview] | tuple[()]" = ()
    """The pieces of the answer for which there is no window."""
    waiting_bytes = 0
    send_window_max = 0
    """The largest that `send_window` was by updates of the peer."""
    head_frames = b""
    """The answer's head in frames, while it waits for the piece of the body that goes out with it."""
    trailer_block = b""
    """The field block of the answer's trailers, which goes out behind all that waits."""

    def __init__(self, number: int, send_window: int, receive_window: int) -> None:
        self.number = number
        self.send_window = send_window
        """Bytes that the peer takes; negative where it has changed its settings (section 6.9.2)."""
        self.receive_window = receive_window
        """Bytes that the peer may send."""

    def on_request(self, head: bytes) -> None:
        """Take the request's head in HTTP/1.1. `request_ended`: no body follows."""

    def on_oversized_request(self, head: bytes) -> None:
        """Take what is known of a head that is too large (OVERSIZED_LENGTH); it is to be refused."""

    def on_data(self, data: bytes) -> None:
        """Take a piece of its body, which `Sender.consume` has to be told of; `request_ended`: it is the last one."""

    def on_trailers(self, lines: list[bytes]) -> None:
        """Take its trailer lines, with which it ends."""

    def on_oversized_trailers(self) -> None:
        """Take note that it ends with trailers that are too large."""

    def on_error(self, error: Http2StreamError) -> None:
        """Take note that it was reset for an error of the peer's."""
        self.on_reset(error.code)

    def on_reset(self, code: int) -> None:
        """Take note that it was reset, by the peer or for an error of the peer's, or that the connection is gone."""

    def on_closed(self) -> None:
        """Take note that it is closed, however it came to that; `on_reset` follows where it has not ended well."""

    def on_drained(self) -> None:
        """Take note that nothing of the answer waits any more."""
