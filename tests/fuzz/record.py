"""Records of a fuzz run: each conversation as the client saw it, and each request as the upstream received it."""

from time import monotonic
from typing import TYPE_CHECKING

from tests.fuzz.conversation import Conversation, Reply
from tests.fuzz.messages import Message, may_be_whole, read_final, read_request

if TYPE_CHECKING:
    from tests.fuzz.upstream import Connection


KEPT = 2000
"""The number of bytes of one read or write that an event keeps for display."""

LARGE = 200_000
"""The number of bytes above which a conversation's bytes are dropped after it is judged."""

TIMEOUT = 15
"""The timeout of the edge that is fuzzed, in seconds. It is longer than a busy machine delays a process. Otherwise the
edge would give up on sound requests.
"""
PATIENCE = TIMEOUT * 0.6


class Talk:
    """A conversation as the client saw it."""

    def __init__(self, conversation: Conversation, address: str) -> None:
        self.conversation = conversation
        self.address = address
        self.sent = bytearray()
        self.got = bytearray()
        self.ended = ""
        """eof, reset, left (by the client), late (past its deadline)."""
        self.began = monotonic()
        self.events: list[tuple[float, str, bytes, int]] = []
        """Each event: seconds since the start, a description, the first bytes, and the number of bytes."""
        self.answers = 0
        """The number of whole final answers."""
        self.interims = 0
        """The number of interim answers after the last final one."""
        self.switched = False
        self.finished = False
        """The client has closed its side."""
        self.copies: list[Copy] = []
        """The forwarded copies of its requests, in order."""
        self._answered_to = self._looked_at = 0
        self._partly: Message | None = None
        self._asked_to = 0

    def event(self, what: str, data: bytes = b"") -> None:
        """Record an event for the transcript."""
        self.events.append((monotonic() - self.began, what, data[:KEPT], len(data)))

    def forget(self) -> None:
        """Drop the bytes of a large conversation. It has been judged, and no further requests can arrive."""
        if len(self.sent) + len(self.got) > LARGE and self.ended != "left":
            self.sent, self.got, self.copies, self.events = bytearray(), bytearray(), [], []
            self.conversation = Conversation(self.conversation.seed, self.conversation.number, self.conversation.kind)

    @property
    def slow(self) -> bool:
        """Return whether sending took so long, on a busy machine, that the edge may have timed out."""
        times = [at for at, what, *_ in self.events if what == "client ->"]
        return times[-1] - times[0] > PATIENCE

    # ---- progress: how far the answers are, for steps that wait for them

    def look(self) -> None:
        """Count the answers that have come."""
        before, self._looked_at = self._looked_at, len(self.got)
        if self._looked_at <= self._answered_to or (self._partly and not may_be_whole(self._partly, self.got, before)):
            return
        got = bytes(self.got)
        while not self.switched:
            request = self._next_request()
            method = b"GET" if request is None else request.method
            interims, self._partly = read_final(got, self._answered_to, method, ended=False)
            self.interims = len(interims)
            final = self._partly
            if final is None or not final.whole:
                return
            self._partly = None
            self._answered_to = final.end
            if request is not None:
                self._asked_to = request.end
            self.answers += 1
            self.interims = 0
            self.switched = final.status == 101

    def _next_request(self) -> Message | None:
        return read_request(bytes(self.sent), self._asked_to)

    @property
    def awaited(self) -> int:
        """Return 1 if a sent request, even a partial one, still lacks its answer, otherwise 0."""
        return 0 if self.switched or self._next_request() is None else 1


class Copy:
    """One forwarded copy of a request, and the upstream's answer to it."""

    def __init__(self, connection: "Connection", serial: bytes) -> None:
        self.connection = connection
        self.serial = serial
        self.message = Message(0)
        self.raw = b""
        self.reply: Reply | None = None
        self.sent = bytearray()
        self.tunnelled = bytearray()
        """The bytes that the upstream received after it answered 101."""
        self.ended = ""
        """The end of the connection after the answer: fin, rst, edge (the edge closed it), or empty (still open)."""
        self.raced = False
        """The request arrived on a connection that the upstream had spoilt or closed before the edge could know."""
        self.done = False
        """The copy is complete: it will not change any more."""

    def reading(self) -> tuple[list[Message], Message | None]:
        """Return the interim answers and the final answer that the upstream sent, as a strict reader parses them."""
        method = self.message.method or b"GET"
        return read_final(bytes(self.sent), 0, method, ended=self.ended == "fin", sloppy=True)
