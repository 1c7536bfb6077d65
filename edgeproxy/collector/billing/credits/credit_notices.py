"""Notices of credits that are low or used up, for customers who use credits now.

There is one of each for a purchase or gift. A customer whose credits return without one, for example by corrected
usage, gets no second mail.
"""

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.alerts.alert import Alert
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.credits.balances import CreditUsage
from edgeproxy.collector.database.credit_tables import credit_grants, credit_transactions
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.collector.currency_units import format_millicredits_with_code

GRANTING: Final = ("purchase", "gift")
"""The kinds of transactions that make these notices due again."""


async def make_notices(
    connection: AsyncConnection, usages: Mapping[str, CreditUsage], low_percent: int, now: float
) -> list[Alert]:
    """Return the notices that are due for these customers, by name, at the edge time `now`.

    Notices that were raised before are among them: their keys are equal. Credits are low while at most `low_percent` of
    the last purchase or gift is left.
    """
    grants, transactions = credit_grants.c, credit_transactions.c
    last = (
        sa.select(grants.customer, sa.func.max(grants.number).label("number"))
        .join_from(credit_grants, credit_transactions, transactions.seq == grants.number)
        .join(customers, customers.c.id == grants.customer)
        .where(customers.c.name.in_(sorted(usages)), transactions.kind.in_(GRANTING))
        .where(customers.c.deleting_since.is_(None))
        .group_by(grants.customer)
        .subquery()
    )
    statement = (
        sa.select(customers.c.name, last.c.number, transactions.amount)
        .join_from(last, customers, customers.c.id == last.c.customer)
        .join(credit_transactions, transactions.seq == last.c.number)
    )
    rows = await connection.execute(statement)
    notices = (_build_notice(*row, usages[row.name], low_percent, now) for row in rows)
    return [notice for notice in notices if notice is not None]


def _build_notice(
    customer: str, number: int, granted: int, usage: CreditUsage, low_percent: int, now: float
) -> Alert | None:
    """Return the notice that is due for a customer, if any. Its last purchase or gift is `number`, over `granted`."""
    left = usage.left
    if left > 0 and left > granted * low_percent // 100:
        return None
    kind, details = AlertKind.CREDITS_SPENT, {}  # Developers read it, but no amounts.
    if left > 0:
        kind = AlertKind.CREDITS_LOW
        details = {
            name: format_millicredits_with_code(amount, usage.currency)
            for name, amount in (("left", left), ("granted", granted))
        }
    title = f"{customer}: {kind.value.replace('_', ' ')}"
    return Alert(key=f"{kind}:{number}", kind=kind, customer=customer, title=title, at=now + EPOCH, details=details)
