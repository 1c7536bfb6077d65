"""Customers whose tokens were largely estimated, because the answers of their models did not state them.

Edges count such units with the dimension `estimated`. Only meters with this dimension are checked.
"""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.alerts.alert import Alert
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.database.schema import HOUR, ledger, series, series_dimensions
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.queries import format_time
from edgeproxy.collector.ledger.sources import Source, select_sources
from edgeproxy.config.meters import ESTIMATED

UNITS_MIN = 1000
"""Fewer estimated units per day raise no alert."""
PARTS = 1000
"""A share is compared in these parts, because the database computes with whole numbers."""
LISTED_MAX = 50
"""Most customers and meters of a day that get an alert each."""


class EstimatedUnits(NamedTuple):
    """A customer's units of a meter."""

    customer: str
    meter: str
    estimated: int
    units: int
    """All units, including estimated ones."""


async def fetch_estimated_units(
    connection: AsyncConnection, since: int, until: int, share: float
) -> Sequence[EstimatedUnits]:
    """Return the customers and meters with a share of estimated units of at least `share` (0 to 1), most units first.

    The time is [since, until) in Unix seconds. The transaction must read one snapshot.
    """
    rolled = await rollup.fetch_state(connection)
    split = (
        sa.select(series.c.id, series.c.customer, series.c.meter, series_dimensions.c.value.label("is_estimated"))
        .join_from(series_dimensions, series, series.c.id == series_dimensions.c.series)
        .where(series_dimensions.c.name == ESTIMATED)
        .cte("split")
    )
    parts = [
        sa.select(split.c.customer, split.c.meter, split.c.is_estimated, source.table.c.value)
        .select_from(split.join(source.table, source.table.c.series == split.c.id))
        .where(source.condition(rolled))
        for source in select_sources(HOUR, since, until, rolled) or (Source(ledger, 0, 0),)
    ]
    columns = (sa.union_all(*parts) if len(parts) > 1 else parts[0]).subquery().c
    units = sa.cast(sa.func.sum(columns.value), sa.BigInteger)
    estimated = sa.cast(sa.func.sum(sa.case((columns.is_estimated == "yes", columns.value), else_=0)), sa.BigInteger)
    statement = (
        sa.select(columns.customer, columns.meter, estimated, units)
        .group_by(columns.customer, columns.meter)
        .having(estimated >= UNITS_MIN, estimated * PARTS >= units * round(share * PARTS))
        .order_by(estimated.desc(), columns.customer, columns.meter)
        .limit(LISTED_MAX)
    )
    return [EstimatedUnits(*row) for row in await connection.execute(statement)]


def build_estimates_alert(use: EstimatedUnits, day: int, now: float) -> Alert:
    """Return the alert for a customer whose units of a day were largely estimated. Pure."""
    percent = 100 * use.estimated // use.units  # 99.7 % is not 100 %.
    return Alert(
        key=f"estimates:{use.customer}:{use.meter}:{format_time(day)[:10]}",
        kind=AlertKind.ESTIMATES_HIGH,
        title=f"{percent} % of the {use.meter} of {use.customer} were estimated, as answers did not state them",
        details={
            "customer": use.customer,
            "meter": use.meter,
            "at": format_time(day),
            "estimated": use.estimated,
            "units": use.units,
        },
        at=now,
    )
