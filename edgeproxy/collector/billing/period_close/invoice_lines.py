"""What an invoice of a period comes to: its usage, what came late of earlier ones, and the next period's fee."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.period_close import quantities as usage
from edgeproxy.collector.billing.rating import periods, projection
from edgeproxy.collector.billing.rating.rater import Key, Line, Segment, rate, total
from edgeproxy.collector.billing.subscriptions import changes, subscriptions
from edgeproxy.collector.billing.subscriptions.subscriptions import Loaded
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.config.models import Meter

AMOUNT_MAX = 10**15
"""Cents of a line that can be kept: far more than anybody is charged."""
LATE_SECONDS_MAX = 366 * 86400
"""Seconds for which what comes late of a period is looked for after it."""


class Rated(NamedTuple):
    """What an invoice of a period comes to."""

    lines: list[Line]
    """What has to be added to what was invoiced before."""
    shadow: int
    """Cents by which one rating of all that is known is above what was invoiced before: what the lines come to."""


class Upcoming(NamedTuple):
    """What the next invoice comes to."""

    lines: list[Line]
    """If nothing more were used."""
    projected: list[Line] | None
    """If it goes on as it did in the last days, up to the end of the period; None where that was not asked for."""


async def period_lines(connection: AsyncConnection, row: Any, meters: Mapping[str, Meter]) -> Rated:
    """The lines of an invoice of a period, by all that is known now; `meters` are those of the configuration. Raises
    TooMuch and NotKept.

    The fee is the next period's, as fees are paid in advance.
    """
    loaded = await subscriptions.of_id(connection, row.subscription)
    known = [one for one in loaded.held.segments if one.span.start <= row.period_end]
    over = [one for one in known if one.span.end <= row.period_end]
    is_accepted = row.accepted_why is not None
    quantities, before = await _usage(
        connection, loaded, known, over, row.period_start, meters, is_accepted=is_accepted
    )
    shadow = total(rate(known, quantities)) - total(before)
    return Rated(_rated(known, quantities, before, row.period_start, is_accepted=is_accepted), shadow)


async def upcoming(
    connection: AsyncConnection, loaded: Loaded, meters: Mapping[str, Meter], now: float | None = None
) -> Upcoming:
    """What the next invoice of a subscription would come to; with the time `now`, projected to the end of the period
    too. Raises TooMuch and NotKept."""
    held = loaded.held
    wanted = sa.select(invoices_table.c.period_start).where(
        invoices_table.c.subscription == loaded.row.id, invoices_table.c.state == invoices.DRAFT
    )
    waiting = set((await connection.execute(wanted)).scalars())
    over = [one for one in held.segments if not _is_within(one, waiting, held.period.start)]
    known = list(held.segments)
    following = changes.following(held, loaded.plans)
    if following is not None:
        known.append(following)
    quantities, before = await _usage(connection, loaded, known, over, held.period.start, meters)

    def due(used: Mapping[Key, int]) -> list[Line]:
        lines = _rated(known, used, before, held.period.start)
        # Fees of this period that are not invoiced yet are on the invoice that waits.
        return [line for line in lines if line.meter or not waiting or line.segment.start >= held.period.end]

    projected = None if now is None else due(await _projected(connection, loaded, quantities, meters, now))
    return Upcoming(due(quantities), projected)


async def _projected(
    connection: AsyncConnection, loaded: Loaded, used: Mapping[Key, int], meters: Mapping[str, Meter], now: float
) -> dict[Key, int]:
    """These quantities as they will be by the end of the period. Levels are held up to it anyway; of what counts once
    nobody knows what will be new."""
    last = loaded.held.last
    over = projection.pace(periods.minute(now) + periods.MINUTE, periods.minute(loaded.customer.created_at / 1000))
    sums = {meter: price for meter, price in last.plan.meters.items() if usage.is_sum(meter, meters)}
    lately = last._replace(plan=last.plan.model_copy(update={"meters": sums}), span=over)
    terms = usage.Terms(meters, loaded.held.anchor)
    quantities = await usage.quantities(connection, loaded.customer.name, [lately], lately, terms)
    return projection.projected(used, quantities, over, last.span)


def _is_within(segment: Segment, waiting: set[int], current: int) -> bool:
    """Whether a segment's usage is on an invoice that waits to be closed: of an earlier period than the current one."""
    return segment.span.start < current and any(start <= segment.span.start for start in waiting)


async def _usage(
    connection: AsyncConnection,
    loaded: Loaded,
    known: Sequence[Segment],
    over: Sequence[Segment],
    period_start: int,
    meters: Mapping[str, Meter],
    *,
    is_accepted: bool = False,
) -> tuple[dict[Key, int], list[Line]]:
    """What was used of the segments that are `over`, and the lines that are invoiced of these and of `known` ones.

    What cannot be billed is an error in the first invoice that it is on, unless somebody has accepted that one; others
    leave it as it was invoiced.
    """
    invoiced = await invoices.lines_of_subscription(connection, loaded.row.id)
    quantities: dict[Key, int] = {}
    terms = usage.Terms(meters, loaded.held.anchor)
    for segment in over:
        if segment.span.start < period_start - LATE_SECONDS_MAX:
            continue
        leaves_out = is_accepted or segment.span.end <= period_start
        try:
            quantities |= await usage.quantities(
                connection, loaded.customer.name, known, segment, terms, leaves_out=leaves_out
            )
        except usage.NotKept:
            if not leaves_out:
                raise  # It was never invoiced.
    # A change after the period was invoiced at once: its fees are of a segment that this invoice knows nothing of.
    known_of = {(segment.span.start, "") for segment in known} | {(key.segment.start, key.meter) for key in quantities}
    return quantities, [line for line in invoiced if (line.segment.start, line.meter) in known_of]


def _rated(
    known: Sequence[Segment],
    quantities: Mapping[Key, int],
    before: Iterable[Line],
    period_start: int,
    *,
    is_accepted: bool = False,
) -> list[Line]:
    """The lines that come to those `before`: fees of all `known` segments, and usage."""
    found = []
    for line in rate(known, quantities, before):
        if abs(line.amount) <= AMOUNT_MAX:
            found.append(line)
        elif line.segment.end > period_start and not is_accepted:
            raise usage.TooMuch(f"{line.quantity} of {line.meter} come to more than can be charged")
    return [line._replace(kind="late") if line.meter and line.segment.end <= period_start else line for line in found]
