"""What is counted for billing beside requests: the bytes of bodies and tunnels, and values that upstreams report.

What is counted is decided by an answer's status. A route binding without such meters has no Metering, and its requests
pay nothing for these.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edgeproxy.config.models import Meter
    from edgeproxy.counters.meters import Counter
    from edgeproxy.limits.quota import Quota
    from edgeproxy.proxy.exchange import Exchange
    from edgeproxy.proxy.worker import Worker

CRLF = b"\r\n"

LARGEST = 10**12
"""The largest value that is taken from an upstream. A service that errs by more must not fill up a counter: it takes
nine million such answers until a batch, and as many again until a word, cannot hold them."""

DIGITS_MOST = len(str(LARGEST))


class Count(Protocol):
    """What can be added to."""

    def add(self, n: int = 1) -> None:
        """Count `n` (≥ 0) more."""


@dataclass(slots=True)
class Counted:
    """Meters, and the counter of each."""

    meters: tuple[str, ...]
    counters: tuple[Count, ...]


@dataclass(slots=True)
class Due:
    """What an answer of some status is counted by. Meters of `admitted` bytes_in are apart: they wait for none."""

    inward: Counted
    outward: Counted
    heads: "tuple[Reported, ...]"
    trailers: "tuple[Reported, ...]"


Reported = tuple[re.Pattern[bytes], bool, Counted]
"""A field (`field_of`), whether it is for the edge alone, and the meters that are due for what is said in it."""


class Metering(dict[int, Due]):
    """A route binding's meters beside requests: what is due by an answer's status, made when that is first seen."""

    def __init__(
        self,
        meters: "dict[str, Meter]",
        counter: Callable[[str], "Counter"],
        is_billed: Callable[[str, int], bool],
    ) -> None:
        """`meters`: without those of requests. `counter`: of each. `is_billed`: its `when` counts a status."""
        super().__init__()
        self._is_billed = is_billed
        self._counters = {name: (meter, counter(name)) for name, meter in meters.items()}
        self.admitted = self._chosen("bytes_in", lambda when: when == "admitted")
        """What a request's body is counted by before there is an answer."""
        shown = {meter.header.lower() for meter in meters.values() if meter.header and meter.pass_}
        fields = {meter.header.lower(): None for meter in meters.values() if meter.header}
        self.fields = {name: (field_of(name), name not in shown) for name in fields}
        """Each field in which something is reported, by its name, and whether it is for the edge alone."""

    def __missing__(self, status: int) -> Due:
        def counts(when: str) -> bool:
            return when == "admitted" or self._is_billed(when, status)

        self[status] = due = Due(
            self._chosen("bytes_in", lambda when: when != "admitted" and counts(when)),
            self._chosen("bytes_out", counts),
            self._reported("response_header", counts),
            self._reported("response_trailer", counts),
        )
        return due

    def hide(self, lines: bytes) -> bytes:
        """Lines of a head without those for the edge alone."""
        for field, hidden in self.fields.values():
            if hidden:
                lines = b"".join(field.split(lines)[::2])
        return lines

    def _chosen(self, what: str, counts: Callable[[str], bool], header: str = "") -> Counted:
        chosen = {
            name: counter
            for name, (meter, counter) in self._counters.items()
            if meter.count == what and counts(meter.when) and (meter.header or "").lower() == header
        }
        return Counted(tuple(chosen), tuple(chosen.values()))

    def _reported(self, what: str, counts: Callable[[str], bool]) -> tuple[Reported, ...]:
        # Of all fields, be anything due or not: what is hidden is hidden wherever it stands.
        return tuple(
            [(field, hidden, self._chosen(what, counts, name)) for name, (field, hidden) in self.fields.items()]
        )


class Costs:
    """The counter of a meter of costs: what a route's requests count for is added for each of them."""

    __slots__ = ("_cost", "_counter")

    def __init__(self, counter: "Counter", cost: int) -> None:
        self._counter, self._cost = counter, cost

    def add(self, n: int = 1) -> None:
        """Count `n` more requests."""
        self._counter.add(n * self._cost)


class Charge:
    """Quotas that are charged what a meter counts, as it is counted."""

    __slots__ = ("_quotas", "_worker")

    def __init__(self, quotas: "tuple[Quota, ...]", worker: "Worker") -> None:
        self._quotas, self._worker = quotas, worker

    def add(self, n: int = 1) -> None:
        """Charge `n` more, whatever is left."""
        now = monotonic() + self._worker.offset
        for quota in self._quotas:
            quota.count(n, now)


def read_whole(exchange: "Exchange", measures: Metering, status: int, head: bytes, size: int) -> bytes:
    """Count an answer of which all is there, as is its request, with a body of `size` bytes; returns as `read_head`."""
    due = measures[status]
    outward, inward = due.outward.counters, due.inward.counters
    if exchange.terms is not None and exchange.terms.metered:
        outward, inward = adding(exchange, due.outward), adding(exchange, due.inward)
    for counter in outward:
        counter.add(size)
    for counter in inward:
        counter.add(exchange.bytes_in)
    return _read(exchange, due.heads, head) if due.heads else head


def read_head(exchange: "Exchange", measures: Metering, status: int, head: bytes) -> bytes:
    """Count what is known with an answer's head: the request's bytes so far, and what the upstream reports in it.

    What passes from here on is added to the exchange's `inward` and `outward`, piece by piece. Returns the head as the
    client is to get it.
    """
    due = measures[status]
    exchange.outward = adding(exchange, due.outward)
    inward = adding(exchange, due.inward)
    for counter in inward:
        counter.add(exchange.bytes_in)
    exchange.inward += inward
    return _read(exchange, due.heads, head)


def read_trailers(exchange: "Exchange", trailers: list[bytes]) -> list[bytes]:
    """Count what an answer's trailer lines report, each without CRLF; returns those that the client is to get."""
    measures = exchange.binding.measures
    if measures is None or not measures.fields or not trailers:
        return trailers
    lines = b"".join([CRLF + line for line in trailers])
    return _read(exchange, measures[exchange.status].trailers, lines).split(CRLF)[1:]


def adding(exchange: "Exchange", counted: Counted) -> tuple[Count, ...]:
    """What these meters add to: their counters, and the quotas of who asks."""
    terms = exchange.terms
    if terms is None or not terms.metered:
        return counted.counters
    charged = [terms.metered[meter] for meter in counted.meters if meter in terms.metered]
    return (*counted.counters, *[Charge(quotas, exchange.client.worker) for quotas in charged])


def _read(exchange: "Exchange", due: tuple[Reported, ...], lines: bytes) -> bytes:
    """Count what is reported in these lines, as far as it is due; returns them without what is for the edge alone."""
    for field, hidden, counted in due:
        parts = field.split(lines)
        if len(parts) > 1:
            _count(exchange, counted, parts[1::2])
            if hidden:
                lines = b"".join(parts[::2])
    return lines


def _count(exchange: "Exchange", counted: Counted, values: list[bytes]) -> None:
    number = whole_number(values)
    if number is None:
        for meter in counted.meters:
            exchange.client.worker.counts.unreadable(meter, b",".join(values).strip())
        return
    for counter in adding(exchange, counted):
        counter.add(number)


def field_of(name: str) -> re.Pattern[bytes]:
    """Splits lines at those of the field of this name: the lines before, a value, the lines behind it, and so on.

    Each line that is looked at follows a CRLF.
    """
    return re.compile(rb"(?i)\r\n%b:([^\r]*)" % re.escape(name.lower().encode()))


def whole_number(values: list[bytes]) -> int | None:
    """What a field says whose lines have these values; None where that is no whole number from 0 to LARGEST.

    Several lines are a list (RFC 9110 section 5.3), and that is none.
    """
    value = b",".join(values).strip()
    if not value.isdigit():
        return None
    if len(value) > DIGITS_MOST:
        value = value.lstrip(b"0") or b"0"
    number = int(value) if len(value) <= DIGITS_MOST else LARGEST + 1
    return number if number <= LARGEST else None
