"""Billed quantities: the usage of each meter of a plan in a segment, computed from the ledger alone.

A meter is either a sum or a gauge. A sum counts in the segment of its use. A gauge (a peak, an average, a last or a
unique value) belongs to the whole billing period.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.collector.billing.meter_export.metered_segments import is_sum
from edgeproxy.collector.billing.rating.periods import period_at
from edgeproxy.collector.billing.rating.rater import OTHER, Segment, Span, UsageKey
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.database.read_once import fetch_once
from edgeproxy.collector.ledger import queries, readings
from edgeproxy.collector.ledger.queries import InvalidQueryError, LedgerQuery, UsageRow
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
    """Return the billed usage of one segment, as `fetch_segment_quantities` does.

    Raises UsageNotStoredError, and QuantityTooLargeError unless `leaves_out` is set.
    """
    left_out = [segment.span] if leaves_out else []
    quantities = await fetch_segment_quantities(connection, customer, segments, [segment], terms, left_out=left_out)
    if segment.span not in quantities:
        raise UsageNotStoredError("the usage is not stored any more")
    return quantities[segment.span]


async def fetch_segment_quantities(
    connection: AsyncConnection,
    customer: str,
    segments: Sequence[Segment],
    rated: Sequence[Segment],
    terms: QuantityTerms,
    *,
    left_out: Collection[Span] = (),
) -> dict[Span, dict[UsageKey, int]]:
    """Return the billed usage of a customer, by name, in each of the `rated` segments, by span.

    `segments` are all of the subscription. Sums take as many statements for all segments as for one. Usage in times
    without charging is left out; a level's peak, average and end are taken from the other times. An unused meter has 0.
    The connection must read one snapshot. Raises UsageNotStoredError and QuantityTooLargeError; for segments with the
    spans `left_out`, the segment or the quantity is missing instead.
    """
    has_gauges = any(not is_sum(terms.meters, meter) for segment in rated for meter in segment.plan.meters)
    spans = _find_gauge_spans(segments, terms.anchor) if has_gauges else {}
    gauge_spans = {segment.span: spans[segment.span.start] for segment in rated if segment.span.start in spans}
    dimensions = [
        (segment.span, *((meter, get_dimension(price)) for meter, price in segment.plan.meters.items()))
        for segment in rated
    ]
    left_out = {segment.span for segment in rated}.intersection(left_out)
    key = (customer, *dimensions), frozenset(gauge_spans.items()), frozenset(left_out)
    return await fetch_once(
        (_read_segment_quantities, *key),
        lambda: _read_segment_quantities(connection, customer, rated, gauge_spans, terms, left_out),
    )


async def _read_segment_quantities(
    connection: AsyncConnection,
    customer: str,
    rated: Sequence[Segment],
    gauge_spans: Mapping[Span, GaugeSpan],
    terms: QuantityTerms,
    left_out: Collection[Span],
) -> dict[Span, dict[UsageKey, int]]:
    """Read what `fetch_segment_quantities` returns. `gauge_spans` has the segments that rate their period's gauges."""
    charged = await charging.list_charged_within(connection, [segment.span for segment in rated])
    unstored = await queries.find_unstored(connection, (part for parts in charged.values() for part in parts))
    missing = {span: unstored[part] for span, parts in charged.items() for part in parts if part in unstored}
    if error := next((error for span, error in missing.items() if span not in left_out), None):
        raise UsageNotStoredError(str(error)) from None
    rated = [segment for segment in rated if segment.span not in missing]
    summed: dict[tuple[Span, str], dict[str, int]] = defaultdict(dict)
    for key, row in await _fetch_sum_rows(connection, customer, rated, charged, terms):
        values = summed[key.segment, key.meter]
        values[key.value] = values.get(key.value, 0) + row["value"]
    quantities: dict[Span, dict[UsageKey, int]] = {}
    for segment in rated:
        leaves_out = segment.span in left_out
        used: dict[UsageKey, int] = {}
        try:
            for meter, price in segment.plan.meters.items():
                values = summed.get((segment.span, meter), {})
                if not is_sum(terms.meters, meter):
                    span = gauge_spans.get(segment.span)
                    values = {}  # A later segment of the period has the values.
                    if span is not None:
                        span = span._replace(subscribed=Span(span.subscribed.start, segment.span.end))
                        values = await _fetch_whole_gauge(connection, customer, meter, span, price, terms)
                used |= _check_quantities(segment.span, meter, values, leaves_out=leaves_out)
        except UsageNotStoredError:
            if not leaves_out:
                raise
            continue
        quantities[segment.span] = used
    return quantities


async def _fetch_whole_gauge(
    connection: AsyncConnection, customer: str, meter: str, span: GaugeSpan, price: MeterPrice, terms: QuantityTerms
) -> dict[str, int]:
    """Return a gauge's values of a period, by the value that its price depends on."""
    (end,) = ends = [span.subscribed.end]
    values = await _fetch_gauge(
        *(connection, customer, meter, span.subscribed.start, ends, span.period),
        *(terms.meters[meter].aggregate, get_dimension(price)),
    )
    return values[end]


def get_dimension(price: MeterPrice) -> str | None:
    """Return the dimension that a price depends on, or None."""
    return None if price.by is None else price.by.dimension


async def _fetch_sum_rows(
    connection: AsyncConnection,
    customer: str,
    segments: Sequence[Segment],
    charged: Mapping[Span, Sequence[Span]],
    terms: QuantityTerms,
    times: tuple[str, ...] = (),
) -> list[tuple[UsageKey, UsageRow]]:
    """Return the rows of the sums of these segments in the `charged` parts of each, by fields `times` as well.

    One statement reads all meters without a dimension, and one each meter and dimension. Raises UsageNotStoredError.
    """
    segments_by_price: dict[tuple[str, str | None], list[Segment]] = defaultdict(list)
    for segment in segments:
        for meter, terms_of_meter in segment.plan.meters.items():
            if is_sum(terms.meters, meter):
                segments_by_price[meter, get_dimension(terms_of_meter)].append(segment)
    split = sorted((meter, dimension) for meter, dimension in segments_by_price if dimension is not None)
    priced: list[tuple[str | None, str | None, list[Segment]]]
    priced = [(meter, by, segments_by_price[meter, by]) for meter, by in split]
    plain = {meter: sold for (meter, dimension), sold in segments_by_price.items() if dimension is None}
    if plain:
        spans = {segment.span for sold in plain.values() for segment in sold}
        only = next(iter(plain)) if len(plain) == 1 else None
        priced.insert(0, (only, None, [segment for segment in segments if segment.span in spans]))
    summed: list[tuple[UsageKey, UsageRow]] = []
    for of_meter, by, sold in priced:
        parts = [(segment, part) for segment in sold for part in charged[segment.span]]
        query = LedgerQuery(customer, of_meter, 0, 0, (by or "meter", *times))
        try:
            rows = await queries.fetch_usage_of_spans(connection, query, [part for _, part in parts])
        except InvalidQueryError as error:
            raise UsageNotStoredError(str(error)) from None
        for number, row in rows:
            segment, meter = parts[number][0], of_meter or str(row["meter"])
            price = segment.plan.meters.get(meter)
            if price is not None and (meter, by) in segments_by_price and get_dimension(price) == by:
                summed.append((UsageKey(segment.span, meter, OTHER if by is None else str(row[by])), row))
    return summed


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
        begun = [segment for segment in segments if segment.span.start < until]
        if not begun:
            continue
        last = begun[-1]
        for meter, price in last.plan.meters.items():
            if not is_sum(terms.meters, meter):
                rated[meter, get_dimension(price)][until] = last, min(last.span.end, until)
    for (meter, by), lasts in rated.items():
        start, aggregate = segments[0].span.start, terms.meters[meter].aggregate
        ends = sorted({end for _, end in lasts.values()})
        period = period_at(start, terms.anchor)
        values = await _fetch_gauge(connection, customer, meter, start, ends, period, aggregate, by)
        for until, (last, end) in lasts.items():
            running[until] |= _check_quantities(last.span, meter, values[end])
    return running


async def fetch_daily_sums(
    connection: AsyncConnection, customer: str, segments: Sequence[Segment], terms: QuantityTerms
) -> dict[int, Counter[UsageKey]]:
    """Return the billed usage of segments' sums by day: the Unix second at the start of each UTC day with usage.

    The quantities of all days add up to those of `fetch_segment_quantities`. Raises UsageNotStoredError.
    """
    days: dict[int, Counter[UsageKey]] = defaultdict(Counter)
    charged = await charging.list_charged_within(connection, [segment.span for segment in segments])
    for key, row in await _fetch_sum_rows(connection, customer, segments, charged, terms, ("day",)):
        days[queries.parse_time("day", row["day"])][key] += row["value"]
    return days


async def fetch_waived(connection: AsyncConnection, customer: str, spans: Iterable[Span]) -> dict[str, int]:
    """Return a customer's usage of each meter in the times of these spans without charging, by customer name.

    Raises UsageNotStoredError.
    """
    waived = await charging.list_waived_within(connection, *spans)
    usage: Counter[str] = Counter()
    if waived:
        query = LedgerQuery(customer, None, 0, 0, ("meter",))
        try:
            for _, row in await queries.fetch_usage_of_spans(connection, query, waived):
                usage[row["meter"]] += row["value"]
        except InvalidQueryError as error:
            raise UsageNotStoredError(str(error)) from None
    return dict(usage)


def _find_gauge_spans(segments: Sequence[Segment], anchor: int | None) -> dict[int, GaugeSpan]:
    """Return the span of gauges for the last segment of each period, whose plan rates them, by the segment's start."""
    # A trial has gauges of its own, because nothing of it is charged.
    groups: dict[tuple[Span, bool], list[Span]] = defaultdict(list)
    for segment in segments:
        groups[period_at(segment.span.start, anchor), segment.is_trial].append(segment.span)
    return {
        spans[-1].start: GaugeSpan(Span(spans[0].start, spans[-1].end), period) for (period, _), spans in groups.items()
    }


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
