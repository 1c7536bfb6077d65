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
from edgeproxy.edge.body_usage.dialects import BACKGROUND, FILE, KIND, TIER
from edgeproxy.edge.body_usage.dialects import ID as ANSWER_ID
from edgeproxy.edge.body_usage.formats import format_path, get_usage_format
from edgeproxy.edge.body_usage.operations import (
    ASYNCHRONOUS,
    NEVER_ASYNCHRONOUS,
    Work,
    is_failure,
    is_pending,
)
from edgeproxy.edge.body_usage.statement import StatedCounts
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.answer_usage import (
    ABSENT,
    DIALECT,
    TYPE,
    UNREADABLE,
    Answer,
    BodyUsage,
    MeteredExchange,
    SessionUsage,
)
from edgeproxy.edge.proxy.metering import Clock, Countable, Metered, QuotaCharge
from edgeproxy.edge.proxy.split_metering import DAY_SECONDS, DimensionValues

if TYPE_CHECKING:
    from edgeproxy.config.edge.response_usage import ResponseUsage
    from edgeproxy.config.meters import Meter
    from edgeproxy.edge.counters.counted_ids import CountedIds

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
