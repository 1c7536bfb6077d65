"""Half-closed clients, watched for the reset that shows that they have left altogether.

The loop does not report it: at the end of a stream it stops watching the socket. A separate epoll reports it, at once
and without other events, and costs nothing for all other connections.
"""

import asyncio
import select
from collections.abc import Callable


class ResetWatcher:
    """The watched sockets of one worker."""

    __slots__ = ("_callbacks", "_epoll")

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, descriptor: int, on_reset: Callable[[], None]) -> None:
        """Call `on_reset` once when the connection is reset or broken. Needs a running loop."""
        if self._epoll is None:
            self._epoll = select.epoll()
        if not self._callbacks:
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._poll)
        # Epoll reports hang-ups and errors without a mask, and the mask asks for nothing else.
        self._epoll.register(descriptor, 0)
        self._callbacks[descriptor] = on_reset

    def unwatch(self, descriptor: int) -> None:
        """Stop watching a socket, if it is watched; to be called before it is closed."""
        if self._callbacks.pop(descriptor, None) is not None:
            assert self._epoll is not None
            self._epoll.unregister(descriptor)
            if not self._callbacks:
                asyncio.get_running_loop().remove_reader(self._epoll.fileno())

    def _poll(self) -> None:
        assert self._epoll is not None
        for descriptor, _ in self._epoll.poll(0):
            on_reset = self._callbacks[descriptor]
            self.unwatch(descriptor)
            on_reset()
