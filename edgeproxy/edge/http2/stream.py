"""One stream: how far its request and its answer are, and its windows (RFC 9113 sections 5.1 and 5.2).

    state                 request_ended  response_ended  closed
    open                        -              -            -
    half-closed (remote)       yes             -            -       the request is whole
    half-closed (local)         -             yes           -       answered early: the rest of the request is dropped
    sending                    yes            yes           -       the rest of the answer waits for a window
    closed                      .              .           yes      over: at most `on_reset` follows

A stream that was never begun is idle, and has no object. A subclass of Stream is told of the request, and answers by
the methods of Sender (sender.py).
"""

from edgeproxy.edge.http2.errors import Http2StreamError


class Stream:
    """A request and its answer."""

    # Values that most streams never change are in the class, as a stream lives for a fraction of a millisecond.
    body_left = -1
    """Bytes of the body that are still to come; -1 if its length was not given."""
    returnable_bytes = 0
    """Bytes that were taken, but not yet returned to the peer's window."""
    request_ended = False
    response_ended = False
    """All of the answer was given to the sender, which may still wait to send it."""
    reads_on = False
    """The rest of the request is read even after the end of the answer: the stream is a tunnel, and the request its
    other side.
    """
    closed = False
    waiting: "list[bytes | memoryview] | tuple[()]" = ()
    """The pieces of the answer that wait for a window."""
    waiting_bytes = 0
    send_window_max = 0
    """The largest value of `send_window` after updates of the peer."""
    head_frames = b""
    """The answer's head in frames, while it waits for the piece of the body that goes out with it."""
    trailer_block = b""
    """The field block of the answer's trailers, which goes out behind all waiting pieces."""

    def __init__(self, number: int, send_window: int, receive_window: int) -> None:
        self.number = number
        self.send_window = send_window
        """Bytes that the peer takes; negative if it has reduced the window by its settings (section 6.9.2)."""
        self.receive_window = receive_window
        """Bytes that the peer may send."""

    def on_request(self, head: bytes) -> None:
        """Take the request's head in HTTP/1.1. `request_ended`: no body follows."""

    def on_oversized_request(self, head: bytes) -> None:
        """Take the known part of a head that is too large (OVERSIZED_LENGTH), and refuse it."""

    def on_data(self, data: bytes) -> None:
        """Take a piece of its body, and report it to `Sender.consume`; `request_ended`: it is the last one."""

    def on_trailers(self, lines: list[bytes]) -> None:
        """Take its trailer lines, which end it."""

    def on_oversized_trailers(self) -> None:
        """Take note that it ends with trailers that are too large."""

    def on_error(self, error: Http2StreamError) -> None:
        """Take note that it was reset for an error of the peer."""
        self.on_reset(error.code)

    def on_reset(self, code: int) -> None:
        """Take note that it was reset, by the peer or for an error of the peer, or that the connection is gone."""

    def on_closed(self) -> None:
        """Take note that it is closed, for whatever reason; `on_reset` follows if it has not ended well."""

    def on_drained(self) -> None:
        """Take note that no piece of the answer waits any more."""
