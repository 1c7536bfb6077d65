"""Balances of prepaid credits with usage that is not booked yet.

Pages show a report of a customer's grants. Edges need the credits that customers ever had, and the part that they have
spent.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits import consumption, purchase_list
from edgeproxy.collector.billing.credits.consumption import CreditMeters
from edgeproxy.collector.billing.credits.purchase_list import GrantOrigin
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import Grant, spending_order, subtract_pending
from edgeproxy.collector.database.credit_tables import credit_balances
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.collector.currency_units import USD

NAMES_MAX = 500
"""The most customers that one statement looks up."""
ALONE_MAX = 20
"""Up to this number of customers, usage is read one by one; beyond it, the usage of all customers is read at once."""


class CreditUsage(NamedTuple):
    """The credits that a customer ever had, and the credits that it has spent, in millicredits."""

    granted: int
    used: int
    currency: str = USD

    @property
    def left(self) -> int:
        """The credits that are left; negative if more was spent."""
        return self.granted - self.used


class RemainingGrant(NamedTuple):
    """A grant with credits left in the books."""

    grant: Grant
    origin: GrantOrigin
    left: int
    """The millicredits that are left after usage that is not booked yet."""

    @property
    def used(self) -> int:
        """The millicredits that usage has spent."""
        return self.origin.granted - self.origin.returned - self.left

    @property
    def refundable(self) -> int:
        """The millicredits that can be refunded."""
        return max(0, min(self.grant.refundable, self.left))


class CreditReport(NamedTuple):
    """The credits of a customer at one moment, in millicredits."""

    booked: int
    pending: int
    """The usage that is not booked yet."""
    grants: list[RemainingGrant]
    """The grants in the order of spending. What is left of them adds up to the available credits, unless more was
    spent."""

    @property
    def available(self) -> int:
        """The credits that can be spent; negative if more was spent."""
        return self.booked - self.pending


async def fetch_report(connection: AsyncConnection, meters: CreditMeters, customer: str, name: str) -> CreditReport:
    """Return the credits of a customer, by id and name. The connection must read one snapshot."""
    booked = await journal.fetch_balance(connection, customer)
    pending = await consumption.fetch_pending(connection, meters, name)
    grants = await journal.list_grants(connection, customer)
    origins = await purchase_list.fetch_origins(connection, customer) if grants else {}
    left = subtract_pending(grants, pending)
    remaining = [
        RemainingGrant(grant, origins[grant.id], left[grant.id]) for grant in spending_order(grants) if grant.rest
    ]
    return CreditReport(booked, pending, remaining)


async def fetch_credit_usage(
    connection: AsyncConnection, meters: CreditMeters, names: Collection[str]
) -> Mapping[str, CreditUsage]:
    """Return the credit usage of these customers, by name, if they pay with credits, including unbooked usage.

    The connection must read one snapshot.
    """
    columns, ordered_names = credit_balances.c, sorted(names)
    usage_by_name: dict[str, CreditUsage] = {}
    for at in range(0, len(ordered_names), NAMES_MAX):
        statement = (
            sa.select(customers.c.name, columns.granted, columns.balance, customers.c.currency)
            .join_from(credit_balances, customers, customers.c.id == columns.customer)
            .where(customers.c.name.in_(ordered_names[at : at + NAMES_MAX]))
        )
        usage_by_name |= {
            row.name: CreditUsage(row.granted, row.granted - row.balance, row.currency or USD)
            for row in await connection.execute(statement)
        }
    if not usage_by_name:
        return usage_by_name
    waiting = await consumption.fetch_pending_by_name(
        connection, meters, *(usage_by_name if len(usage_by_name) <= ALONE_MAX else ())
    )
    return {name: usage._replace(used=usage.used + waiting.get(name, 0)) for name, usage in usage_by_name.items()}
