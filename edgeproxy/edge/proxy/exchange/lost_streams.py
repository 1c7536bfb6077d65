"""The end of the requests of a lost HTTP/2 connection.

Each request closes a connection to an upstream, which takes about 0.2 ms. A client may have a hundred active requests,
and many clients can leave at once. So the requests end in slices (turns.py).
"""

from typing import Final

from edgeproxy.edge.http2.errors import ErrorCode
from edgeproxy.edge.http2.stream import Stream
from edgeproxy.edge.proxy.transport.turns import Turns

STREAMS_AT_ONCE: Final = 8
"""The requests of at most this many streams end at once when their connection is lost."""

LOST_MAX: Final = 64
"""Maximum number of lost connections that wait for slices. The requests of further ones end at once, so that a flood of
such connections pays for itself and takes no memory.
"""


class LostStreams:
    """The streams of one lost connection whose requests are still to be ended."""

    def __init__(self, turns: Turns, lost: "set[LostStreams]", streams: list[Stream], peer: str) -> None:
        """`lost` holds the object until all requests have ended."""
        self._turns, self._lost, self._streams, self._peer = turns, lost, streams, peer

    def begin(self) -> None:
        """Queue for the first slice."""
        self._lost.add(self)
        self._turns.wait(self)

    def go_on(self, until: float) -> None:
        """End requests until the clock reaches `until`."""
        try:
            while self._streams:
                self._streams.pop().on_reset(ErrorCode.NO_ERROR)
                if self._turns.clock() >= until:
                    break
        finally:
            if self._streams:
                self._turns.wait(self)
            else:
                self._lost.discard(self)

    def end(self) -> None:
        """End all requests at once: the worker leaves, and must have counted them."""
        self._lost.discard(self)
        while self._streams:
            self._streams.pop().on_reset(ErrorCode.NO_ERROR)

    def abort(self) -> None:
        """Do nothing. The request that could not be ended is gone, and the others are queued."""

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection, and the address of its peer."""
        return "lost client over HTTP/2", self._peer
