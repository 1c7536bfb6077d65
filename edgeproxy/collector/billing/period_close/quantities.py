"""Billed quantities: the usage of each meter of a plan in a segment, computed from the ledger alone.

A meter is either a sum or a gauge. A sum counts in the segment of its use. A gauge (a peak, an average, a last or a
unique value) belongs to the whole billing period.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.collector.billing.meter_export.metered_segments import is_sum
from edgeproxy.collector.billing.rating.periods import period_at
from edgeproxy.collector.billing.rating.rater import OTHER, Segment, Span, UsageKey
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.ledger import queries, readings
from edgeproxy.collector.ledger.aggregates import ReadAs
from edgeproxy.collector.ledger.quantity import fetch_quantities as ledger_quantities
from edgeproxy.collector.ledger.queries import InvalidQueryError, LedgerQuery
from edgeproxy.config.collector.catalog import MeterPrice, Plan
from edgeproxy.config.meters import AggregateName, Meter

QUANTITY_MAX = 10**15 - 1
"""The largest absolute quantity that can be billed: 15 digits, Stripe's maximum."""


class QuantityTerms(NamedTuple):
    """The terms besides the plan that a quantity depends on."""

    meters: Mapping[str, Meter]
    """The configured meters. Meters not listed are sums."""
    anchor: int | None
    """Months are counted from this Unix second; None means from the 1st."""


class GaugeSpan(NamedTuple):
    """The span of the gauges' readings."""

    subscribed: Span
    """The part of the period with a subscription."""
    period: Span


class QuantityTooLargeError(Exception):
    """A quantity exceeds QUANTITY_MAX, so it cannot be billed."""


class UsageNotStoredError(Exception):
    """The ledger no longer stores the usage of that time."""


async def fetch_quantities(
    connection: AsyncConnection,
    customer: str,
    segments: Sequence[Segment],
    segment: Segment,
    terms: QuantityTerms,
    *,
    leaves_out: bool = False,
) -> dict[UsageKey, int]:
    """Return the billed usage of a customer, by name, in a segment. `segments` are all of the subscription.

    Usage in times without charging is left out; a level's peak, average and end are taken from the other times. An
    unused meter has 0. The connection must read one snapshot. Raises UsageNotStoredError, and QuantityTooLargeError
    unless `leaves_out` is set.
    """
    quantities: dict[UsageKey, int] = {}
    waivers = await charging.list_waived_within(connection, segment.span)
    # Waived usage is subtracted from the whole: it takes one query for the segment and one for each waiver.
    summed = Counter(await fetch_sums(connection, customer, segment.span))
    for span in waivers:
        summed.subtract(await fetch_sums(connection, customer, span))
    gauge_span = _find_gauge_span(segments, segment, terms.anchor)
    for meter, price in segment.plan.meters.items():
        by = None if price.by is None else price.by.dimension
        if not is_sum(terms.meters, meter):
            values = {}  # A later segment of the period has the values.
            if gauge_span is not None:
                (end,) = ends = [gauge_span.subscribed.end]
                gauge = terms.meters[meter].aggregate
                start, period = gauge_span.subscribed.start, gauge_span.period
                values = (await _fetch_gauge(connection, customer, meter, start, ends, period, gauge, by))[end]
        elif by is None:
            values = {OTHER: summed[meter]}
        else:
            values = Counter(await _fetch_quantity(connection, customer, meter, segment.span, "sum", by))
            for span in waivers:
                values.subtract(await _fetch_quantity(connection, customer, meter, span, "sum", by))
        quantities |= _check_quantities(segment.span, meter, values, leaves_out=leaves_out)
    return quantities


def select_quantities(totals: Mapping[UsageKey, int], segment: Segment) -> dict[UsageKey, int]:
    """Return the billed usage of a segment from the usage of several, as `fetch_quantities` does.

    Raises QuantityTooLargeError.
    """
    quantities: dict[UsageKey, int] = {}
    for meter in segment.plan.meters:
        of_meter = {
            key.value: quantity for key, quantity in totals.items() if (key.segment, key.meter) == (segment.span, meter)
        }
        quantities |= _check_quantities(segment.span, meter, of_meter)
    return quantities


def _check_quantities(
    segment: Span, meter: str, values: Mapping[str, int], *, leaves_out: bool = False
) -> dict[UsageKey, int]:
    """Return the quantities of a meter with their keys. Raises QuantityTooLargeError unless `leaves_out` is set."""
    values = {OTHER: 0, **values}
    largest = max(values.values(), key=abs)
    if abs(largest) <= QUANTITY_MAX:
        return {UsageKey(segment, meter, value): quantity for value, quantity in values.items()}
    if leaves_out:
        return {}
    raise QuantityTooLargeError(f"{largest} of {meter} were counted, and {QUANTITY_MAX} can be billed")


async def fetch_running_gauges(
    connection: AsyncConnection, customer: str, segments: Sequence[Segment], untils: Sequence[int], terms: QuantityTerms
) -> dict[int, dict[UsageKey, int]]:
    """Return the quantities of gauges as of each of these Unix seconds, which are in order.

    `segments` are all of a period without its trial. The last one that has begun by then rates the gauges. Each gauge
    is read once. Raises QuantityTooLargeError and UsageNotStoredError.
    """
    running: dict[int, dict[UsageKey, int]] = {until: {} for until in untils}
    rated: dict[tuple[str, str | None], dict[int, tuple[Segment, int]]] = defaultdict(dict)
    for until in untils:
        begun = [one for one in segments if one.span.start < until]
        if not begun:
            continue
        last = begun[-1]
        for meter, price in last.plan.meters.items():
            if not is_sum(terms.meters, meter):
                by = None if price.by is None else price.by.dimension
                rated[meter, by][until] = last, min(last.span.end, until)
    for (meter, by), lasts in rated.items():
        start, aggregate = segments[0].span.start, terms.meters[meter].aggregate
        ends = sorted({end for _, end in lasts.values()})
        period = period_at(start, terms.anchor)
        values = await _fetch_gauge(connection, customer, meter, start, ends, period, aggregate, by)
        for until, (last, end) in lasts.items():
            running[until] |= _check_quantities(last.span, meter, values[end])
    return running


async def fetch_daily_sums(
    connection: AsyncConnection, customer: str, segment: Segment, terms: QuantityTerms
) -> dict[int, Counter[UsageKey]]:
    """Return the billed usage of a segment's sums by day: the Unix second at the start of each UTC day with usage.

    The quantities of all days add up to those of `fetch_quantities`. Raises UsageNotStoredError.
    """
    days: dict[int, Counter[UsageKey]] = defaultdict(Counter)
    prices = {meter: price for meter, price in segment.plan.meters.items() if is_sum(terms.meters, meter)}
    split = {meter: price.by.dimension for meter, price in prices.items() if price.by is not None}
    waivers = await charging.list_waived_within(connection, segment.span)
    for sign, span in ((1, segment.span), *((-1, waiver) for waiver in waivers)):
        plain = LedgerQuery(customer, None, *span, ("meter", "day"))
        by_value = [LedgerQuery(customer, meter, *span, (by, "day")) for meter, by in split.items()]
        try:
            for query in (plain, *by_value):
                async for rows in queries.stream_usage(connection, query):
                    for row in rows:
                        meter = query.meter or row["meter"]
                        if meter not in prices or (meter in split) != (query.meter is not None):
                            continue
                        value = row[split[meter]] if meter in split else OTHER
                        key = UsageKey(segment.span, meter, str(value))
                        days[queries.parse_time("day", row["day"])][key] += sign * row["value"]
        except InvalidQueryError as error:
            raise UsageNotStoredError(str(error)) from None
    return days


async def fetch_waived(connection: AsyncConnection, customer: str, span: Span) -> dict[str, int]:
    """Return a customer's usage of each meter in times without charging, by customer name.

    Raises UsageNotStoredError.
    """
    waived: Counter[str] = Counter()
    for part in await charging.list_waived_within(connection, span):
        waived.update(await fetch_sums(connection, customer, part))
    return dict(waived)


def _find_gauge_span(segments: Sequence[Segment], segment: Segment, anchor: int | None) -> GaugeSpan | None:
    """Return the span of gauges for the last segment of a period, whose plan rates them; None for other segments."""
    period = period_at(segment.span.start, anchor)
    of_period = [other for other in segments if period.start <= other.span.start < period.end]
    # A trial has gauges of its own, because nothing of it is charged.
    spans = [other.span for other in of_period if other.is_trial == segment.is_trial]
    if spans[-1].start != segment.span.start:
        return None
    return GaugeSpan(Span(spans[0].start, segment.span.end), period)


async def fetch_sums(connection: AsyncConnection, customer: str, span: Span) -> dict[str, int]:
    """Return the sum of a customer's usage of each meter. Raises UsageNotStoredError."""
    try:
        result = await queries.fetch_usage(connection, LedgerQuery(customer, None, span.start, span.end, ("meter",)))
    except InvalidQueryError as error:
        raise UsageNotStoredError(str(error)) from None
    return {row["meter"]: row["value"] for row in result["rows"]}


async def _fetch_gauge(
    connection: AsyncConnection,
    customer: str,
    meter: str,
    start: int,
    ends: Sequence[int],
    period: Span,
    aggregate: AggregateName,
    by: str | None,
) -> dict[int, dict[str, int]]:
    """Return a gauge's value from a second of a period until each of the `ends`, in the times when it was charged.

    An average is over all seconds of the period, rounded once.
    """
    ends = [end for end in ends if end > start]
    assert aggregate != "sum"
    # An average is the sum of level times seconds. It is divided once below, by the seconds of the whole period.
    read_as: Literal["max", "last", "held", "unique"] = "held" if aggregate == "average" else aggregate
    values: dict[int, dict[str, int]] = defaultdict(dict)
    if not ends:
        return values
    waivers = await charging.list_waived_within(connection, Span(start, ends[-1]))
    names = () if by is None else (by,)
    try:
        running = await readings.fetch_running_quantities(
            connection, customer, meter, start, ends, read_as, names, waivers
        )
    except InvalidQueryError as error:
        raise UsageNotStoredError(str(error)) from None
    share = period.end - period.start if aggregate == "average" else 1
    for end, groups in running.items():
        values[end] = {group[0] if group else OTHER: value // share for group, value in groups.items()}
    return values


async def _fetch_quantity(
    connection: AsyncConnection,
    customer: str,
    meter: str,
    span: Span,
    aggregate: ReadAs,
    by: str | None,
) -> dict[str, int]:
    try:
        return await ledger_quantities(connection, customer, meter, *span, aggregate=aggregate, by=by)
    except InvalidQueryError as error:
        raise UsageNotStoredError(str(error)) from None


class MeterUsageResponse(TypedDict):
    """The usage of a meter in this period, and the units that the plan includes."""

    meter: str
    """The name of the meter."""
    quantity: int
    """The units used in this period while charging was on. Only these units count."""
    waived: int
    """The units used in this period while charging was stopped. They are never charged."""
    included: int | None
    """The units that the plan includes; null if it includes any number."""
    percentage: float | None
    """The share of the included units that is used, in percent; null if that has no meaning."""
    is_over: bool
    """True if usage exceeds the included units."""
    overage: int
    """The units above the included ones."""
    cap: Literal["soft", "hard"] | None
    """`soft` allows usage above the included units, `hard` refuses it; null if there is no cap."""
    is_billed: bool
    """True if the plan has a price for this meter."""


def plan_usage_to_response(
    plan: Plan, used: Mapping[UsageKey, int], waived: Mapping[str, int] | None = None
) -> list[MeterUsageResponse]:
    """Return the usage of each meter of a plan with its included and waived units, in the form of the API."""
    quantities = dict.fromkeys(plan.meters, 0)
    for key, quantity in used.items():
        quantities[key.meter] += quantity
    return [
        _usage_to_response(meter, plan.meters[meter], quantity, (waived or {}).get(meter, 0))
        for meter, quantity in quantities.items()
    ]


def _usage_to_response(meter: str, price: MeterPrice, quantity: int, waived: int) -> MeterUsageResponse:
    included = price.included if not price.tiers else 0  # None includes any amount.
    overage = 0 if included is None else max(0, quantity - included)
    return {
        "meter": meter,
        "quantity": quantity,
        "included": included,
        "percentage": round(100 * quantity / included, 2) if included else None,  # A percentage of zero has no meaning.
        "is_over": overage > 0,
        "overage": overage,
        "cap": price.cap,
        "is_billed": price.price is not None or bool(price.tiers),
        "waived": waived,
    }
