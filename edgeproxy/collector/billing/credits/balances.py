"""What customers have spent of their prepaid credits, as edges are to know it: beside all that they ever had."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits import consumption
from edgeproxy.collector.billing.credits.consumption import Meters
from edgeproxy.collector.database.credit_tables import credit_balances
from edgeproxy.collector.database.schema import customers

NAMES_MAX = 500
"""Customers that one statement looks up."""
ALONE_MAX = 20
"""Customers whose usage is read one by one; that of more is read with everybody's."""


class Spent(NamedTuple):
    """What a customer ever had to spend, and what it has spent, in millicredits."""

    granted: int
    used: int


async def spent(connection: AsyncConnection, meters: Meters, names: Collection[str]) -> Mapping[str, Spent]:
    """Return what those of these customers have spent who pay by credits, by name: what is booked, and what is used and
    not booked yet. The connection reads one moment.
    """
    column, wanted = credit_balances.c, sorted(names)
    found: dict[str, Spent] = {}
    for at in range(0, len(wanted), NAMES_MAX):
        some = (
            sa.select(customers.c.name, column.granted, column.balance)
            .join_from(credit_balances, customers, customers.c.id == column.customer)
            .where(customers.c.name.in_(wanted[at : at + NAMES_MAX]))
        )
        found |= {row.name: Spent(row.granted, row.granted - row.balance) for row in await connection.execute(some)}
    if not found:
        return found
    waiting = await consumption.pending_by_name(connection, meters, *(found if len(found) <= ALONE_MAX else ()))
    return {name: one._replace(used=one.used + waiting.get(name, 0)) for name, one in found.items()}
