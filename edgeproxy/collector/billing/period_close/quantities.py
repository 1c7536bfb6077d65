"""Billed quantities of each meter, made from the ledger alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.billing.rating.periods import period_at
from edgeproxy.collector.billing.rating.rater import OTHER, Segment, Span, UsageKey
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.aggregates import ReadAs
from edgeproxy.collector.ledger.quantity import fetch_quantities as ledger_quantities
from edgeproxy.collector.ledger.queries import InvalidQueryError, LedgerQuery
from edgeproxy.config.collector.catalog import MeterPrice, Plan
from edgeproxy.config.meters import Meter

QUANTITY_MAX = 10**15 - 1
"""The largest quantity that can be billed, either way: 15 digits, as many as Stripe takes."""


class QuantityTerms(NamedTuple):
    """The terms that a quantity depends on beside the plan."""

    meters: Mapping[str, Meter]
    """The configured meters; meters that are not here are sums."""
    anchor: int | None
    """The Unix second from which months are counted; None: from the 1st."""


class QuantityTooLargeError(Exception):
    """More was counted of a meter than can be billed."""


class UsageNotStoredError(Exception):
    """The usage of that time is no longer stored."""


async def fetch_quantities(
    connection: AsyncConnection,
    customer: str,
    segments: Sequence[Segment],
    segment: Segment,
    terms: QuantityTerms,
    *,
    leaves_out: bool = False,
) -> dict[UsageKey, int]:
    """Return what a customer, by name, used in a segment of what its plan bills; `segments` are the subscription's.

    Usage in times without charging is left out: a level's peak, average and end are of the other times. A meter that
    was not used has 0. The connection must read one moment. Raises UsageNotStoredError, and QuantityTooLargeError
    unless `leaves_out` is set.
    """
    quantities: dict[UsageKey, int] = {}
    summed = await fetch_sums(connection, customer, segment.span)
    waivers = await charging.list_waived_within(connection, segment.span)
    waived: Counter[str] = Counter()
    for span in waivers:
        waived.update(await fetch_sums(connection, customer, span))
    gauge_span = _find_gauge_span(segments, segment, terms.anchor)
    for meter, price in segment.plan.meters.items():
        aggregate = "sum" if is_sum(meter, terms.meters) else terms.meters[meter].aggregate
        by = None if price.by is None else price.by.dimension
        if aggregate == "sum" and by is None:
            values = {OTHER: summed.get(meter, 0) - waived[meter]}
        elif aggregate == "sum":
            values = {OTHER: 0, **await _fetch_quantity(connection, customer, meter, segment.span, aggregate, by)}
            for span in waivers:
                for value, quantity in (
                    await _fetch_quantity(connection, customer, meter, span, aggregate, by)
                ).items():
                    values[value] -= quantity
        elif gauge_span is None:
            continue  # A later segment of the period has it.
        else:
            span, period = gauge_span
            read_as: ReadAs = "held" if aggregate == "average" else aggregate
            values = {OTHER: 0, **await _fetch_charged(connection, customer, meter, span, read_as, by)}
            if aggregate == "average":  # Of all seconds of the period, rounded once.
                values = {value: n // (period.end - period.start) for value, n in values.items()}
        largest = max(values.values(), key=abs)
        if abs(largest) > QUANTITY_MAX and leaves_out:
            continue
        for value, quantity in values.items():
            if abs(quantity) > QUANTITY_MAX:
                raise QuantityTooLargeError(f"{quantity} of {meter} were counted, and {QUANTITY_MAX} can be billed")
            quantities[UsageKey(segment.span, meter, value)] = quantity
    return quantities


def is_sum(meter: str, meters: Mapping[str, Meter]) -> bool:
    """Return whether usage of a meter is added up; meters that are not configured are."""
    return meter not in meters or meters[meter].aggregate == "sum"


def _find_gauge_span(segments: Sequence[Segment], segment: Segment, anchor: int | None) -> tuple[Span, Span] | None:
    """Return the part of the period in which there was a subscription, and the period, for its last segment; else None.
    What is no sum belongs to the period, and is rated by the plan in force at its end."""
    period = period_at(segment.span.start, anchor)
    within = [segment for segment in segments if period.start <= segment.span.start < period.end]
    if within[-1].span.start != segment.span.start:
        return None
    return Span(within[0].span.start, segment.span.end), period


async def fetch_sums(connection: AsyncConnection, customer: str, span: Span) -> dict[str, int]:
    """Return the sums of what a customer used of each meter; raises UsageNotStoredError."""
    try:
        result = await queries.fetch_usage(connection, LedgerQuery(customer, None, span.start, span.end, ("meter",)))
    except InvalidQueryError as error:
        raise UsageNotStoredError(str(error)) from None
    return {row["meter"]: row["value"] for row in result["rows"]}


async def _fetch_charged(
    connection: AsyncConnection, customer: str, meter: str, span: Span, aggregate: ReadAs, by: str | None
) -> dict[str, int]:
    """Return what is no sum, of the parts of a time in which anything was charged."""
    waivers = await charging.list_waived_within(connection, span)
    if not waivers or aggregate == "unique":
        return await _fetch_quantity(connection, customer, meter, span, aggregate, by, waivers)
    quantities: dict[str, int] = {}
    for start, end in pairwise((span.start, *(at for waiver in waivers for at in waiver), span.end)):
        part = Span(start, end)
        if part in waivers:
            continue
        for value, level in (await _fetch_quantity(connection, customer, meter, part, aggregate, by)).items():
            before = quantities.get(value, 0)
            quantities[value] = {"held": before + level, "max": max(before, level)}.get(aggregate, level)
    return quantities


async def _fetch_quantity(
    connection: AsyncConnection,
    customer: str,
    meter: str,
    span: Span,
    aggregate: ReadAs,
    by: str | None,
    without: Sequence[Span] = (),
) -> dict[str, int]:
    try:
        return await ledger_quantities(connection, customer, meter, *span, aggregate=aggregate, by=by, without=without)
    except InvalidQueryError as error:
        raise UsageNotStoredError(str(error)) from None


def plan_usage_to_response(plan: Plan, used: Mapping[UsageKey, int]) -> list[JsonObject]:
    """Return the usage of each meter of a plan, beside what it includes, as the API writes it."""
    quantities = dict.fromkeys(plan.meters, 0)
    for key, quantity in used.items():
        quantities[key.meter] += quantity
    return [
        {"meter": meter, **quantity_to_response(plan.meters[meter], quantity)} for meter, quantity in quantities.items()
    ]


def quantity_to_response(price: MeterPrice, quantity: int) -> JsonObject:
    """Return a quantity beside what is included, as the API writes it: `percentage` is None where that has no
    meaning."""
    included = price.included if not price.tiers else 0
    return {
        "quantity": quantity,
        "included": included,
        "percentage": compute_percentage(quantity, included),
        "is_over": is_over(quantity, included),
        "overage": max(0, quantity - included) if included is not None else 0,
        "cap": price.cap,
        "is_billed": price.price is not None or bool(price.tiers),
    }


def is_over(quantity: int, included: int | None) -> bool:
    """Return whether more is used than is included; None includes any amount."""
    return included is not None and quantity > included


def compute_percentage(quantity: int, included: int | None) -> float | None:
    """Return what is used of what is included, in percent; None where that has no meaning."""
    return None if not included else round(100 * quantity / included, 2)
