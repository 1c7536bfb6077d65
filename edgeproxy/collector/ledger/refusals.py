"""The refusal report: the most refused customers, by limit, and the number of uncertain refusals.

Edges count refusals in meters of `count: refusals`, with the dimensions `limit` and `certain`. Only refusals have the
dimension `certain`, so no other part of the ledger is read.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import HOUR, ledger, series, series_dimensions
from edgeproxy.collector.database.statements import AnyColumn
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.sources import Source, select_sources
from edgeproxy.config.meters import CERTAIN, LIMIT

LISTED_MAX = 50
"""The most customers and limits in the report."""


class RefusalCount(NamedTuple):
    """Refusals by a limit, of one customer or of all."""

    customer: str
    """Empty if the count is for all customers."""
    limit: str
    refused: int
    uncertain: int
    """Refusals made while the edge did not know all counted usage."""


class RefusalReport(NamedTuple):
    """The refusals in a span."""

    refused: int
    uncertain: int
    customers: Sequence[RefusalCount]
    """Customers and limits, with the most refusals first."""
    limits: Sequence[RefusalCount]


async def fetch_refusals(
    connection: AsyncConnection, meters: Sequence[str], since: int, until: int, customers: Sequence[str] | None = None
) -> RefusalReport:
    """Return the refusals that these meters counted within [since, until), Unix seconds; by default of all customers.

    The transaction must read one snapshot. Raises NotRetainedError.
    """
    rolled = await rollup.fetch_state(connection)
    certain, limit = series_dimensions.alias("certain"), series_dimensions.alias("limited_by")
    of = (
        sa.select(series.c.id, series.c.customer, limit.c.value.label("by"), certain.c.value.label("certain"))
        .join_from(certain, series, series.c.id == certain.c.series)
        .join(limit, (limit.c.series == series.c.id) & (limit.c.name == LIMIT))
        .where(
            certain.c.name == CERTAIN,
            series.c.meter.in_(meters),
            *(() if customers is None else (series.c.customer.in_(customers),)),
        )
        .cte("refused")
        .prefix_with("MATERIALIZED")
    )
    taken = select_sources(HOUR, since, until, rolled) or (Source(ledger, 0, 0),)
    parts = [
        sa.select(of.c.customer, of.c.by, of.c.certain, source.table.c.value)
        .select_from(of.join(source.table, source.table.c.series == of.c.id))
        .where(source.condition(rolled))
        for source in taken
    ]
    counted = (sa.union_all(*parts) if len(parts) > 1 else parts[0]).subquery()
    columns = counted.c
    refused = sa.cast(sa.func.sum(columns.value), sa.BigInteger)
    doubtful = sa.func.sum(sa.case((columns.certain == "no", columns.value), else_=0))
    sums = (refused.label("refused"), sa.cast(doubtful, sa.BigInteger).label("uncertain"))

    async def largest(*keys: AnyColumn) -> list[dict[str, Any]]:
        ranked = sa.select(*keys, *sums).group_by(*keys).order_by(refused.desc(), *keys).limit(LISTED_MAX)
        return [dict(row) for row in (await connection.execute(ranked)).mappings()]

    total, uncertain = (await connection.execute(sa.select(*sums))).one()
    by_customer = await largest(columns.customer, columns.by)
    by_limit = await largest(columns.by)
    return RefusalReport(
        total or 0,
        uncertain or 0,
        [RefusalCount(row["customer"], row["by"], row["refused"], row["uncertain"]) for row in by_customer],
        [RefusalCount("", row["by"], row["refused"], row["uncertain"]) for row in by_limit],
    )
