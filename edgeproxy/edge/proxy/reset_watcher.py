"""Clients that have closed their side, watched for the reset that says that they are gone altogether.

The loop does not tell of it: at the end of a stream it stops to look at the socket. An epoll of its own does, at once
and for no event but that, and costs nothing for all other connections.
"""

import asyncio
import select
from collections.abc import Callable


class ResetWatcher:
    """The sockets of one worker that are watched."""

    __slots__ = ("_callbacks", "_epoll")

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, descriptor: int, on_reset: Callable[[], None]) -> None:
        """Call `on_reset`, once, when the connection is reset or broken; needs a loop."""
        if self._epoll is None:
            self._epoll = select.epoll()
        if not self._callbacks:
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._poll)
        # Hang-ups and errors are told without being asked for, and nothing else is asked for.
        self._epoll.register(descriptor, 0)
        self._callbacks[descriptor] = on_reset

    def unwatch(self, descriptor: int) -> None:
        """Watch a socket no longer, if it is watched; to be called before it is closed."""
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
