"""Dunning: a customer is past due once an invoice is open, paused with 402 after the payment grace, and released once
nothing is unpaid.

It has no state of its own: whom to pause and release follows from the invoices, and from the pause that a customer has.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.models import UpdateCustomerRequest
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices import invoices as states
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.config.collector.settings import CollectorSettings

CALLER = Caller("billing")
UNPAID = 402
WHY = "An invoice is unpaid. Service goes on once it is paid."
"""The text that a paused customer reads. Pauses with another text are never taken back here."""
TAKEN_MAX = 500
"""Customers that one round pauses or releases."""


class DueCustomers(NamedTuple):
    """The customers to pause and to release."""

    unpaid_since: Mapping[str, int]
    """The Unix second since which an invoice of a customer to pause is unpaid, by the customer's name."""
    paid: list[str]
    """The names of the customers to release."""


async def list_due_customers(
    connection: AsyncConnection, settings: CollectorSettings, now: float, *, among: Collection[str] | None = None
) -> DueCustomers:
    """Return the customers to pause and to release; only those `among` these names. This reads all customers, and takes
    no lock."""
    assert settings.billing is not None
    column = customers_table.c
    unpaid = (invoices.c.state == states.OPEN) & (invoices.c.total > 0)
    is_overdue = invoices.c.closes_at <= int(now - settings.billing.payment_grace)
    since = sa.func.min(invoices.c.closes_at).label("since")
    oldest = sa.select(invoices.c.customer, since).where(unpaid, is_overdue).group_by(invoices.c.customer).subquery()
    is_paused = column.settings.like(f'%"why":"{WHY}"%')
    is_concerned = column.deleting_since.is_(None) & (sa.true() if among is None else column.name.in_(among))
    late = sa.select(column.name, oldest.c.since).join_from(oldest, customers_table, column.id == oldest.c.customer)
    paid = sa.select(column.name).where(
        is_concerned, is_paused, ~sa.exists().where(invoices.c.customer == column.id, unpaid)
    )
    rows = await connection.execute(late.where(is_concerned, ~is_paused).limit(TAKEN_MAX))
    released = await connection.execute(paid.limit(TAKEN_MAX))
    return DueCustomers({row.name: row.since for row in rows}, list(released.scalars()))


async def pause_and_release(
    connection: AsyncConnection, settings: CollectorSettings, now: float, among: Collection[str]
) -> tuple[list[str], list[str]]:
    """Pause and release those of these customers for whom it is due; return the names of both."""
    due = await list_due_customers(connection, settings, now, among=among)
    paused, released = [], []
    for name, since in due.unpaid_since.items():
        settings_now = orjson.loads((await customers.get_row(connection, name)).settings)
        if "paused" in settings_now:
            continue  # Somebody else's pause stays as it is.
        if not await _set_pause(connection, name, {"why": WHY, "status": UNPAID}, settings):
            continue
        alert = Alert(
            key=f"billing-unpaid-{name}-{since}",
            kind=AlertKind.INVOICE_UNPAID,
            customer=name,
            title=f"{name} is paused until an invoice is paid",
            at=now,
        )
        await raise_once(connection, alert)
        paused.append(name)
    for name in due.paid:
        if await _set_pause(connection, name, None, settings):
            released.append(name)
    return paused, released


async def _set_pause(
    connection: AsyncConnection, name: str, paused: dict[str, object] | None, settings: CollectorSettings
) -> bool:
    """Pause or release a customer; return False where that fails, so that the others go on."""
    try:
        change = UpdateCustomerRequest.model_validate({"paused": paused})
        await customers.update_customer(connection, CALLER, name, change, settings)
    except ChangeRejectedError as error:
        log.get_logger().error(
            "a customer could not be paused or released", customer=name, why=error.why, faults=error.faults
        )
        return False
    return True
