"""Meters of usage stated in answers' bodies, for example tokens: read as the answers pass, counted at their end.

A route binding without such meters has no BodyMetering, and its requests pay nothing for these. Only answers with a
status of 2xx are read. The meter's setting `missing` decides what counts if an answer does not state a number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from time import monotonic, time
from typing import TYPE_CHECKING, Final, Protocol

from edgeproxy.config import dimensions
from edgeproxy.config.dimensions import OTHER
from edgeproxy.config.meters import ESTIMATED, MODEL, PROMPT_SIZE, PROMPT_SIZES, SERVICE_TIER
from edgeproxy.edge.body_usage.body_kind import BodyKind, describe_body
from edgeproxy.edge.body_usage.dialects import BACKGROUND, FILE, KIND, RESULTS, TICKET, TIER
from edgeproxy.edge.body_usage.dialects import ID as ANSWER_ID
from edgeproxy.edge.body_usage.dialects import MODEL as MODEL_FACT
from edgeproxy.edge.body_usage.formats import format_path, get_usage_format
from edgeproxy.edge.body_usage.json_fields import Value
from edgeproxy.edge.body_usage.json_text import ODD_USAGE
from edgeproxy.edge.body_usage.operations import (
    ASYNCHRONOUS,
    NEVER_ASYNCHRONOUS,
    TICKET_BYTES_MAX,
    Work,
    counts_nothing,
    is_blocked,
)
from edgeproxy.edge.body_usage.prompts import PromptReader
from edgeproxy.edge.body_usage.statement import Find, StatedCounts, get_finder
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.metering.answer_usage import (
    ABSENT,
    DIALECT,
    LONG,
    TYPE,
    UNREADABLE,
    ZERO,
    Answer,
    BodyUsage,
    MeteredExchange,
    SessionUsage,
)
from edgeproxy.edge.proxy.metering.estimates import AnswerSize, RequestSize, estimate_number, read_request
from edgeproxy.edge.proxy.metering.meters import Countable, QuotaCharge
from edgeproxy.edge.proxy.metering.split import DAY_SECONDS, DimensionValues

if TYPE_CHECKING:
    from edgeproxy.config.edge.response_usage import ResponseUsage
    from edgeproxy.config.meters import Meter
    from edgeproxy.edge.counters.counted_ids import CountedIds

LIST: Final = "list"
"""The kind of a list of stored answers."""
RETURNED: Final = (Work.STORED, Work.DEFERRED)
PROMPT_DIMENSIONS: Final = (SERVICE_TIER, PROMPT_SIZE)
OUTPUT_TOKENS: Final = "output_tokens"
MODEL_BYTES_MAX: Final = 64
"""Bytes of the value of a dimension."""
MODEL_HASH_BYTES: Final = 8


PromptSplit = tuple[str | None, str | None]
"""The service tier of an answer, and the size of its prompt."""
CounterKey = tuple[Value | None, bool, PromptSplit]
"""The model, True if the number is an estimate, and the prompt."""
NO_PROMPT: Final[PromptSplit] = (None, None)


class BodyMetrics(Protocol):
    """The metrics of a worker that are about bodies."""

    def report_unreadable(self, meter: str, reported: bytes) -> None:
        """Record a report that is not a whole number."""

    def count_missing(self, route: str, reason: str) -> None:
        """Count an answer without an expected number."""

    def report_disagreement(self, route: str, rule: str) -> None:
        """Report an answer whose parts and total disagree; `rule` decides."""

    @property
    def counted_ids(self) -> "CountedIds | None":
        """The ids of stored answers that are counted; None without a file for them."""

    def observe_first_token(self, route: str, seconds: float) -> None:
        """Observe the seconds from a request to the beginning of its stream."""

    def observe_output_token(self, route: str, seconds: float) -> None:
        """Observe the seconds of a stream for each output token after the first."""


@dataclass(slots=True)
class BodyMeter:
    """A meter of usage stated in bodies."""

    name: str
    stated: str
    """The name of its number among StatedCounts."""
    settings: "Meter"
    counter: Countable
    """The counter without dimensions."""
    find: Find
    """Finds its number."""
    is_by_model: bool
    """True if it is split by the model that answers state."""
    is_by_model_alone: bool
    """True if it is split by the model and no other stated value."""
    is_by_prompt: bool
    """True if it is split by the service tier or the size of the prompt."""
    counters: "dict[CounterKey, Countable]"
    """The counters of this day with dimensions."""


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
        """`names`: of the customer and of the route.

        `counter` returns a counter for a meter and its dimensions as text.
        """
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
                get_finder(count),
                MODEL in meter.dimensions,
                MODEL in meter.dimensions and meter.dimensions.keys().isdisjoint(PROMPT_DIMENSIONS),
                not meter.dimensions.keys().isdisjoint(PROMPT_DIMENSIONS),
                {},
            )
            for name, meter in meters.items()
            if self.usage_format.states(count := format_path(meter.json_path) if meter.json_path else meter.count)
        ]
        self.is_estimated = any(meter.settings.missing != "0" for meter in self._meters)
        """True if missing numbers are estimated."""
        self._prompts = PromptReader(usage.format)
        self._day = 0

    def __bool__(self) -> bool:
        """Return whether anything is counted."""
        return bool(self._meters)

    # ---- answers

    def read_whole(self, exchange: MeteredExchange, status: int, head: bytes, body: bytes) -> None:
        """Count a complete answer."""
        if not 200 <= status < 300 or not body:
            return
        kind, coding = describe_body(head)
        # JSON without a coding has come whole here, so no reader for pieces is needed.
        if kind is BodyKind.JSON and not coding and body.startswith((b"{", b"[")):
            answer = Answer(exchange)
            answer.size = body
            counts, is_readable = self.usage_format.read_json(body, has_output=answer.has_output)
            if exchange.span is not None:
                exchange.span.usage = counts
            reason = ABSENT if is_readable else UNREADABLE
            is_marked = not counts.has_numbers and ODD_USAGE.search(body) is not None
            self.judge(answer, counts, reason, has_content=False, is_marked=is_marked)
        else:
            usage = BodyUsage(self, exchange, kind, coding)
            usage.feed(body)
            usage.finish(ABSENT)

    def open(self, exchange: MeteredExchange, status: int, head: bytes) -> "BodyUsage | None":
        """Return a reader of an answer that comes piece by piece; None if nothing in it counts."""
        return BodyUsage(self, exchange, *describe_body(head)) if 200 <= status < 300 else None

    def judge(
        self, answer: "Answer", counts: StatedCounts | None, reason: str, *, has_content: bool, is_marked: bool
    ) -> None:
        """Count an answer as far as a model has worked for it.

        `reason`: why a number may be missing. `has_content`: a model may have generated something. `is_marked`: usage
        may be stated in an unknown way.
        """
        is_generated = answer.work is Work.GENERATES
        if counts is not None:
            if counts_nothing(counts, has_content=has_content):
                return
            if not is_generated and not self._is_new(answer, counts, reason, is_marked=is_marked):
                return
            is_ticket = TICKET in counts.values and reason == ABSENT and not has_content
            if is_ticket and is_generated and self._is_ticket(answer, counts):
                return
            if is_generated and counts.values.get(KIND) in ASYNCHRONOUS:
                self._claim(counts)
            rule = counts.resolve().rule
            if rule:
                self._metrics.report_disagreement(self._route, rule)
            if not counts.output and is_generated and self._has_lost_output(answer, counts):
                counts, reason = counts.drop_zero_output(), ZERO if reason == ABSENT else reason
            if reason == ABSENT and is_marked and not counts.has_numbers:
                reason = DIALECT
        elif answer.work in RETURNED:
            return
        self.count(answer, counts, reason, is_estimable=is_generated)

    def _is_new(self, answer: "Answer", counts: StatedCounts, reason: str, *, is_marked: bool) -> bool:
        """Return whether an answer to a request that generates nothing states usage that counts."""
        if RESULTS in counts.values:
            self._count_results(answer, counts)
            return False
        if answer.work is Work.NONE:
            if counts.has_numbers:
                self._claim(counts)  # The answer's object was created here, and may be returned again.
            return True
        if counts.has_numbers:
            return self._claim(counts, is_deferred=answer.work is Work.DEFERRED)
        if is_marked and reason in (ABSENT, LONG) and counts.values.get(KIND) != LIST:
            self._metrics.count_missing(self._route, DIALECT if reason == ABSENT else LONG)
        return False

    def _is_ticket(self, answer: "Answer", counts: StatedCounts) -> bool:
        """Return whether a complete answer has only the id that a later request needs to get the generated text."""
        if counts.has_numbers or not answer.has_output:
            return False
        size = answer.measure()
        return not size.text and size.size <= TICKET_BYTES_MAX

    def _has_lost_output(self, answer: "Answer", counts: StatedCounts) -> bool:
        """Return whether an answer states no output but has text.

        A gateway has lost the number: a model that writes uses tokens.
        """
        if not answer.has_output or not counts.has_zero_output or is_blocked(counts):
            return False
        return bool(answer.measure().text)

    def _count_results(self, answer: "Answer", counts: StatedCounts) -> None:
        """Count the answers of a batch that are in one body, each once."""
        batch = counts.find_text(ANSWER_ID)
        if batch is not None:
            for number, values in enumerate(self.usage_format.read_results(counts.values), 1):
                self.count_line(answer, batch.encode(), number, values)

    def _claim(self, counts: StatedCounts, *, is_deferred: bool = False) -> bool:
        """Claim the id of a stored answer. Return whether its usage must be counted, because it has not been yet.

        An answer without an id is not stored: a model has worked for it, whatever the method. `is_deferred`: an answer
        of any kind may be one that its request did not wait for.
        """
        kind, name = counts.values.get(KIND), counts.find_text(ANSWER_ID)
        ids, file = self._metrics.counted_ids, counts.find_text(FILE)
        if name is None:
            return True
        if (kind in NEVER_ASYNCHRONOUS and not is_deferred) or counts.values.get(BACKGROUND) == b"false" or ids is None:
            return False
        if file is not None:
            # A batch: its usage is the sum of the lines of its file.
            results = file.encode()
            return self._results_key(results) not in ids and ids.claim((self._owner, results))
        return ids.claim((self._owner, name.encode()))

    def _results_key(self, file: bytes) -> tuple[bytes, ...]:
        return (self._owner, file, b"lines")

    def count_line(self, answer: "Answer", results: bytes, number: int, values: dict[str, Value]) -> None:
        """Count a line of the results of a batch, once. `number` is the line's own, used if it has no id."""
        ids = self._metrics.counted_ids
        counts = self.usage_format.compute_counts(values)
        if ids is None or not counts.has_numbers or (self._owner, results) in ids:
            return
        # Marks that the lines of this file are counted, so that the batch, which states their sum, is not.
        ids.claim(self._results_key(results))
        name = counts.find_text(ANSWER_ID)
        if ids.claim((self._owner, b"%b:%d" % (results, number) if name is None else name.encode())):
            self.count(answer, counts, ABSENT, is_estimable=False)

    def open_session(self, exchange: MeteredExchange, head: bytes) -> "SessionUsage":
        """Return a reader of the messages of a WebSocket. `head`: the lines of the answer that opened it."""
        return SessionUsage(self, exchange, head)

    def count_message(self, answer: "Answer", counts: StatedCounts) -> None:
        """Count the usage that a message of a WebSocket states."""
        rule = counts.resolve().rule
        if rule:
            self._metrics.report_disagreement(self._route, rule)
        self.count(answer, counts, ABSENT, is_estimable=False)

    def count_unread_session(self) -> None:
        """Count a WebSocket whose messages can no longer be read."""
        self._metrics.count_missing(self._route, UNREADABLE)

    def count(self, answer: "Answer", counts: StatedCounts | None, reason: str, *, is_estimable: bool) -> None:
        """Count the numbers that an answer states, or their replacements.

        `reason`: why a number may be missing. `is_estimable`: True if missing numbers are estimated.
        """
        # The bound on values is per day, so counters of the day before are dropped.
        if self._day != int(time()) // DAY_SECONDS:
            self._begin_day()
        missing: list[BodyMeter] = []
        if counts is None:
            missing = self._meters
        else:
            is_readable = counts.resolve().unreadable is None
            stated = counts.values.get(MODEL_FACT), False, NO_PROMPT
            for meter in self._meters:
                number = meter.find(counts) if is_readable else counts.find_number(meter.stated)
                if number:
                    key = stated if meter.is_by_model_alone else build_key(meter, counts, is_estimated=False)
                    (meter.counters.get(key) or self._create_counter(meter, key)).add(number)
                    if meter.name in answer.metered:
                        QuotaCharge(answer.metered[meter.name], answer.clock).add(number)
                elif number is None:
                    missing.append(meter)
        if missing and is_estimable:
            self._estimate(answer, counts, reason, missing)

    def _estimate(self, answer: "Answer", counts: StatedCounts | None, reason: str, meters: "list[BodyMeter]") -> None:
        """Count estimates for these meters, whose numbers the answer does not state."""
        missing = reason
        sizes: tuple[RequestSize, AnswerSize] | None = None
        for meter in meters:
            missing = self._find_reason(meter, counts, reason)
            number = 0
            if missing != TYPE and meter.settings.missing != "0":
                sizes = sizes or (read_request(answer.request, self._prompts), answer.measure())
                number = estimate_number(meter.settings, *sizes, has_output=answer.has_output)
            if number:
                key = build_key(meter, counts, is_estimated=True)
                (meter.counters.get(key) or self._create_counter(meter, key)).add(number)
                if meter.name in answer.metered:
                    QuotaCharge(answer.metered[meter.name], answer.clock).add(number)
        self._metrics.count_missing(self._route, missing)

    def begin_stream(self, started: float) -> float:
        """Observe the seconds from a request to the beginning of its stream. Return the monotonic time."""
        now = monotonic()
        self._metrics.observe_first_token(self._route, now - started)
        return now

    def end_stream(self, counts: StatedCounts, began: float) -> None:
        """Observe the seconds of a complete stream for each of its output tokens but the first."""
        tokens = counts.find_number(OUTPUT_TOKENS) if self.usage_format.states(OUTPUT_TOKENS) else None
        if tokens is not None and tokens > 1:
            self._metrics.observe_output_token(self._route, (monotonic() - began) / (tokens - 1))

    def _find_reason(self, meter: BodyMeter, counts: StatedCounts | None, reason: str) -> str:
        """Return why a meter's number is missing. Reports the unreadable value, if there is one."""
        unreadable = None if counts is None else counts.find_unreadable(meter.stated)
        if unreadable is None:
            return reason
        self._metrics.report_unreadable(meter.name, unreadable)
        return UNREADABLE

    def _begin_day(self) -> None:
        """Forget the counters of the previous day. The set of values begins again each day."""
        self._day = int(time()) // DAY_SECONDS
        self._values.begin_day(self._day)
        for meter in self._meters:
            meter.counters.clear()

    def _create_counter(self, meter: BodyMeter, key: "CounterKey") -> Countable:
        """Return the counter of a meter for a model, and for estimates or stated numbers.

        Models that count as `~other` share one entry, because a client may invent names of any length.
        """
        model, is_estimated, (tier, size) = key
        name = None if model is None else shorten_model(model)
        reported = {MODEL: name, ESTIMATED: "yes" if is_estimated else "no", SERVICE_TIER: tier, PROMPT_SIZE: size}
        split: dict[str, str] = {}
        for dimension, each in meter.settings.dimensions.items():
            text = reported.get(dimension)
            if text is not None:
                written = text.encode("latin-1", "replace")
                split[dimension] = self._values.count_value(self._customer, meter.name, dimension, written, each)
        if split.get(SERVICE_TIER) == OTHER:
            tier = OTHER
        own = OTHER if split.get(MODEL) == OTHER else name, is_estimated, (tier, size)
        counter = meter.counters.get(own)
        if counter is None:
            try:
                counter = self._counter(meter.name, dimensions.format_dimensions(split)) if split else meter.counter
            except RejectedError:
                return meter.counter  # Its table is busy and the answer has passed: it counts without dimensions.
            meter.counters[own] = counter
        return counter


def build_key(meter: BodyMeter, counts: StatedCounts | None, *, is_estimated: bool) -> "CounterKey":
    """Return the key of the counter of a meter for an answer."""
    model = counts.values.get(MODEL_FACT) if counts is not None and meter.is_by_model else None
    return model, is_estimated, get_prompt_split(counts) if meter.is_by_prompt else NO_PROMPT


def get_prompt_split(counts: StatedCounts | None) -> PromptSplit:
    """Return the service tier of an answer and the size of its prompt; None for each that it does not state."""
    if counts is None:
        return NO_PROMPT
    tier, tokens = counts.find_text(TIER), counts.find_number("input_tokens")
    if tier is not None and len(tier) > MODEL_BYTES_MAX:
        tier = OTHER
    if tokens is None:
        return tier, None
    return tier, next((size for most, size in PROMPT_SIZES if tokens <= most), "more")


def shorten_model(model: Value) -> str:
    """Return the counted name of a model: a long name becomes its beginning and a hash of the whole."""
    written = model if isinstance(model, bytes) else str(model).encode(errors="replace")
    if len(written) > MODEL_BYTES_MAX:
        digest = blake2b(written, digest_size=MODEL_HASH_BYTES).hexdigest().encode()
        written = written[: MODEL_BYTES_MAX - len(digest) - 1] + b"~" + digest
    return written.decode("latin-1")
