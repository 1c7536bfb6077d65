"""Meters beside requests: the bytes of bodies and tunnels, and values that upstreams report.

The status of an answer decides which meters count. A route binding without such meters has no Metering, and its
requests pay nothing for these.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from edgeproxy.config.meters import MEASURES, Measure
from edgeproxy.edge.counters.index import RowUnavailableError
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.transport.grpc_status import is_grpc_answer

if TYPE_CHECKING:
    from edgeproxy.config.meters import Meter
    from edgeproxy.edge.limits.quota import Quota
    from edgeproxy.edge.limits.unit_limit import UnitLimit

CRLF = b"\r\n"

REPORTED_MAX = 10**12
"""The largest value that is taken from an upstream. A service that errs by more must not overflow a counter: at this
bound a batch overflows after nine million such answers, and a word after as many again.
"""

DIGITS_MAX = len(str(REPORTED_MAX))


def is_billed(when: str, status: int) -> bool:
    """Return whether a meter counts an upstream's answer of this status.

    `admitted` counts before there is an answer.
    """
    if when == "answered":
        return status < 500
    return when == "success" and 200 <= status < 400


class Countable(Protocol):
    """An object that can be added to."""

    def add(self, n: int = 1) -> None:
        """Count `n` (≥ 0) more."""


class CounterGroup(tuple[Countable, ...]):
    """Several counters that count alike, or none."""

    __slots__ = ()

    def add(self, n: int = 1) -> None:
        """Count `n` (≥ 0) more in each."""
        for counter in self:
            counter.add(n)


def group_counters(counters: Sequence[Countable]) -> Countable:
    """Return one counter for all of these: a lone one itself, as most customers have one meter, and no tuple for it."""
    return counters[0] if len(counters) == 1 else CounterGroup(counters)


@dataclass(slots=True)
class MeterCounters:
    """Meters, and the counter of each."""

    meters: tuple[str, ...]
    counters: tuple[Countable, ...]


@dataclass(slots=True)
class StatusMeters:
    """The meters for answers of one status.

    `admitted` meters of bytes_in are separate, because they do not wait for a status.
    """

    inward: MeterCounters
    outward: MeterCounters
    heads: "tuple[Reported, ...]"
    trailers: "tuple[Reported, ...]"
    messages_in: MeterCounters
    messages_out: MeterCounters
    """The meters of gRPC messages, by direction. A meter of both directions is in both."""
    requests: MeterCounters
    """The meters of requests, if these are split (split.py)."""


Reported = tuple[re.Pattern[bytes], bool, MeterCounters]
"""A field (`compile_field`), True if only the edge may see it, and the meters of the values in it."""


class Clock(Protocol):
    """The relation of edge time to monotonic time."""

    @property
    def offset(self) -> float:
        """Seconds to add to monotonic time."""


Metered = Mapping[str, "tuple[Quota | UnitLimit, ...]"]
"""The customer's quotas and limits that a meter charges, by the name of the meter."""


class RelayedExchange(Protocol):
    """An exchange whose answer is relayed piece by piece."""

    bytes_in: int
    request_counters: "tuple[Countable, ...]"
    response_counters: "tuple[Countable, ...]"
    metering: "Metering"

    @property
    def runtime(self) -> Clock:
        """The clock."""

    def get_metered_quotas(self) -> Metered:
        """Return the customer's quotas that the meters charge."""

    def count_messages(self, inward: "tuple[Countable, ...]", outward: "tuple[Countable, ...]") -> None:
        """Count the messages of a gRPC call, by direction."""


class Metering(dict[int, StatusMeters]):
    """A route binding's meters beside requests, by status; created when a status first occurs."""

    def __init__(
        self,
        meters: "dict[str, Meter]",
        counter: Callable[[str], Countable],
        unreadable: Callable[[str, bytes], None],
    ) -> None:
        """Create the meters of a binding.

        `meters` are the meters beside requests. `counter` creates the counter of a meter. `unreadable` is called with a
        meter and the upstream's value for it if that is not a whole number.
        """
        super().__init__()
        self.report_unreadable = unreadable
        self._counters = {name: (meter, counter(name)) for name, meter in meters.items()}
        self.admitted = self._select(lambda measure: measure.bytes_in, lambda when: when == "admitted")
        """The counters of a request's body before there is an answer."""
        self.counts_messages = any(MEASURES[meter.count].is_of_messages for meter in meters.values())
        """True if messages of gRPC calls are counted."""
        shown = {meter.header.lower() for meter in meters.values() if meter.header and meter.pass_}
        fields = {meter.header.lower(): None for meter in meters.values() if meter.header}
        self.fields = {name: (compile_field(name), name not in shown) for name in fields}
        """The pattern of each field with a reported value, by its name, and True if only the edge may see the field."""

    def __missing__(self, status: int) -> StatusMeters:
        def counts(when: str) -> bool:
            return when == "admitted" or is_billed(when, status)

        self[status] = due = StatusMeters(
            self._select(lambda measure: measure.bytes_in, lambda when: when != "admitted" and counts(when)),
            self._select(lambda measure: measure.bytes_out, counts),
            self._select_reported(lambda measure: measure.in_head, counts),
            self._select_reported(lambda measure: measure.in_trailers, counts),
            self._select(lambda measure: measure.messages_in, counts),
            self._select(lambda measure: measure.messages_out, counts),
            self._select(lambda measure: measure.per_request is not None, counts),
        )
        return due

    def read_whole(self, status: int, head: bytes, inward: int, outward: int, metered: Metered, clock: Clock) -> bytes:
        """Count a complete answer to a complete request: their bodies have `inward` and `outward` bytes.

        Return the head for the client.
        """
        due = self[status]
        up, down = due.inward.counters, due.outward.counters
        # Without a quota no new tuples are needed.
        if metered:
            up, down = list_counters(due.inward, metered, clock), list_counters(due.outward, metered, clock)
        for counter in down:
            counter.add(outward)
        for counter in up:
            counter.add(inward)
        return _count_reported(self, due.heads, head, metered, clock) if due.heads else head

    def read_head(self, exchange: "RelayedExchange", status: int, head: bytes) -> bytes:
        """Count when the head of a relayed answer has come: the request's bytes so far, and the values the upstream
        reports. Return the head for the client.

        Later bytes are added to the exchange's `request_counters` and `response_counters`.
        """
        due, metered, clock = self[status], exchange.get_metered_quotas(), exchange.runtime
        exchange.metering = self
        exchange.response_counters = list_counters(due.outward, metered, clock)
        inward = list_counters(due.inward, metered, clock)
        for counter in inward:
            counter.add(exchange.bytes_in)
        # `admitted` meters are in it already, and counted these bytes.
        exchange.request_counters += inward
        if self.counts_messages and is_grpc_answer(head):
            sent = list_counters(due.messages_in, metered, clock)
            exchange.count_messages(sent, list_counters(due.messages_out, metered, clock))
        return _count_reported(self, due.heads, head, metered, clock)

    def read_trailers(self, status: int, trailers: list[bytes], metered: Metered, clock: Clock) -> list[bytes]:
        """Count the values that an answer's trailer lines report.

        Lines have no CRLF. Return the lines for the client.
        """
        if not self.fields or not trailers:
            return trailers
        # Each line behind a CRLF, as `compile_field` needs it.
        lines = b"".join([CRLF + line for line in trailers])
        return _count_reported(self, self[status].trailers, lines, metered, clock).split(CRLF)[1:]

    def remove_hidden_fields(self, lines: bytes) -> bytes:
        """Return lines of a head without the ones for the edge alone."""
        for field, hidden in self.fields.values():
            if hidden:
                lines = b"".join(field.split(lines)[::2])
        return lines

    def _select(
        self, is_measured: Callable[[Measure], bool], counts: Callable[[str], bool], header: str = ""
    ) -> MeterCounters:
        chosen = {
            name: counter
            for name, (meter, counter) in self._counters.items()
            if is_measured(MEASURES[meter.count]) and counts(meter.when) and (meter.header or "").lower() == header
        }
        return MeterCounters(tuple(chosen), tuple(chosen.values()))

    def _select_reported(
        self, is_measured: Callable[[Measure], bool], counts: Callable[[str], bool]
    ) -> tuple[Reported, ...]:
        # All fields, even without a due meter, because a hidden field is removed wherever it occurs.
        return tuple(
            [(field, hidden, self._select(is_measured, counts, name)) for name, (field, hidden) in self.fields.items()]
        )


class CostCounter:
    """The counter of a meter of costs. It adds the cost of the route's requests for each of them."""

    __slots__ = ("_cost", "_counter")

    def __init__(self, counter: Countable, cost: int) -> None:
        self._counter, self._cost = counter, cost

    def add(self, n: int = 1) -> None:
        """Count `n` more requests."""
        self._counter.add(n * self._cost)


class CappedCounter:
    """The counter of answers' costs if a maximum per request is set.

    It counts each cost in full, and the excess over the maximum separately.
    """

    __slots__ = ("_above", "_counter", "_most")

    def __init__(self, counter: Countable, most: int, above: Callable[[], Countable]) -> None:
        """`above` returns the counter of the excess. Few answers exceed, so the first one requests its row."""
        self._counter, self._most, self._above = counter, most, above

    def add(self, n: int = 1) -> None:
        """Count an answer that has cost `n`."""
        self._counter.add(n)
        if n > self._most:
            try:
                self._above().add(n - self._most)
            except (RowUnavailableError, RejectedError):
                pass  # The answer's cost is counted already, so no answer is refused because of this row.


class QuotaCharge:
    """Quotas that are charged with a meter's counts."""

    __slots__ = ("_clock", "_quotas")

    def __init__(self, quotas: "tuple[Quota | UnitLimit, ...]", clock: Clock) -> None:
        self._quotas, self._clock = quotas, clock

    def add(self, n: int = 1) -> None:
        """Charge `n` more, regardless of the rest."""
        now = monotonic() + self._clock.offset
        for quota in self._quotas:
            quota.count(n, now)


def list_counters(counted: MeterCounters, metered: Metered, clock: Clock) -> tuple[Countable, ...]:
    """Return the counters of these meters, and the quotas that they charge."""
    if not metered:
        return counted.counters
    charged = [metered[meter] for meter in counted.meters if meter in metered]
    return (*counted.counters, *[QuotaCharge(quotas, clock) for quotas in charged])


def _count_reported(
    metering: Metering, due: tuple[Reported, ...], lines: bytes, metered: Metered, clock: Clock
) -> bytes:
    """Count the values reported in these lines that are due.

    Return the lines without the ones for the edge alone.
    """
    for field, hidden, counted in due:
        parts = field.split(lines)
        if len(parts) > 1:
            values = parts[1::2]
            number = parse_whole_number(values)
            if number is not None:
                for counter in list_counters(counted, metered, clock):
                    counter.add(number)
            else:
                for meter in counted.meters:
                    metering.report_unreadable(meter, b",".join(values).strip())
            if hidden:
                lines = b"".join(parts[::2])
    return lines


def compile_field(name: str) -> re.Pattern[bytes]:
    """Compile the pattern that splits lines at the lines of this field: text before, a value, text between, a value,
    and so on.

    Each line must follow a CRLF.
    """
    return re.compile(rb"(?i)\r\n%b:([^\r]*)" % re.escape(name.lower().encode()))


def parse_whole_number(values: list[bytes]) -> int | None:
    """Return the number in a field whose lines have these values; None if it is not a whole number from 0 to
    REPORTED_MAX.

    Several lines form a list (RFC 9110 section 5.3), and a list is not a number.
    """
    value = b",".join(values).strip()
    if not value.isdigit():
        return None
    if len(value) > DIGITS_MAX:
        value = value.lstrip(b"0") or b"0"
    number = int(value) if len(value) <= DIGITS_MAX else REPORTED_MAX + 1
    return number if number <= REPORTED_MAX else None
