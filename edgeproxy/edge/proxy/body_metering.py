"""Meters of what the bodies of answers state, such as tokens: read as the answers pass, counted at their end.

A route binding without such meters has no BodyMetering, and its requests pay nothing for these. Only answers of 2xx are
read. What is counted instead of a number that is not stated is the meter's `missing`.
"""

from collections.abc import Callable
from hashlib import blake2b
from time import monotonic, time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from edgeproxy.config import dimensions
from edgeproxy.config.dimensions import OTHER
from edgeproxy.config.meters import BODY_DIMENSIONS, MEASURES, PROMPT_SIZES
from edgeproxy.edge.body_usage.body_kind import BodyKind, describe_body
from edgeproxy.edge.body_usage.content_coding import create_decoder
from edgeproxy.edge.body_usage.dialects import BACKGROUND, FILE, KIND, TIER
from edgeproxy.edge.body_usage.dialects import ID as ANSWER_ID
from edgeproxy.edge.body_usage.dialects import MODEL as MODEL_FACT
from edgeproxy.edge.body_usage.formats import format_path, get_usage_format
from edgeproxy.edge.body_usage.messages import MessageReader
from edgeproxy.edge.body_usage.operations import (
    ASYNCHRONOUS,
    NEVER_ASYNCHRONOUS,
    Work,
    find_results,
    find_work,
    generates_output,
    is_failure,
    is_pending,
)
from edgeproxy.edge.body_usage.readers import EVENTS_WITHOUT_MODEL_MAX
from edgeproxy.edge.body_usage.statement import StatedCounts
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1.chunked import DONE, ChunkedDecoder, create_response_error
from edgeproxy.edge.http1.grammar import HeadLimits
from edgeproxy.edge.limits.unit_limit import UnitLimit
from edgeproxy.edge.proxy.metering import Clock, Countable, Metered, QuotaCharge
from edgeproxy.edge.proxy.split_metering import DAY_SECONDS, DimensionValues

if TYPE_CHECKING:
    from edgeproxy.config.edge.response_usage import ResponseUsage
    from edgeproxy.config.meters import Meter
    from edgeproxy.edge.body_usage.readers import BodyReader
    from edgeproxy.edge.counters.counted_ids import CountedIds

ABSENT: Final = "absent"
"""Why a number is missing: the answer is whole, and does not state it."""
DIALECT: Final = "dialect"
"""The answer is whole, and states something like usage in a shape that no row of the table has."""
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

MODEL, ESTIMATED, SERVICE_TIER, PROMPT_SIZE = BODY_DIMENSIONS
OUTPUT_TOKENS: Final = "output_tokens"
MODEL_BYTES_MAX: Final = 64
"""Bytes of the value of a dimension."""
MODEL_HASH_BYTES: Final = 8
OTHER_MODEL: Final = OTHER.encode()
"""The model in place of those that are no value of a dimension, or one too many."""


PromptSplit = tuple[bytes | None, bytes | None]
"""The service tier of an answer, and the size of its prompt."""
NO_PROMPT: Final[PromptSplit] = (None, None)


class BodyMetrics(Protocol):
    """The metrics of a worker that are about bodies."""

    def report_unreadable(self, meter: str, reported: bytes) -> None:
        """Record a report that is no whole number."""

    def count_missing(self, route: str, reason: str) -> None:
        """Count an answer that does not state what it should."""

    def report_disagreement(self, route: str, rule: str) -> None:
        """Report an answer whose parts and total disagree; `rule` decides."""

    @property
    def counted_ids(self) -> "CountedIds | None":
        """The ids of stored answers that are counted; None where there is no file for them."""

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
    method: bytes
    path: bytes
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
    is_by_prompt: bool
    """Whether it is split by the service tier or the size of the prompt."""


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
        self._owner = f"{self._customer}\n{self._route}".encode()
        """The owner of the ids of stored answers."""
        self._counter, self._metrics, self._values = counter, metrics, values
        paths = [meter.json_path for meter in meters.values() if meter.json_path]
        has_tier = any(SERVICE_TIER in meter.dimensions for meter in meters.values())
        counts = {meter.count for meter in meters.values()}
        self.usage_format = get_usage_format(usage.format, paths, counts, has_tier=has_tier)
        self.read_on_seconds, self.read_on_bytes = usage.read_on, usage.read_on_size
        self._meters = [
            BodyMeter(
                name,
                count,
                meter,
                counter(name, ""),
                MODEL in meter.dimensions,
                not meter.dimensions.keys().isdisjoint((SERVICE_TIER, PROMPT_SIZE)),
            )
            for name, meter in meters.items()
            if self.usage_format.states(count := format_path(meter.json_path) if meter.json_path else meter.count)
        ]
        self._counters: dict[tuple[str, bytes | None, bool, PromptSplit], Countable] = {}
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
        if kind is BodyKind.JSON and not coding and body.startswith((b"{", b"[")):
            answer = Answer(exchange)
            answer.size = len(body)
            counts, is_readable = self.usage_format.read_json(body, has_output=answer.has_output)
            if exchange.span is not None:
                exchange.span.usage = counts
            reason = ABSENT if is_readable else UNREADABLE
            is_marked = not counts.has_numbers and self.usage_format.has_marker(body)
            self.judge(answer, counts, reason, has_content=False, is_marked=is_marked)
        else:
            usage = BodyUsage(self, exchange, kind, coding)
            usage.feed(body)
            usage.finish(ABSENT)

    def open(self, exchange: MeteredExchange, status: int, head: bytes) -> "BodyUsage | None":
        """Return what reads an answer piece by piece; None where nothing of it counts."""
        return BodyUsage(self, exchange, *describe_body(head)) if 200 <= status < 300 else None

    def judge(
        self, answer: "Answer", counts: StatedCounts | None, reason: str, *, has_content: bool, is_marked: bool
    ) -> None:
        """Count an answer as far as a model has worked for it.

        `reason`: why a number may be missing. `has_content`: a model may have generated something. `is_marked`: usage
        may be stated in a way that is not known.
        """
        if counts is not None:
            if is_failure(counts, has_content=has_content) or is_pending(counts):
                return
            if answer.work is Work.STORED and not (counts.has_numbers and self._claim(counts)):
                return
            if counts.find_text(KIND) in ASYNCHRONOUS and answer.work is Work.GENERATES:
                self._claim(counts)
            if counts.rule:
                self._metrics.report_disagreement(self._route, counts.rule)
            if reason == ABSENT and is_marked and not counts.has_numbers:
                reason = DIALECT
        elif answer.work is Work.STORED:
            return
        self.count(
            counts, reason, answer.sizes, answer.metered, answer.clock, is_estimable=answer.work is Work.GENERATES
        )

    def _claim(self, counts: StatedCounts) -> bool:
        """Claim the id of a stored answer; return whether its usage is to be counted, as nobody has yet.

        An answer without an id is not stored: a model has worked for it, whatever the method.
        """
        kind, name = counts.find_text(KIND), counts.find_text(ANSWER_ID)
        ids, file = self._metrics.counted_ids, counts.find_text(FILE)
        if name is None:
            return True
        if kind in NEVER_ASYNCHRONOUS or counts.find_text(BACKGROUND) == b"false" or ids is None:
            return False
        if file is not None:
            # A batch: its usage is that of the lines of its file.
            return self._results_key(file) not in ids and ids.claim((self._owner, file))
        return ids.claim((self._owner, name))

    def _results_key(self, file: bytes) -> tuple[bytes, ...]:
        return (self._owner, file, b"lines")

    def count_line(self, answer: "Answer", results: bytes, number: int, values: dict[str, bytes]) -> None:
        """Count a line of the results of a batch, once; `number` is its own, for a line without an id."""
        ids = self._metrics.counted_ids
        counts = self.usage_format.compute_counts(values)
        if ids is None or not counts.has_numbers or (self._owner, results) in ids:
            return
        ids.claim(self._results_key(results))
        name = counts.find_text(ANSWER_ID) or b"%b:%d" % (results, number)
        if ids.claim((self._owner, name)):
            self.count(counts, ABSENT, (0, 0), answer.metered, answer.clock, is_estimable=False)

    def open_session(self, exchange: MeteredExchange, head: bytes) -> "SessionUsage":
        """Return what reads the messages of a WebSocket; `head`: the lines of the answer that has opened it."""
        return SessionUsage(self, exchange, head)

    def count_message(self, answer: "Answer", counts: StatedCounts) -> None:
        """Count what a message of a WebSocket states."""
        if counts.rule:
            self._metrics.report_disagreement(self._route, counts.rule)
        self.count(counts, ABSENT, (0, 0), answer.metered, answer.clock, is_estimable=False)

    def count_unread_session(self) -> None:
        """Count a WebSocket whose messages cannot be read any more."""
        self._metrics.count_missing(self._route, UNREADABLE)

    def count(
        self,
        counts: StatedCounts | None,
        reason: str,
        sizes: tuple[int, int],
        metered: Metered,
        clock: Clock,
        *,
        is_estimable: bool = True,
    ) -> None:
        """Count what an answer states, or what counts instead. `reason`: why a number may be missing. `sizes`: the
        bytes of the request's body and of the answer's. `is_estimable`: whether a missing number is estimated."""
        model = None if counts is None else counts.model
        if model is not None and len(model) > MODEL_BYTES_MAX:
            model = shorten_model(model)
        self._begin_day()
        missing = ""
        for meter in self._meters:
            number = None if counts is None else counts.find_number(meter.stated)
            is_estimated = number is None
            if number is None:
                if not is_estimable:
                    continue
                missing = self._find_reason(meter, counts, reason)
                number = estimate_number(meter.settings, sizes) if missing != TYPE else 0
            if number:
                own_model = model if meter.is_by_model else None
                prompt = get_prompt_split(counts) if meter.is_by_prompt else NO_PROMPT
                counter = self._counters.get((meter.name, own_model, is_estimated, prompt))
                (counter or self._create_counter(meter, own_model, prompt, is_estimated=is_estimated)).add(number)
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

    def _create_counter(
        self, meter: BodyMeter, model: bytes | None, prompt: PromptSplit, *, is_estimated: bool
    ) -> Countable:
        """Return the counter of a meter for a model, and for whether the number is an estimate.

        Models that count as `~other` share one entry: anybody may invent names, of any length.
        """
        reported = {MODEL: model, ESTIMATED: b"yes" if is_estimated else b"no"}
        reported[SERVICE_TIER], reported[PROMPT_SIZE] = prompt
        split = {
            name: value
            for name, each in meter.settings.dimensions.items()
            if name in reported
            and (value := self._values.count_value(self._customer, meter.name, name, reported[name], each.values))
        }
        if split.get(SERVICE_TIER) == OTHER:
            prompt = OTHER_MODEL, prompt[1]
        key = meter.name, OTHER_MODEL if split.get(MODEL) == OTHER else model, is_estimated, prompt
        counter = self._counters.get(key)
        if counter is None:
            try:
                counter = self._counter(meter.name, dimensions.format_dimensions(split)) if split else meter.counter
            except RejectedError:
                return meter.counter  # Its table is busy, and the answer has passed: it counts without dimensions.
            self._counters[key] = counter
        return counter


class Answer:
    """The facts of a request on which it depends how its answer counts."""

    __slots__ = ("_bytes_in", "_exchange", "clock", "has_output", "metered", "size", "work")

    def __init__(self, exchange: MeteredExchange) -> None:
        self._exchange = exchange
        self.metered, self.clock = exchange.get_metered_quotas(), exchange.runtime
        self.work, self.has_output = find_work(exchange.method, exchange.path), generates_output(exchange.path)
        self.size = 0
        """Bytes of the answer's body so far."""

    @property
    def sizes(self) -> tuple[int, int]:
        """The bytes of the request's body, and of the answer's."""
        return self._exchange.bytes_in, self.size


class BodyUsage:
    """The usage that one answer's body states, while the body passes."""

    __slots__ = (
        "_answer",
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

    def __init__(self, metering: BodyMetering, exchange: MeteredExchange, kind: BodyKind, coding: bytes) -> None:
        self._metering, self._kind = metering, kind
        self._exchange: MeteredExchange | None = exchange
        """The exchange, until all is counted."""
        self._answer = Answer(exchange)
        self._results, self._lines = find_results(exchange.method, exchange.path), 0
        """The id of the file or batch whose results these are, and how many lines have come."""
        self._reader: BodyReader | None = None
        self.read: Callable[[bytes], object] = len
        """Reads the next piece of the body; of one that cannot be read it looks at nothing."""
        self._read_on, self._began, self._first_bytes = self.read, 0.0, 0
        self._is_stream = kind not in (BodyKind.JSON, BodyKind.TEXT)
        if kind not in (BodyKind.NEITHER, BodyKind.ENCODED):
            on_line = None if self._results is None else self._count_line
            self._reader = metering.usage_format.create_reader(kind, on_line)
            self.read = self._read_first
            self._read_on = self._read_packed if coding else self._reader.feed
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
        """Read the first pieces, by which the reader is chosen; all others are read without a look at the clock."""
        reader = self._reader
        assert reader is not None
        if self._is_stream and not self._began and self._exchange is not None:
            self._first_bytes, self._began = self.size, self._metering.begin_stream(self._exchange.started)
        self._read_on(data)
        if reader.inner is not None:
            # Most of a body is read without a call between.
            self.read = self._read_on if self._decoder is not None else reader.inner.feed

    def _read_packed(self, data: bytes) -> None:
        assert self._decoder is not None
        assert self._reader is not None
        for piece in self._decoder.feed(data):
            self._reader.feed(piece)

    def _count_line(self, values: dict[str, bytes]) -> None:
        """Count a line of the results of a batch."""
        assert self._results is not None
        self._lines += 1
        self._metering.count_line(self._answer, self._results, self._lines, values)

    def finish(self, reason: str) -> None:
        """Count what the body has stated, once; `reason`: why numbers that it has not may be missing."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        counts, reader, answer = None, self._reader, self._answer
        answer.size = self.size
        if reader is not None:
            reader.finish()
            counts = self._metering.usage_format.compute_counts(reader.values, has_output=answer.has_output)
            if exchange.span is not None:
                exchange.span.usage = counts
            if reason == ABSENT and self.size > self._first_bytes > 0 and self._bytes_left is None:
                self._metering.end_stream(counts, self._began)  # What came at once tells nothing of its tokens.
        if self._results is not None:
            return  # Its lines are counted.
        if (self._decoder is not None and self._decoder.is_broken) or self._kind is BodyKind.ENCODED:
            reason = CODING
        elif reader is None or not reader.is_text:
            reason = TYPE
        elif reason == ABSENT and not reader.is_readable:
            reason = UNREADABLE
        has_content, is_marked = reader is not None and reader.has_content, reader is not None and reader.is_marked
        self._metering.judge(answer, counts, reason, has_content=has_content, is_marked=is_marked)


class SessionUsage:
    """The usage that the messages of a WebSocket state, while they pass: each is a statement of its own."""

    __slots__ = ("_answer", "_has_counted", "_metering", "_model", "_reader", "_unnamed")

    def __init__(self, metering: BodyMetering, exchange: MeteredExchange, head: bytes) -> None:
        self._metering, self._answer = metering, Answer(exchange)
        self._reader = MessageReader(head, self._read_message)
        self._has_counted = False
        """Whether anything has counted since the last bytes."""
        self._model = b""
        """The model as it is written, once a message has named it."""
        self._unnamed = EVENTS_WITHOUT_MODEL_MAX
        """Messages that are still to be read for the model."""

    def feed(self, data: bytes) -> bool:
        """Read the next bytes of the service; return whether nothing is left of a limit that they are charged to."""
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
        """Return whether a limit or a quota of what is counted leaves no further request."""
        now = monotonic() + self._answer.clock.offset
        return any(
            limit.left(now) <= 0
            for limits in self._answer.metered.values()
            for limit in limits
            if isinstance(limit, UnitLimit) or limit.hard
        )


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


def get_prompt_split(counts: StatedCounts | None) -> PromptSplit:
    """Return the service tier of an answer, and the size of its prompt; None where it does not state them."""
    if counts is None:
        return NO_PROMPT
    tier, tokens = counts.find_text(TIER), counts.find_number("input_tokens")
    if tier is not None and len(tier) > MODEL_BYTES_MAX:
        tier = OTHER_MODEL
    if tokens is None:
        return tier, None
    return tier, next((size for most, size in PROMPT_SIZES if tokens <= most), "more").encode()


def shorten_model(model: bytes) -> bytes:
    """Return the name under which a model with a long name is counted: its beginning and a hash of all."""
    digest = blake2b(model, digest_size=MODEL_HASH_BYTES).hexdigest().encode()
    return model[: MODEL_BYTES_MAX - len(digest) - 1] + b"~" + digest


def estimate_number(meter: "Meter", sizes: tuple[int, int]) -> int:
    """Return what counts where a number is missing, of bodies of these sizes, rounded up."""
    measure = MEASURES[meter.count].in_body
    return -(-measure(*sizes) // meter.missing) if meter.missing and measure is not None else 0
