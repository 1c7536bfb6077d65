"""What happened: a conversation on the client's side, and each of its requests as the upstream got it."""

from time import monotonic
from typing import TYPE_CHECKING

from tests.fuzz.conversation import Conversation, Reply
from tests.fuzz.messages import Message, may_be_whole, read_final, read_request

if TYPE_CHECKING:
    from tests.fuzz.upstream import Connection


KEPT = 2000
"""Bytes of what was written or read at once that are kept to be shown."""

LARGE = 200_000
"""Bytes of a conversation that is not kept once it is judged."""

PATIENCE = 3.0
"""Seconds; less than any timeout of the edge that is fuzzed."""


class Talk:
    """What came of a conversation on the client's side."""

    def __init__(self, conversation: Conversation, address: str) -> None:
        self.conversation = conversation
        self.address = address
        self.sent = bytearray()
        self.got = bytearray()
        self.ended = ""
        """eof, reset, left (by the client), late (past its deadline)."""
        self.began = monotonic()
        self.events: list[tuple[float, str, bytes, int]] = []
        """(seconds since it began, what happened, the first of the bytes, how many these were)."""
        self.answers = 0
        """Final answers that are whole."""
        self.interims = 0
        """Interim answers behind them."""
        self.switched = False
        self.finished = False
        """The client has closed its side."""
        self.copies: list[Copy] = []
        """What was forwarded of it, in order."""
        self._answered_to = self._looked_at = 0
        self._partly: Message | None = None
        self._asked_to = 0

    def event(self, what: str, data: bytes = b"") -> None:
        """Take something down for who will want to know how it went."""
        self.events.append((monotonic() - self.began, what, data[:KEPT], len(data)))

    def forget(self) -> None:
        """Drop what was sent and got, where it was much: it has been judged, and nothing more may come of it."""
        if len(self.sent) + len(self.got) > LARGE and self.ended != "left":
            self.sent, self.got, self.copies, self.events = bytearray(), bytearray(), [], []
            self.conversation = Conversation(self.conversation.seed, self.conversation.number, self.conversation.kind)

    @property
    def slow(self) -> bool:
        """Whether its requests took so long to send, on a busy machine, that an edge may have lost its patience."""
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
        """Answers still to come to what was sent, a message that is not whole included."""
        return 0 if self.switched or self._next_request() is None else 1


class Copy:
    """One request as it was forwarded once, and what was answered."""

    def __init__(self, connection: "Connection", serial: bytes) -> None:
        self.connection = connection
        self.serial = serial
        self.message = Message(0)
        self.raw = b""
        self.reply: Reply | None = None
        self.sent = bytearray()
        self.tunnelled = bytearray()
        """What came behind a request that was answered with 101."""
        self.ended = ""
        """How the connection ended behind the answer: fin, rst, or edge, where that closed it; empty: it is open."""
        self.raced = False
        """It came to a connection that was no good any more, which the edge could not know."""
        self.done = False
        """Nothing more will come of it."""

    def reading(self) -> tuple[list[Message], Message | None]:
        """The interim answers and the final one that were sent, as a strict reader has them."""
        method = self.message.method or b"GET"
        return read_final(bytes(self.sent), 0, method, ended=self.ended == "fin", sloppy=True)
