"""The messages of one gRPC call between the edge and a service, and the meters that count them.

The service's answer decides whether a call is gRPC, because a caller could lie. So the caller's messages count only
once the answer's head has come. A repeated call counts once, because only one of its streams is answered.
"""

from typing import TYPE_CHECKING

from edgeproxy.edge.body_usage.grpc_messages import MessageScanner

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.metering.meters import Countable


class MessageMetering:
    """The messages of one call that were passed on, and the counters of each direction."""

    __slots__ = ("_inward", "_outward", "_request_counters", "_response_counters", "_sent_messages")

    def __init__(self) -> None:
        self._inward, self._outward = MessageScanner(), MessageScanner()
        self._request_counters: tuple[Countable, ...] = ()
        self._response_counters: tuple[Countable, ...] = ()
        self._sent_messages = 0
        """The caller's messages before the head of an answer has come."""

    def read_request(self, data: bytes) -> None:
        """Count the messages that end in the next piece of the request."""
        count = self._inward.count_ends(data)
        self._sent_messages += count
        add_count(self._request_counters, count)

    def begin_answer(self, inward: "tuple[Countable, ...]", outward: "tuple[Countable, ...]") -> None:
        """Count the messages sent so far, and from now on each message, of a call that is gRPC."""
        add_count(inward, self._sent_messages)
        self._request_counters, self._response_counters = inward, outward

    def read_answer(self, data: bytes) -> None:
        """Count the messages that end in the next piece of the answer."""
        if self._response_counters:
            add_count(self._response_counters, self._outward.count_ends(data))


class MeteredTransport:
    """A transport to a service whose messages are counted, if meters need it."""

    messages: MessageMetering | None = None


def add_count(counters: "tuple[Countable, ...]", count: int) -> None:
    """Add to all of these counters."""
    if count:
        for counter in counters:
            counter.add(count)
