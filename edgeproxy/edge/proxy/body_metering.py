"""Meters of what the bodies of answers state, such as tokens: read as the answers pass, counted at their end.

A route binding without such meters has no BodyMetering, and its requests pay nothing for these. Only answers of 2xx are
read. What is counted instead of a number that is not stated is the meter's `missing`.
"""

from collections.abc import Callable
from time import monotonic, time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from edgeproxy.config import dimensions
from edgeproxy.config.dimensions import OTHER
from edgeproxy.config.meters import BODY_DIMENSIONS, MEASURES
from edgeproxy.edge.body_usage.body_kind import BodyKind, describe_body
from edgeproxy.edge.body_usage.content_coding import create_decoder
from edgeproxy.edge.body_usage.formats import StatedCounts, UsageFormat, format_path
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1.chunked import DONE, ChunkedDecoder, create_response_error
from edgeproxy.edge.http1.grammar import HeadLimits
from edgeproxy.edge.proxy.metering import Clock, Countable, Metered, QuotaCharge
from edgeproxy.edge.proxy.split_metering import DAY_SECONDS, DimensionValues

if TYPE_CHECKING:
    from edgeproxy.config.edge.response_usage import ResponseUsage
    from edgeproxy.config.meters import Meter
    from edgeproxy.edge.body_usage.readers import EventStreamReader, JsonReader

ABSENT: Final = "absent"
"""Why a number is missing: the answer is whole, and does not state it."""
UNREADABLE: Final = "unreadable"
"""What stands there is no number, or the body is not the JSON that it says it is."""
CODING: Final = "coding"
"""The body is compressed, though it was asked for as it is, and cannot be decoded."""
TYPE: Final = "type"
"""The body is neither JSON nor a stream of events. Of such answers nothing is estimated: their bytes are no text."""
CUT: Final = "cut"
"""The upstream has broken the answer off."""
LEFT: Final = "client"
"""The client has left, and the rest of the answer was not read, or not to its end."""

MODEL, ESTIMATED = BODY_DIMENSIONS
OUTPUT_TOKENS: Final = "output_tokens"
OTHER_MODEL: Final = OTHER.encode()
"""The model in place of those that are no value of a dimension, or one too many."""


class BodyMetrics(Protocol):
    """The metrics of a worker that are about bodies."""

    def report_unreadable(self, meter: str, reported: bytes) -> None:
        """Record a report that is no whole number."""

    def count_missing(self, route: str, reason: str) -> None:
        """Count an answer that does not state what it should."""

    def observe_first_token(self, route: str, seconds: float) -> None:
        """Observe how long after its request a stream began."""

    def observe_output_token(self, route: str, seconds: float) -> None:
        """Observe how long a stream took for each output token after the first."""


class UsageRecord(Protocol):
    """A record of what an answer states."""

    usage: StatedCounts | None


class MeteredExchange(Protocol):
    """An exchange whose answer's body is read."""

    bytes_in: int
    started: float
    """The time at which its request began, of the monotonic clock."""

    @property
    def span(self) -> "UsageRecord | None":
        """Where it is recorded what the answer states, if the request is traced."""

    @property
    def runtime(self) -> Clock:
        """The clock."""

    def get_metered_quotas(self) -> Metered:
        """Return the customer's quotas that are charged what meters count."""


class BodyMeter(NamedTuple):
    """A meter of what bodies state."""

    name: str
    stated: str
    """The name of its number among StatedCounts."""
    settings: "Meter"
    counter: Countable
    """The counter without dimensions."""
    is_by_model: bool
    """Whether it is split by the model that answers state."""


class BodyMetering:
    """The meters of one route binding."""

    def __init__(
        self,
        usage: "ResponseUsage",
        names: tuple[str, str],
        meters: "dict[str, Meter]",
        counter: Callable[[str, str], Countable],
        metrics: BodyMetrics,
        values: DimensionValues,
    ) -> None:
        """`names`: of the customer and of the route. `counter`: of a meter and the text of dimensions."""
        self._customer, self._route = names
        self._counter, self._metrics, self._values = counter, metrics, values
        self.usage_format = UsageFormat(usage.format, [meter.json_path for meter in meters.values() if meter.json_path])
        self.read_on_seconds, self.read_on_bytes = usage.read_on, usage.read_on_size
        self._meters = [
            BodyMeter(name, count, meter, counter(name, ""), MODEL in meter.dimensions)
            for name, meter in meters.items()
            if self.usage_format.states(count := format_path(meter.json_path) if meter.json_path else meter.count)
        ]
        self._counters: dict[tuple[str, bytes | None, bool], Countable] = {}
        self._day = 0

    def __bool__(self) -> bool:
        """Return whether anything is counted."""
        return bool(self._meters)

    # ---- answers

    def read_whole(self, exchange: MeteredExchange, status: int, head: bytes, body: bytes) -> None:
        """Count an answer of which all is there."""
        if not 200 <= status < 300 or not body:
            return
        kind, coding = describe_body(head)
        if kind is BodyKind.JSON and not coding:
            counts, is_readable = self.usage_format.read_json(body)
            if exchange.span is not None:
                exchange.span.usage = counts
            reason = ABSENT if is_readable else UNREADABLE
            self.count(counts, reason, (exchange.bytes_in, len(body)), exchange.get_metered_quotas(), exchange.runtime)
        else:
            usage = BodyUsage(self, exchange, kind, coding)
            usage.feed(body)
            usage.finish(ABSENT)

    def open(self, exchange: MeteredExchange, status: int, head: bytes) -> "BodyUsage | None":
        """Return what reads an answer piece by piece; None where nothing of it counts."""
        return BodyUsage(self, exchange, *describe_body(head)) if 200 <= status < 300 else None

    def count(
        self, counts: StatedCounts | None, reason: str, sizes: tuple[int, int], metered: Metered, clock: Clock
    ) -> None:
        """Count what an answer states, or what counts instead. `reason`: why a number may be missing. `sizes`: the
        bytes of the request's body and of the answer's."""
        model = None if counts is None else counts.model
        self._begin_day()
        missing = ""
        for meter in self._meters:
            number = None if counts is None else counts.find_number(meter.stated)
            is_estimated = number is None
            if number is None:
                missing = self._find_reason(meter, counts, reason)
                number = estimate_number(meter.settings, sizes) if missing != TYPE else 0
            if number:
                own_model = model if meter.is_by_model else None
                counter = self._counters.get((meter.name, own_model, is_estimated))
                (counter or self._create_counter(meter, own_model, is_estimated=is_estimated)).add(number)
                if meter.name in metered:
                    QuotaCharge(metered[meter.name], clock).add(number)
        if missing:
            self._metrics.count_missing(self._route, missing)

    def begin_stream(self, started: float) -> float:
        """Observe how long after its request a stream begins; return the time, of the monotonic clock."""
        now = monotonic()
        self._metrics.observe_first_token(self._route, now - started)
        return now

    def end_stream(self, counts: StatedCounts, began: float) -> None:
        """Observe how long a stream that is whole took for each of its output tokens, but for the first."""
        tokens = counts.find_number(OUTPUT_TOKENS) if self.usage_format.states(OUTPUT_TOKENS) else None
        if tokens is not None and tokens > 1:
            self._metrics.observe_output_token(self._route, (monotonic() - began) / (tokens - 1))

    def _find_reason(self, meter: BodyMeter, counts: StatedCounts | None, reason: str) -> str:
        """Return why a meter's number is missing, having reported what stands in its place."""
        unreadable = None if counts is None else counts.find_unreadable(meter.stated)
        if unreadable is None:
            return reason
        self._metrics.report_unreadable(meter.name, unreadable)
        return UNREADABLE

    def _begin_day(self) -> None:
        """Forget the counters of a day that is over: what values there may be begins anew."""
        day = int(time()) // DAY_SECONDS
        if self._day != day:
            self._values.begin_day(day)
            self._counters.clear()
            self._day = day

    def _create_counter(self, meter: BodyMeter, model: bytes | None, *, is_estimated: bool) -> Countable:
        """Return the counter of a meter for a model, and for whether the number is an estimate.

        Models that count as `~other` share one entry: anybody may invent names, of any length.
        """
        reported = {MODEL: model, ESTIMATED: b"yes" if is_estimated else b"no"}
        split = {
            name: value
            for name, each in meter.settings.dimensions.items()
            if name in reported
            and (value := self._values.count_value(self._customer, meter.name, name, reported[name], each.values))
        }
        key = meter.name, OTHER_MODEL if split.get(MODEL) == OTHER else model, is_estimated
        counter = self._counters.get(key)
        if counter is None:
            try:
                counter = self._counter(meter.name, dimensions.format_dimensions(split)) if split else meter.counter
            except RejectedError:
                return meter.counter  # Its table is busy, and the answer has passed: it counts without dimensions.
            self._counters[key] = counter
        return counter


class BodyUsage:
    """The usage that one answer's body states, while the body passes."""

    __slots__ = (
        "_began",
        "_bytes_left",
        "_decoder",
        "_exchange",
        "_first_bytes",
        "_kind",
        "_metered",
        "_metering",
        "_read_on",
        "_reader",
        "read",
        "size",
    )

    def __init__(self, metering: BodyMetering, exchange: MeteredExchange, kind: BodyKind, coding: bytes) -> None:
        self._metering, self._kind = metering, kind
        self._exchange: MeteredExchange | None = exchange
        """The exchange, until all is counted."""
        self._metered = exchange.get_metered_quotas()
        self._reader: JsonReader | EventStreamReader | None = None
        self.read: Callable[[bytes], object] = len
        """Reads the next piece of the body; of one that cannot be read it looks at nothing."""
        if kind in (BodyKind.JSON, BodyKind.STREAM):
            self._reader = metering.usage_format.create_reader(is_stream=kind is BodyKind.STREAM)
            self.read = self._read_packed if coding else self._reader.feed
        self._read_on, self._began, self._first_bytes = self.read, 0.0, 0
        if kind is BodyKind.STREAM:
            self.read = self._read_first
        self._decoder = create_decoder(coding)
        self.size = 0
        """Bytes of the body so far."""
        self._bytes_left: int | None = None
        """Bytes that may still be read for the usage alone, once the client has left."""

    @property
    def is_packed(self) -> bool:
        """Whether the body is decoded in order to be read."""
        return self._decoder is not None

    @property
    def read_on_seconds(self) -> float:
        """Seconds for which the answer is read on once its client has left; 0 where that would tell nothing."""
        return 0.0 if self._reader is None else self._metering.read_on_seconds

    def begin_rest(self) -> None:
        """Record that the client has left: what follows is read for the usage alone."""
        self._bytes_left = self._metering.read_on_bytes

    def take_rest(self, data: bytes) -> bool:
        """Take note of a piece of the rest; returns whether more of it may be read."""
        assert self._bytes_left is not None
        self._bytes_left -= len(data)
        return self._bytes_left > 0

    @property
    def cut_reason(self) -> str:
        """The reason why a number is missing of a body whose connection was lost."""
        return CUT if self._bytes_left is None else LEFT

    def feed(self, data: bytes) -> None:
        """Count and read the next piece of the body."""
        self.size += len(data)
        self.read(data)

    def _read_first(self, data: bytes) -> None:
        """Read the first piece of a stream; all others are read without a look at the clock."""
        self.read, self._first_bytes = self._read_on, self.size
        if self._exchange is not None:
            self._began = self._metering.begin_stream(self._exchange.started)
        self.read(data)

    def _read_packed(self, data: bytes) -> None:
        assert self._decoder is not None
        assert self._reader is not None
        for piece in self._decoder.feed(data):
            self._reader.feed(piece)

    def finish(self, reason: str) -> None:
        """Count what the body has stated, once; `reason`: why numbers that it has not may be missing."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        counts, reader = None, self._reader
        if reader is not None:
            reader.finish()
            counts = self._metering.usage_format.compute_counts(reader.values)
            if exchange.span is not None:
                exchange.span.usage = counts
            if reason == ABSENT and self.size > self._first_bytes > 0 and self._bytes_left is None:
                self._metering.end_stream(counts, self._began)  # What came at once tells nothing of its tokens.
        if (self._decoder is not None and self._decoder.is_broken) or self._kind is BodyKind.ENCODED:
            reason = CODING
        elif reader is None:
            reason = TYPE
        elif reason == ABSENT and not reader.is_readable:
            reason = UNREADABLE
        self._metering.count(counts, reason, (exchange.bytes_in, self.size), self._metered, exchange.runtime)


class ReadChunks(ChunkedDecoder):
    """The decoder of a chunked body whose usage is read: counted before the last of it is passed on."""

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
    """The bytes of a body of known length whose usage is read, as if they were decoded."""

    __slots__ = ("_left", "_usage", "rest")

    trailers: Final[list[bytes]] = []

    def __init__(self, usage: BodyUsage, length: int) -> None:
        self._usage, self._left = usage, length
        self.rest = b""
        """The bytes behind the body."""

    @property
    def done(self) -> bool:
        """Whether the body is complete."""
        return not self._left

    def feed(self, data: bytes) -> list[bytes]:
        """Return what of `data` belongs to the body."""
        if len(data) > self._left:
            data, self.rest = data[: self._left], data[self._left :]
        self._left -= len(data)
        self._usage.feed(data)
        if not self._left:
            self._usage.finish(ABSENT)
        return [data]


def estimate_number(meter: "Meter", sizes: tuple[int, int]) -> int:
    """Return what counts where a number is missing, of bodies of these sizes, rounded up."""
    measure = MEASURES[meter.count].in_body
    return -(-measure(*sizes) // meter.missing) if meter.missing and measure is not None else 0
