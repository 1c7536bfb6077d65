"""The amounts of a customer's usage in any span, equal to those on its invoices, and of groups within it.

Each part of the span is rated by the plan then in force, after the included units that earlier usage of the period has
used up. Coupons, minimum fees and taxes apply to whole invoices, so they are not included.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.meter_export.metered_segments import is_sum
from edgeproxy.collector.billing.period_close import quantities
from edgeproxy.collector.billing.period_close.quantities import QuantityTerms, UsageNotStoredError
from edgeproxy.collector.billing.rating.rater import OTHER, Segment, Span
from edgeproxy.collector.billing.rating.usage_amounts import (
    SegmentUsage,
    clip_segment,
    get_priced_value,
    rate_time,
    share_amount,
)
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.billing.subscriptions.subscription_rows import LoadedSubscription
from edgeproxy.collector.database.billing_tables import subscriptions
from edgeproxy.collector.database.read_once import fetch_once
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.queries import InvalidQueryError, LedgerQuery
from edgeproxy.config.collector.catalog import MeterPrice
from edgeproxy.config.meters import Meter

Group = tuple[str, ...]
"""Values of the fields that usage is grouped by."""


class RatedPart(NamedTuple):
    """A part of the span under one plan, and the amounts of a meter's usage in it."""

    version: str
    span: Span
    price: MeterPrice
    amounts: Mapping[str, int]
    """The currency's smallest units, by the value that the price depends on; OTHER for values without a price of their
    own."""


class RatedUsage(NamedTuple):
    """The rated usage of a meter in a span."""

    version: str
    """The version of the plan that applied last."""
    currency: str
    parts: Sequence[RatedPart]
    """The parts with a price for the meter, in order of time."""

    @property
    def amount(self) -> int | None:
        """The amount of all parts, in the currency's smallest unit; None if no plan has a price for the meter."""
        prices = {id(part.price): part.price for part in self.parts}  # Hundreds of parts have few prices.
        priced = {number for number, price in prices.items() if price.has_prices}
        amounts = (sum(part.amounts.values()) for part in self.parts if id(part.price) in priced)
        return sum(amounts) if priced else None


async def rate_usage(
    connection: AsyncConnection, customer: str, meter: str, span: Span, meters: Mapping[str, Meter]
) -> RatedUsage:
    """Return a customer's rated usage of a meter in a span; the meter must be a sum. The customer is an id or name.

    The connection must read one snapshot. Raises UsageNotStoredError, QuantityTooLargeError, and ChangeRejectedError if
    the customer had no subscription then and has none now.
    """
    if not is_sum(meters, meter):
        raise ValueError(f"{meter} is no sum")
    # A page groups the usage of a meter by several fields, and rates it once.
    return await fetch_once(
        ("rated usage", customer, meter, span), lambda: _rate_usage(connection, customer, meter, span, meters)
    )


async def _rate_usage(
    connection: AsyncConnection, customer: str, meter: str, span: Span, meters: Mapping[str, Meter]
) -> RatedUsage:
    """Rate the usage as `rate_usage` returns it."""
    loaded = await fetch_once(
        (_load_subscriptions, customer, span), partial(_load_subscriptions, connection, customer, span)
    )
    last = loaded[-1].current.last
    parts: list[RatedPart] = []
    for subscription in loaded:
        current = subscription.current
        of_periods = [
            [segment for segment in of_period if segment.span.start < span.end]
            for _, of_period in groupby(current.segments, key=lambda segment: segment.period)
        ]
        of_periods = [begun for begun in of_periods if any(segment.span.end > span.start for segment in begun)]
        priced = [segment for begun in of_periods for segment in begun if meter in segment.plan.meters]
        values = await _fetch_values(
            connection, subscription.customer.name, meter, span, priced, QuantityTerms(meters, current.anchor)
        )
        # Each period by itself, as its included amounts begin anew. It counts from its beginning: earlier usage has
        # used up included amounts and price steps.
        for begun in of_periods:
            parts += _rate_period(meter, span, begun, values)
    return RatedUsage(last.version, last.plan.currency, parts)


async def share_by_group(
    connection: AsyncConnection, customer: str, meter: str, rated: RatedUsage, fields: Sequence[str]
) -> dict[Group, int]:
    """Return the amounts of rated usage by the values of these fields; they add up to its amount.

    Groups share the amount of each part and priced value by their units in it. Raises UsageNotStoredError.
    """
    shares: dict[Group, int] = defaultdict(int)
    by_part = await _fetch_units(connection, customer, meter, rated.parts, fields)
    for part, units in zip(rated.parts, by_part, strict=True):
        for value, amount in part.amounts.items():
            parts = share_amount(amount, units[value])
            for group, share in (parts or {(OTHER,) * len(fields): amount}).items():
                shares[group] += share
    return shares


async def _load_subscriptions(connection: AsyncConnection, customer: str, span: Span) -> list[LoadedSubscription]:
    """Return the subscriptions of a customer in a span, or else its current one."""
    subscriber = await subscription_rows.get_subscriber(connection, customer)
    rows = await subscription_rows.fetch_subscriptions(
        connection, subscriptions.c.customer == subscriber.id, subscriptions.c.period_end > span.start
    )
    loaded = [await subscription_rows.load_subscription(connection, row) for row in rows]
    loaded = [one for one in loaded if one.current.segments[0].span.start < span.end]
    if not loaded:
        return [await subscription_rows.get_by_customer(connection, customer)]
    return sorted(loaded, key=lambda one: one.current.segments[0].span.start)


def _rate_period(
    meter: str, span: Span, segments: Sequence[Segment], values: Mapping[Span, Mapping[str, int]]
) -> list[RatedPart]:
    """Return the parts of a span in one period.

    `segments` are the period's segments that begin before the span's end, `values` the result of `_fetch_values`.
    """
    used, parts = [], []
    for segment in segments:
        if (price := segment.plan.meters.get(meter)) is None:
            continue
        ended = clip_segment(segment, span.end)
        until_begin: Mapping[str, int] = {}
        if segment.span.start < span.start:
            # The part before the span is rated too and subtracted, so the parts of a period add up to its invoice.
            until_begin = values[clip_segment(segment, span.start).span]
        used.append(SegmentUsage(ended, until_begin, values[ended.span]))
        if segment.span.end > span.start:
            part = Span(max(ended.span.start, span.start), ended.span.end)
            parts.append((ended.span.start, RatedPart(segment.version, part, price, {})))
    amounts: dict[int, dict[str, int]] = defaultdict(dict)
    for (start, value), amount in rate_time(meter, used).items():
        amounts[start][value] = amount
    return [part._replace(amounts=amounts[start]) for start, part in parts]


async def _fetch_values(
    connection: AsyncConnection,
    customer: str,
    meter: str,
    span: Span,
    segments: Sequence[Segment],
    terms: QuantityTerms,
) -> dict[Span, dict[str, int]]:
    """Return the billed units of a meter in segments until the start and the end of `span`.

    The keys are the clipped segments, and the value that the price depends on.
    """
    clipped = {clip.span: clip for segment in segments for clip in (clip_segment(segment, span.end),)}
    begun = (segment for segment in segments if segment.span.start < span.start)
    clipped |= {clip.span: clip for segment in begun for clip in (clip_segment(segment, span.start),)}
    # Hundreds of segments have few plans, and a copy takes long.
    plans = {
        id(plan): plan.model_copy(update={"meters": {meter: plan.meters[meter]}})
        for plan in {id(clip.plan): clip.plan for clip in clipped.values()}.values()
    }
    rated = [clip._replace(plan=plans[id(clip.plan)]) for clip in clipped.values()]
    used = await quantities.fetch_segment_quantities(connection, customer, rated, rated, terms)
    return {of: {key.value: quantity for key, quantity in keys.items()} for of, keys in used.items()}


async def _fetch_units(
    connection: AsyncConnection, customer: str, meter: str, parts: Sequence[RatedPart], fields: Sequence[str]
) -> list[dict[str, dict[Group, int]]]:
    """Return the charged units of each part by priced value and group."""
    units: list[dict[str, dict[Group, int]]] = [defaultdict(lambda: defaultdict(int)) for _ in parts]
    charged = await charging.list_charged_within(connection, [part.span for part in parts])
    for by in dict.fromkeys(quantities.get_dimension(part.price) for part in parts):
        spans = [
            (number, span)
            for number, part in enumerate(parts)
            if quantities.get_dimension(part.price) == by
            for span in charged[part.span]
        ]
        query = LedgerQuery(customer, meter, 0, 0, tuple(dict.fromkeys((*fields, *(() if by is None else (by,))))))
        try:
            rows = await queries.fetch_usage_of_spans(connection, query, [span for _, span in spans])
        except InvalidQueryError as error:
            raise UsageNotStoredError(str(error)) from None
        for place, row in rows:
            number = spans[place][0]
            value = OTHER if by is None else str(row.get(by, OTHER))
            group = tuple(str(row.get(field, OTHER)) for field in fields)
            units[number][get_priced_value(parts[number].price, value)][group] += row["value"]
    return units
