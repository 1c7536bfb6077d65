"""Messages to the supervisor about requests under way, and the requests that wait for its answer."""

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

RETRY_SECONDS = 0.002
"""Seconds after which the supervisor is offered again what it did not take."""

Message = TypeVar("Message")


class Waiter(Protocol):
    """A request that waits."""

    def resume(self) -> None:
        """Decide anew: there is an answer, or time is over."""


class CoalescingSender(Generic[Message]):
    """Sends one message at a time, of all that there is to say at the end of the loop's turn.

    `message` makes it, anew each time that it is offered; `taken` hears that it is on its way.
    """

    def __init__(
        self, offer: Callable[[Message], bool], message: Callable[[], Message], taken: Callable[[], None]
    ) -> None:
        """`offer` returns False where the message was not taken, as the one before is still to be read."""
        self._offer, self._message, self._taken = offer, message, taken
        self._is_due = False
        self.closed = False
        """Whether the supervisor is gone, and nobody takes anything any more."""

    def schedule(self) -> None:
        """Send a message at the end of the loop's turn."""
        if not (self._is_due or self.closed):
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        if self.closed:
            return
        if not self._offer(self._message()):
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._send)
            return
        self._is_due = False
        self._taken()


def resume_waiter(who: Waiter, what: str) -> None:
    """Resume a request that waited for `what`. Its errors are only logged, because other requests wait too."""
    try:
        who.resume()
    except Exception as error:
        context = {"message": f"a request that waited for {what} failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
