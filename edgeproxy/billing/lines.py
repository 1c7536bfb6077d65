"""What an invoice of a period comes to: its usage, what came late of earlier ones, and the next period's fee."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.billing import changes, invoices, subscriptions, usage
from edgeproxy.billing.rating import Key, Line, Segment, rate
from edgeproxy.billing.subscriptions import Loaded
from edgeproxy.config.models import Meter
from edgeproxy.database.billing_tables import invoices as invoices_table

AMOUNT_MAX = 10**15
"""Cents of a line that can be kept: far more than anybody is charged."""
LATE_SECONDS_MAX = 366 * 86400
"""Seconds for which what comes late of a period is looked for after it."""


async def period_lines(connection: AsyncConnection, row: Any, meters: Mapping[str, Meter]) -> list[Line]:
    """The lines of an invoice of a period, by all that is known now; `meters` are those of the configuration. Raises
    TooMuch and NotKept.

    The fee is the next period's, as fees are paid in advance.
    """
    loaded = await subscriptions.of_id(connection, row.subscription)
    known = [one for one in loaded.held.segments if one.span.start <= row.period_end]
    over = [one for one in known if one.span.end <= row.period_end]
    return await _rated(connection, loaded, known, over, row.period_start, meters)


async def upcoming_lines(connection: AsyncConnection, loaded: Loaded, meters: Mapping[str, Meter]) -> list[Line]:
    """What the next invoice of a subscription would come to if nothing more were used. Raises TooMuch and NotKept."""
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
    lines = await _rated(connection, loaded, known, over, held.period.start, meters)
    # Fees of this period that are not invoiced yet are on the invoice that waits.
    return [line for line in lines if line.meter or not waiting or line.segment.start >= held.period.end]


def _is_within(segment: Segment, waiting: set[int], current: int) -> bool:
    """Whether a segment's usage is on an invoice that waits to be closed: of an earlier period than the current one."""
    return segment.span.start < current and any(start <= segment.span.start for start in waiting)


async def _rated(
    connection: AsyncConnection,
    loaded: Loaded,
    known: Sequence[Segment],
    over: Sequence[Segment],
    period_start: int,
    meters: Mapping[str, Meter],
) -> list[Line]:
    """The lines that come to those that are invoiced: fees of all `known` segments, usage of those that are `over`."""
    invoiced = await invoices.lines_of_subscription(connection, loaded.row.id)
    quantities: dict[Key, int] = {}
    asked: set[int] = set()
    terms = usage.Terms(meters, loaded.held.anchor)
    for segment in over:
        if segment.span.start < period_start - LATE_SECONDS_MAX:
            continue
        try:
            quantities |= await usage.quantities(connection, loaded.customer.name, known, segment, terms)
        except usage.NotKept:
            if segment.span.end > period_start:
                raise  # It was never invoiced.
            continue  # It stays as it was invoiced.
        asked.add(segment.span.start)
    # A change after the period was invoiced at once: its fees are of a segment that this invoice knows nothing of.
    starts = {segment.span.start for segment in known}
    before = [line for line in invoiced if line.segment.start in (asked if line.meter else starts)]
    found = rate(known, quantities, before)
    for line in found:
        if abs(line.amount) > AMOUNT_MAX:
            raise usage.TooMuch(f"{line.quantity} of {line.meter} come to more than can be charged")
    return [line._replace(kind="late") if line.meter and line.segment.end <= period_start else line for line in found]
