"""Messages to the supervisor about waiting requests, and the interface of these requests."""

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

RETRY_SECONDS = 0.002
"""Seconds until a message that the supervisor did not take is offered again."""

Message = TypeVar("Message")


class Waiter(Protocol):
    """A request that waits."""

    def resume(self) -> None:
        """Decide again: there is an answer, or the time is over."""


class CoalescingSender(Generic[Message]):
    """Sends one message at a time, with everything to report at the end of the loop's turn.

    `message` creates it again for each attempt; `taken` is called once it is on its way.
    """

    def __init__(
        self, offer: Callable[[Message], bool], message: Callable[[], Message], taken: Callable[[], None]
    ) -> None:
        """`offer` returns False if the message was not taken, because the supervisor has yet to read the previous
        one.
        """
        self._offer, self._message, self._taken = offer, message, taken
        self._is_due = False
        self.closed = False
        """True if the supervisor is gone, so that no message can be sent."""

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
