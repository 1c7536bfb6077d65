"""Finished spans of one worker on their way to its supervisor, which exports them.

The worker neither waits nor buffers much: spans that the supervisor does not take in time are dropped and counted.
"""

from collections.abc import Callable
from typing import Final

from edgeproxy.edge.messages import SpansEnded

MESSAGE_BYTES: Final = 64 << 10
"""Bytes of spans that are sent at once. Fewer bytes wait for the next sweep."""
PENDING_BYTES_MAX: Final = 1 << 20
"""Bytes of spans that wait at most."""


class SpanBuffer:
    """The spans to send. `offer` sends the supervisor a message."""

    def __init__(self, offer: Callable[[SpansEnded], bool]) -> None:
        """`offer` returns False if the message was not taken, because the supervisor has yet to read the previous
        one.
        """
        self._offer = offer
        self._pieces: list[bytes] = []
        self._bytes = self._spans = 0
        self._dropped = 0

    def add(self, spans: bytes, count: int) -> None:
        """Add the encoded spans of one request."""
        if self._bytes + len(spans) > PENDING_BYTES_MAX:
            self._dropped += count
            return
        self._pieces.append(spans)
        self._bytes += len(spans)
        self._spans += count
        if self._bytes >= MESSAGE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send all spans, if the supervisor takes them now."""
        if (self._spans or self._dropped) and self._offer(self._collect()):
            self.clear()

    def take(self) -> SpansEnded | None:
        """Return the remaining spans, at the end of the worker."""
        message = self._collect() if self._spans or self._dropped else None
        self.clear()
        return message

    def clear(self) -> None:
        """Drop the spans that were sent."""
        self._pieces, self._bytes, self._spans, self._dropped = [], 0, 0, 0

    def _collect(self) -> SpansEnded:
        return SpansEnded(b"".join(self._pieces), self._spans, self._dropped)
