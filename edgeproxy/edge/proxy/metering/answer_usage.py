"""The usage that one answer states, read while its body or its messages pass (see `body_metering`)."""

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from edgeproxy.edge.body_usage.answer_text import AnswerText
from edgeproxy.edge.body_usage.body_kind import BodyKind
from edgeproxy.edge.body_usage.collected_request import CollectedRequest
from edgeproxy.edge.body_usage.content_coding import create_decoder
from edgeproxy.edge.body_usage.dialects import MODEL as MODEL_FACT
from edgeproxy.edge.body_usage.json_fields import Value
from edgeproxy.edge.body_usage.messages import MessageReader
from edgeproxy.edge.body_usage.operations import find_results, find_work, is_pending
from edgeproxy.edge.body_usage.readers import EVENTS_WITHOUT_MODEL_MAX
from edgeproxy.edge.body_usage.statement import NUMBERS, StatedCounts
from edgeproxy.edge.http1.chunked import DONE, ChunkedDecoder, create_response_error
from edgeproxy.edge.http1.grammar import HeadLimits
from edgeproxy.edge.limits.unit_limit import UnitLimit
from edgeproxy.edge.proxy.metering.estimates import AnswerSize, EstimatedRequest, measure_answer
from edgeproxy.edge.proxy.metering.meters import Clock, Metered

if TYPE_CHECKING:
    from edgeproxy.edge.body_usage.formats import UsageFormat
    from edgeproxy.edge.body_usage.readers import BodyReader

ABSENT: Final = "absent"
"""Why a number is missing: the answer is complete and does not state it."""
DIALECT: Final = "dialect"
"""The answer is complete, and states something like usage in a shape that no row of the table has."""
LONG: Final = "long"
"""The answer is complete, and states something like usage where so long a text is not read."""
ZERO: Final = "zero"
"""The answer is complete, has text that was generated, and states an output of zero."""
UNREADABLE: Final = "unreadable"
"""The value is not a number, or the body is not the JSON that its type promises."""
CODING: Final = "coding"
"""The body is compressed although the edge asked for no compression, and cannot be decoded."""
TYPE: Final = "type"
"""The body is neither JSON nor an event stream. Such answers are not estimated, because their bytes are not text."""
CUT: Final = "cut"
"""The upstream broke the answer off."""
LEFT: Final = "client"
"""The client left, and the rest of the answer was not read, or not to its end."""


class UsageMetering(Protocol):
    """The meters that an answer's usage counts for; see `BodyMetering`."""

    usage_format: "UsageFormat"
    is_estimated: bool
    read_on_seconds: float
    read_on_bytes: int

    def begin_stream(self, started: float) -> float:
        """Record the first piece of a stream. Return the time."""

    def end_stream(self, counts: StatedCounts, began: float) -> None:
        """Record the end of a stream."""

    def judge(
        self, answer: "Answer", counts: StatedCounts | None, reason: str, *, has_content: bool, is_marked: bool
    ) -> None:
        """Count an answer as far as a model has worked for it."""

    def count_line(self, answer: "Answer", results: bytes, number: int, values: dict[str, Value]) -> None:
        """Count a line of the results of a batch, once."""

    def count_message(self, answer: "Answer", counts: StatedCounts) -> None:
        """Count the usage that a message of a WebSocket states."""

    def count_unread_session(self) -> None:
        """Count a WebSocket whose messages can no longer be read."""


class UsageRecord(Protocol):
    """A record of the usage that an answer states."""

    usage: StatedCounts | None


class MeteredExchange(Protocol):
    """An exchange whose answer's body is read."""

    bytes_in: int
    collected: CollectedRequest | None
    keep: bytes
    message: bytes
    method: bytes
    path: bytes
    started: float
    """The monotonic time when its request began."""

    @property
    def span(self) -> "UsageRecord | None":
        """The record for the stated usage, if the request is traced."""

    @property
    def runtime(self) -> Clock:
        """The clock."""

    def get_metered_quotas(self) -> Metered:
        """Return the customer's quotas that the meters charge."""


class Answer:
    """The facts of a request that decide how its answer counts."""

    __slots__ = ("clock", "has_output", "metered", "request", "size", "work")

    def __init__(self, exchange: MeteredExchange) -> None:
        self.request: EstimatedRequest = exchange
        self.metered, self.clock = exchange.get_metered_quotas(), exchange.runtime
        self.work, self.has_output = find_work(exchange.method, exchange.path)
        self.size: AnswerSize | bytes = b""
        """The size of the answer's body, or the body."""

    def measure(self) -> AnswerSize:
        """Return the size of the answer's body."""
        return self.size if isinstance(self.size, AnswerSize) else measure_answer(self.size)


class BodyUsage:
    """The usage that one answer's body states, while the body passes."""

    __slots__ = (
        "_answer",
        "_answer_text",
        "_began",
        "_bytes_left",
        "_decoder",
        "_exchange",
        "_first_bytes",
        "_is_stream",
        "_kind",
        "_lines",
        "_metering",
        "_read_on",
        "_reader",
        "_results",
        "read",
        "size",
    )

    def __init__(self, metering: "UsageMetering", exchange: MeteredExchange, kind: BodyKind, coding: bytes) -> None:
        self._metering, self._kind = metering, kind
        self._exchange: MeteredExchange | None = exchange
        """The exchange, until everything is counted."""
        self._answer = Answer(exchange)
        self._results, self._lines = find_results(exchange.method, exchange.path), 0
        """The id of the file or batch whose results these are, and the number of lines so far."""
        self._reader: BodyReader | None = None
        self._answer_text: AnswerText | None = None
        # `len` is a call in C that does nothing with a piece.
        self.read: Callable[[bytes], object] = len
        """Reads the next piece of the body. For an unreadable body it does nothing."""
        self._read_on: Callable[[bytes], object] = len
        self._began, self._first_bytes = 0.0, 0
        self._is_stream = kind not in (BodyKind.JSON, BodyKind.TEXT)
        if kind not in (BodyKind.NEITHER, BodyKind.ENCODED):
            on_line = None if self._results is None else self._count_line
            self._answer_text = AnswerText() if metering.is_estimated else None
            self._reader = metering.usage_format.create_reader(kind, on_line, self._answer_text)
            self.read = self._read_first
            self._read_on = self._read_packed if coding else self._reader.feed
        self._decoder = create_decoder(coding)
        self.size = 0
        """Bytes of the body so far."""
        self._bytes_left: int | None = None
        """Bytes that may still be read for the usage alone, once the client has left."""

    @property
    def is_packed(self) -> bool:
        """True if the body is decoded for reading."""
        return self._decoder is not None

    @property
    def read_on_seconds(self) -> float:
        """The answer is read on for this many seconds after its client left; 0 if that yields nothing."""
        return 0.0 if self._reader is None else self._metering.read_on_seconds

    def begin_rest(self) -> None:
        """Record that the client has left: the rest is read for the usage alone."""
        self._bytes_left = self._metering.read_on_bytes

    def take_rest(self, data: bytes) -> bool:
        """Count a piece of the rest. Return whether more of it may be read."""
        assert self._bytes_left is not None
        self._bytes_left -= len(data)
        return self._bytes_left > 0

    @property
    def cut_reason(self) -> str:
        """The reason for a missing number if the connection of a body was lost."""
        return CUT if self._bytes_left is None else LEFT

    def feed(self, data: bytes) -> None:
        """Count and read the next piece of the body."""
        self.size += len(data)
        self.read(data)

    def _read_first(self, data: bytes) -> None:
        """Read the first pieces, which decide the reader. Later pieces are read without a look at the clock."""
        reader = self._reader
        assert reader is not None
        # The time of the first piece, before it is read, because reading takes time.
        if self._is_stream and not self._began and self._exchange is not None:
            self._first_bytes, self._began = self.size, self._metering.begin_stream(self._exchange.started)
        self._read_on(data)
        if reader.inner is not None:
            # Most of a body is read without a call in between.
            self.read = self._read_on if self._decoder is not None else reader.inner.feed

    def _read_packed(self, data: bytes) -> None:
        assert self._decoder is not None
        assert self._reader is not None
        for piece in self._decoder.feed(data):
            self._reader.feed(piece)

    def _count_line(self, values: dict[str, Value]) -> None:
        """Count a line of the results of a batch."""
        assert self._results is not None
        self._lines += 1
        self._metering.count_line(self._answer, self._results, self._lines, values)

    def finish(self, reason: str) -> None:
        """Count the usage that the body stated, once. `reason`: why other numbers may be missing."""
        # An answer may end in several ways, each of which calls this.
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        counts, reader, answer = None, self._reader, self._answer
        if reader is not None:
            reader.finish()
            counts = self._metering.usage_format.compute_counts(reader.values, has_output=answer.has_output)
            if exchange.span is not None:
                exchange.span.usage = counts
            if reason == ABSENT and self.size > self._first_bytes > 0 and self._bytes_left is None:
                # A stream that came at once says nothing about the time per token.
                self._metering.end_stream(counts, self._began)
        if self._results is not None:
            return  # Its lines are counted.
        if (self._decoder is not None and self._decoder.is_broken) or self._kind is BodyKind.ENCODED:
            reason = CODING
        elif reader is None or not reader.is_text:
            reason = TYPE
        elif reason == ABSENT and not reader.is_readable:
            reason = UNREADABLE
        is_marked = reader is not None and not reader.values.keys() & NUMBERS and reader.is_marked
        if reason == ABSENT and is_marked and reader is not None and reader.is_long:
            reason = LONG
        text = None if self._answer_text is None or reason == CODING else self._answer_text.size
        answer.size = AnswerSize(self.size, text)
        has_content = reader is not None and reader.has_content
        self._metering.judge(answer, counts, reason, has_content=has_content, is_marked=is_marked)


class SessionUsage:
    """The usage that the messages of a WebSocket state, while they pass. Each message states its own."""

    __slots__ = ("_answer", "_has_counted", "_metering", "_model", "_reader", "_unnamed")

    def __init__(self, metering: "UsageMetering", exchange: MeteredExchange, head: bytes) -> None:
        self._metering, self._answer = metering, Answer(exchange)
        self._reader = MessageReader(head, self._read_message)
        self._has_counted = False
        """True if anything has counted since the last bytes."""
        self._model: Value = ""
        """The model, once a message has named it."""
        self._unnamed = EVENTS_WITHOUT_MODEL_MAX
        """Messages that are still to be read for the model."""

    def feed(self, data: bytes) -> bool:
        """Read the next bytes of the service. Return whether a limit that they are charged to is exhausted."""
        if not self._reader.is_readable:
            return False
        self._has_counted = False
        self._reader.feed(data)
        if not self._reader.is_readable:
            self._metering.count_unread_session()
        return self._has_counted and self._is_over_limit()

    def _read_message(self, text: bytes | bytearray) -> None:
        counts = self._metering.usage_format.read_message(text, is_named=not self._unnamed)
        if counts is None:
            return
        if MODEL_FACT in counts.values:
            self._model, self._unnamed = counts.values[MODEL_FACT], 0
        elif self._unnamed:
            self._unnamed -= 1
        if counts.has_numbers and not is_pending(counts):
            if self._model and MODEL_FACT not in counts.values:
                counts.values[MODEL_FACT] = self._model
            self._metering.count_message(self._answer, counts)
            self._has_counted = True

    def _is_over_limit(self) -> bool:
        """Return whether a charged limit or hard quota leaves no further request."""
        now = monotonic() + self._answer.clock.offset
        return any(
            (limit.policy if isinstance(limit, UnitLimit) else limit).left(now) <= 0
            for limits in self._answer.metered.values()
            for limit in limits
            if isinstance(limit, UnitLimit) or limit.hard
        )


class ReadChunks(ChunkedDecoder):
    """The decoder of a chunked body whose usage is read. The usage counts before the last piece is passed on."""

    __slots__ = ("_usage",)

    def __init__(self, usage: BodyUsage, limits: HeadLimits) -> None:
        super().__init__(create_response_error, limits)
        self._usage = usage

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of payload in `data`. Raises UpstreamError."""
        pieces = ChunkedDecoder.feed(self, data)
        usage = self._usage
        for piece in pieces:
            usage.size += len(piece)
            usage.read(piece)
        if self._state is DONE:
            usage.finish(ABSENT)
        return pieces


class ReadBytes:
    """The bytes of a body of known length whose usage is read, with the interface of a decoder."""

    __slots__ = ("_left", "_usage", "rest")

    trailers: Final[list[bytes]] = []

    def __init__(self, usage: BodyUsage, length: int) -> None:
        self._usage, self._left = usage, length
        self.rest = b""
        """The bytes after the body."""

    @property
    def done(self) -> bool:
        """True if the body is complete."""
        return not self._left

    def feed(self, data: bytes) -> list[bytes]:
        """Return the part of `data` that belongs to the body."""
        if len(data) > self._left:
            data, self.rest = data[: self._left], data[self._left :]
        self._left -= len(data)
        self._usage.feed(data)
        if not self._left:
            self._usage.finish(ABSENT)
        return [data]
