"""Who does not pay: a customer is past due from the moment an invoice is open, paused with 402 after the payment grace,
and released once nothing is unpaid.
"""

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy import log
from edgeproxy.accounts import customers
from edgeproxy.accounts.audit import Caller
from edgeproxy.accounts.change import Refused
from edgeproxy.accounts.models import CustomerChange
from edgeproxy.alerts.alert import Alert, raise_once
from edgeproxy.billing import invoices as states
from edgeproxy.config.collector import Settings
from edgeproxy.database.billing_tables import invoices
from edgeproxy.database.schema import customers as customers_table

CALLER = Caller("billing")
UNPAID = 402
WHY = "An invoice is unpaid. Service goes on once it is paid."
"""What a customer is told who is paused here; nobody else's pause is ever taken back."""
TAKEN_MAX = 500
"""Customers that one look pauses or releases."""


def is_over(unpaid_since: int, grace: float, now: float) -> bool:
    """Whether the payment grace of an invoice is over that is unpaid since this Unix second."""
    return now >= unpaid_since + grace


async def step(connection: AsyncConnection, settings: Settings, now: float) -> tuple[list[str], list[str]]:
    """Pause and release whom it is about; return the names of both."""
    assert settings.billing is not None
    column = customers_table.c
    unpaid = (invoices.c.customer == column.id) & (invoices.c.state == states.OPEN) & (invoices.c.total > 0)
    oldest = sa.select(sa.func.min(invoices.c.closes_at)).where(unpaid).scalar_subquery()
    is_paused = column.settings.like(f'%"why":"{WHY}"%')
    there = column.deleting_since.is_(None)
    late = sa.select(column.name, oldest).where(there, ~is_paused, oldest <= int(now - settings.billing.payment_grace))
    paid = sa.select(column.name).where(there, is_paused, ~sa.exists().where(unpaid))
    paused, released = [], []
    for name, since in (await connection.execute(late.limit(TAKEN_MAX))).all():
        settings_now = orjson.loads((await customers.find(connection, name)).settings)
        if "paused" in settings_now:
            continue  # Somebody else's pause stays as it is.
        if not await _change(connection, name, {"why": WHY, "status": UNPAID}, settings):
            continue
        alert = Alert(
            key=f"billing-unpaid-{name}-{since}",
            kind="billing_unpaid",
            severity="warn",
            customer=name,
            title=f"{name} is paused until an invoice is paid",
            at=now,
        )
        await raise_once(connection, alert)
        paused.append(name)
    for name in (await connection.execute(paid.limit(TAKEN_MAX))).scalars().all():
        if await _change(connection, name, None, settings):
            released.append(name)
    return paused, released


async def _change(connection: AsyncConnection, name: str, paused: dict[str, object] | None, settings: Settings) -> bool:
    """Pause or release a customer; False where that cannot be, which is no reason to leave the others as they are."""
    try:
        said = CustomerChange.model_validate({"paused": paused})
        await customers.change(connection, CALLER, name, said, settings)
    except Refused as no:
        log.get().error("a customer could not be paused or released", customer=name, why=no.why, faults=no.faults)
        return False
    return True
