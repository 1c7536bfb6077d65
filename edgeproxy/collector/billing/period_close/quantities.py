"""What is billed of each meter: quantities, made from the ledger alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.rating.periods import period_at
from edgeproxy.collector.billing.rating.rater import OTHER, Key, Segment, Span
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.aggregates import ReadAs
from edgeproxy.collector.ledger.quantity import quantities as ledger_quantities
from edgeproxy.collector.ledger.queries import Asked, BadQuery
from edgeproxy.config.catalog import MeterPrice, Plan
from edgeproxy.config.models import Meter

QUANTITY_MAX = 10**15 - 1
"""The largest quantity that can be billed, either way: 15 digits, as many as Stripe takes."""


class Terms(NamedTuple):
    """What says how usage becomes quantities, beside the plan."""

    meters: Mapping[str, Meter]
    """What each meter counts; those that are not here are sums."""
    anchor: int | None
    """From when on months are counted; None: from the 1st."""


class TooMuch(Exception):
    """More was counted of a meter than can be billed: a sentence for people."""


class NotKept(Exception):
    """What was counted then is not kept any more."""


async def quantities(
    connection: AsyncConnection,
    customer: str,
    segments: Sequence[Segment],
    of: Segment,
    terms: Terms,
    *,
    leaves_out: bool = False,
) -> dict[Key, int]:
    """Return what a customer, by name, used in a segment of what its plan bills; `segments` are the subscription's.

    What was used while nobody was charged is left out: of levels, their peak, average and end are of the other times. A
    meter that was not used is there with 0. The
    connection reads one moment. Raises TooMuch, unless what cannot be billed is left out, and NotKept.
    """
    found: dict[Key, int] = {}
    summed = await counts(connection, customer, of.span)
    free = await charging.waived_of(connection, of.span)
    waived: Counter[str] = Counter()
    for span in free:
        waived.update(await counts(connection, customer, span))
    gauged = _gauged(segments, of, terms.anchor)
    for meter, price in of.plan.meters.items():
        aggregate = "sum" if is_sum(meter, terms.meters) else terms.meters[meter].aggregate
        by = None if price.by is None else price.by.dimension
        if aggregate == "sum" and by is None:
            values = {OTHER: summed.get(meter, 0) - waived[meter]}
        elif aggregate == "sum":
            values = {OTHER: 0, **await _read(connection, customer, meter, of.span, aggregate, by)}
            for span in free:
                for value, quantity in (await _read(connection, customer, meter, span, aggregate, by)).items():
                    values[value] -= quantity
        elif gauged is None:
            continue  # A later segment of the period has it.
        else:
            span, period = gauged
            read_as: ReadAs = "held" if aggregate == "average" else aggregate
            values = {OTHER: 0, **await _read_charged(connection, customer, meter, span, read_as, by)}
            if aggregate == "average":  # Of all seconds of the period, rounded once.
                values = {value: n // (period.end - period.start) for value, n in values.items()}
        most = max(values.values(), key=abs)
        if abs(most) > QUANTITY_MAX and leaves_out:
            continue
        for value, quantity in values.items():
            if abs(quantity) > QUANTITY_MAX:
                raise TooMuch(f"{quantity} of {meter} were counted, and {QUANTITY_MAX} can be billed")
            found[Key(of.span, meter, value)] = quantity
    return found


def is_sum(meter: str, meters: Mapping[str, Meter]) -> bool:
    """Whether what is used of a meter is added up; what the configuration does not have, is."""
    return meter not in meters or meters[meter].aggregate == "sum"


def _gauged(segments: Sequence[Segment], of: Segment, anchor: int | None) -> tuple[Span, Span] | None:
    """The part of the period of a segment in which there was a subscription, and the period, where it is the last
    segment of it: what is no sum belongs to the period, and is rated by the plan in force at its end."""
    period = period_at(of.span.start, anchor)
    within = [one for one in segments if period.start <= one.span.start < period.end]
    if within[-1].span.start != of.span.start:
        return None
    return Span(within[0].span.start, of.span.end), period


async def counts(connection: AsyncConnection, customer: str, span: Span) -> dict[str, int]:
    """Return the sums of what a customer used of each meter; raises NotKept."""
    try:
        found = await queries.usage(connection, Asked(customer, None, span.start, span.end, ("meter",)))
    except BadQuery as gone:
        raise NotKept(str(gone)) from None
    return {row["meter"]: row["value"] for row in found["rows"]}


async def _read_charged(
    connection: AsyncConnection, customer: str, meter: str, span: Span, aggregate: ReadAs, by: str | None
) -> dict[str, int]:
    """What is no sum, in the parts of a time in which anything was charged."""
    free = await charging.waived_of(connection, span)
    if not free or aggregate == "unique":
        return await _read(connection, customer, meter, span, aggregate, by, free)
    found: dict[str, int] = {}
    for start, end in pairwise((span.start, *(at for one in free for at in one), span.end)):
        part = Span(start, end)
        if part in free:
            continue
        for value, level in (await _read(connection, customer, meter, part, aggregate, by)).items():
            before = found.get(value, 0)
            found[value] = {"held": before + level, "max": max(before, level)}.get(aggregate, level)
    return found


async def _read(
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
    except BadQuery as gone:
        raise NotKept(str(gone)) from None


def told(plan: Plan, used: Mapping[Key, int]) -> list[dict[str, Any]]:
    """Tell what was used of each meter of a plan beside what that includes."""
    found = dict.fromkeys(plan.meters, 0)
    for key, quantity in used.items():
        found[key.meter] += quantity
    return [{"meter": meter, **standing(plan.meters[meter], quantity)} for meter, quantity in found.items()]


def standing(price: MeterPrice, quantity: int) -> dict[str, Any]:
    """Tell how a quantity stands beside what is included: `percentage` is of that, None where there is no end of it."""
    included = price.included if not price.tiers else 0
    return {
        "quantity": quantity,
        "included": included,
        "percentage": percentage(quantity, included),
        "is_over": is_over(quantity, included),
        "overage": max(0, quantity - included) if included is not None else 0,
        "cap": price.cap,
        "is_billed": price.price is not None or bool(price.tiers),
    }


def is_over(quantity: int, included: int | None) -> bool:
    """Whether more is used than is included; None: any amount is."""
    return included is not None and quantity > included


def percentage(quantity: int, included: int | None) -> float | None:
    """What is used of what is included, in percent; None where that has no meaning."""
    return None if not included else round(100 * quantity / included, 2)
