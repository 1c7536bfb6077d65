"""The cost of usage by day and model, and the largest customers.

Amounts are whole millicredits, or ten-thousandths of the smallest unit of another currency.
"""

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits.consumption import MODEL
from edgeproxy.collector.billing.rating.money import compute_millicredits
from edgeproxy.collector.billing.reports.currency_scope import CurrencyScope
from edgeproxy.collector.ledger import queries, rollup
from edgeproxy.collector.ledger.queries import LedgerQuery

LISTED_MAX = 10
"""The most models, and customers of each meter, in a result."""


class ModelCost(NamedTuple):
    """The cost of a model's usage of one meter in a week, in millicredits."""

    model: str
    """The model; empty for usage without one."""
    meter: str
    quantity: int
    cost: int


class Volume(NamedTuple):
    """A customer's usage of a meter in a week, in the meter's unit."""

    meter: str
    customer: str
    """The customer, by name."""
    quantity: int
    share: float
    """The share of the usage of all customers."""


async def fetch_costliest_models(
    connection: AsyncConnection, begin: int, end: int, cogs: Mapping[str, int], scope: CurrencyScope
) -> list[ModelCost]:
    """Return the costliest models by usage of a scope's customers between these Unix seconds, highest cost first."""
    rolled, only = await rollup.fetch_state(connection), scope.list_series_conditions()
    costs = []
    for meter, price in cogs.items():
        statement = queries.build_statement(LedgerQuery(None, meter, begin, end, (MODEL,)), rolled, *only)
        for row in queries.format_rows((MODEL,), (await connection.execute(statement)).all()):
            costs.append(ModelCost(row[MODEL], meter, row["value"], compute_millicredits(row["value"], price)))
    return sorted(costs, key=lambda model_cost: (-model_cost.cost, model_cost.model, model_cost.meter))[:LISTED_MAX]


async def fetch_costs(
    connection: AsyncConnection, begin: int, end: int, cogs: Mapping[str, int], scope: CurrencyScope
) -> dict[int, int]:
    """Return the cost of usage by a scope's customers, by the Unix second at the start of the day.

    `cogs` are prices in the scope's currency.
    """
    rolled, only = await rollup.fetch_state(connection), scope.list_series_conditions()
    costs: dict[int, int] = {}
    for meter, price in cogs.items():
        by_day = queries.build_statement(LedgerQuery(None, meter, begin, end, ("day",)), rolled, *only)
        for at, high, low in await connection.execute(by_day):
            costs[at] = costs.get(at, 0) + compute_millicredits(((high or 0) << 32) + (low or 0), price)
    return costs


async def fetch_largest_customers(
    connection: AsyncConnection, begin: int, end: int, scope: CurrencyScope
) -> list[Volume]:
    """Return the LISTED_MAX customers of a scope with the largest usage of each meter, between these Unix seconds."""
    query = LedgerQuery(None, None, begin, end, ("meter", "customer"))
    rolled, only = await rollup.fetch_state(connection), scope.list_series_conditions()
    used = queries.build_statement(query, rolled, *only).order_by(None).subquery()
    meter, customer, high, low = used.c
    approximate = high * float(1 << 32) + low  # The exact sums may exceed a BIGINT.
    ranked = sa.select(
        *(meter, customer, high.label("high"), low.label("low")),
        sa.func.sum(approximate).over(partition_by=meter).label("total"),
        sa.func.row_number().over(partition_by=meter, order_by=(approximate.desc(), customer)).label("place"),
    ).subquery()
    largest = sa.select(ranked).where(ranked.c.place <= LISTED_MAX).order_by(ranked.c.meter, ranked.c.place)
    volumes = []
    for name, customer_name, upper, lower, total, _ in await connection.execute(largest):
        quantity = ((upper or 0) << 32) + (lower or 0)
        if quantity > 0:
            volumes.append(Volume(name, customer_name, quantity, quantity / total))
    return volumes
