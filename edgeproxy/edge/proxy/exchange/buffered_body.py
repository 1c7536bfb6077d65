"""The body of a request that its upstream gets whole: in memory at first, and on disk beyond some size.

No endpoint waits for the client meanwhile. While the whole body is in memory, the request can be sent again after the
loss of an upstream.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from edgeproxy.edge.errors import EdgeError, RejectedError
from edgeproxy.edge.proxy.exchange.body_file import BodyFile, build_claim, create_no_room_error

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.exchange.snapshot import Snapshot
    from edgeproxy.edge.proxy.routing.binding import RouteBinding
    from edgeproxy.edge.proxy.transport.address import Address
    from edgeproxy.edge.proxy.transport.body import RequestBody

BLANK: Final = b"\r\n\r\n"

MEMORY_BYTES_MAX: Final = 256 << 10
"""Bytes of a request that are kept in memory until its body is complete; the rest is on disk."""

PRESSED_BYTES_MAX: Final = 8 << 10
"""The same bound while the worker must save memory (`HeldBudget.is_pressed`)."""


class BufferingClient(Protocol):
    """The connection that carries the body."""

    def update_held(self) -> None:
        """Report to the memory budget how many bytes are held."""

    def is_pressed(self) -> bool:
        """Return whether the worker must save memory (`HeldBudget.is_pressed`)."""

    @property
    def address(self) -> "Address":
        """The address of the client."""

    @property
    def body(self) -> "RequestBody | None":
        """The body while some of it is still to come."""

    def pause_reading(self) -> None:
        """Stop reading for now."""

    def resume_reading(self) -> None:
        """Resume reading."""


class BufferingExchange(Protocol):
    """The interface of a request to its buffered body, see `Exchange`."""

    message: bytes
    bytes_in: int

    @property
    def client(self) -> BufferingClient: ...
    @property
    def runtime(self) -> "Runtime": ...
    @property
    def snapshot(self) -> "Snapshot": ...
    @property
    def binding(self) -> "RouteBinding | None": ...

    def get_request_id(self) -> bytes:
        """Return the id of the request."""

    def send_buffered(self) -> None:
        """Send the request: its body is complete."""

    def fail(self, error: EdgeError) -> None:
        """End the request with this error."""


class BufferedBody:
    """The body of one request, `max_bytes` at most."""

    __slots__ = ("_exchange", "_file", "_max_bytes")

    def __init__(self, exchange: BufferingExchange, max_bytes: int) -> None:
        self._exchange = exchange
        self._max_bytes = max_bytes
        self._file: BodyFile | None = None

    @property
    def is_on_disk(self) -> bool:
        """True if some of it is on disk."""
        return self._file is not None

    @property
    def pending_bytes(self) -> int:
        """Bytes of it in memory that are still to be stored."""
        return 0 if self._file is None else self._file.pending_bytes

    @property
    def is_stored(self) -> bool:
        """True if no part of it is on its way to the disk."""
        return self._file is None or not self._file.is_busy

    @property
    def is_sent(self) -> bool:
        """True if no part of it is still to be sent from disk."""
        return self._file is None or self._file.is_sent

    def append(self, data: bytes) -> None:
        """Append a piece.

        The request fails with 413 if the body gets too large, and with 503 if the disk has no room.
        """
        exchange = self._exchange
        if exchange.bytes_in > self._max_bytes:
            exchange.fail(RejectedError(413, "The body is larger than this service accepts"))
            return
        size = len(exchange.message) + len(data)
        # Small bodies stay in memory: a file for each would cost more than it saves.
        is_pressed = size > PRESSED_BYTES_MAX and exchange.client.is_pressed()
        if self._file is None and size <= MEMORY_BYTES_MAX and not is_pressed:
            exchange.message += data
        elif not self._store(data, is_pressed=is_pressed):
            return
        exchange.client.update_held()
        # The whole body has come. Otherwise the file calls back when it has stored the rest.
        if exchange.client.body is None and self.is_stored:
            exchange.send_buffered()

    def move_to_disk(self) -> None:
        """Move the part that came with the head to disk if the worker must save memory."""
        if len(self._exchange.message) > PRESSED_BYTES_MAX and self._exchange.client.is_pressed():
            self._store(b"", is_pressed=True)

    def _store(self, data: bytes, *, is_pressed: bool) -> bool:
        """Store a piece on disk, together with all data before it if the worker must save memory.

        Return False if there is no room; the request has failed then.
        """
        exchange, runtime = self._exchange, self._exchange.runtime
        if is_pressed and self._file is None:
            # Only the body goes to disk. The head may be built again, for another endpoint.
            head, blank, begun = exchange.message.partition(BLANK)
            exchange.message, data = head + blank, begun + data
        claim = build_claim(exchange.client.address.subject)
        if not runtime.body_space.has_room(claim, len(data), exchange.snapshot.max_buffered_bytes):
            assert exchange.binding is not None
            runtime.metrics.count_shed(exchange.binding.priority)
            exchange.fail(create_no_room_error())
            return False
        if self._file is None:
            self._file = BodyFile(
                runtime.folder, runtime.body_space, claim, runtime.tasks, self._on_stored, self._on_disk_error
            )
        self._file.append(data)
        if self._file.pending_bytes > (PRESSED_BYTES_MAX if is_pressed else MEMORY_BYTES_MAX):
            exchange.client.pause_reading()
        return True

    def _on_stored(self) -> None:
        """Continue once all received data is on disk."""
        self._exchange.client.update_held()
        if self._exchange.client.body is None:
            self._exchange.send_buffered()
        else:
            self._exchange.client.resume_reading()

    def _on_disk_error(self, error: OSError) -> None:
        """Fail the request: the disk does not take its body, or does not give it back."""
        runtime, request_id = self._exchange.runtime, self._exchange.get_request_id().decode()
        about = str(runtime.folder)
        runtime.endpoint_log.error("a body cannot be kept on disk", about, why=str(error), request_id=request_id)
        self._exchange.fail(create_no_room_error())

    def send(self, write: Callable[[bytes], bool]) -> None:
        """Write the part on disk, a piece at a time.

        After `write` returns False, it continues with `resume_sending`.
        """
        assert self._file is not None
        self._file.send(write)

    def resume_sending(self) -> None:
        """Continue `send`: the upstream takes more."""
        if self._file is not None:
            self._file.resume_sending()

    def close(self) -> None:
        """Drop the part on disk."""
        file, self._file = self._file, None  # The file has methods of this body: the cycle would outlive the request.
        if file is not None:
            file.close()
