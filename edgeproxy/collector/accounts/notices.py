"""Notices to a customer's contacts of what somebody did: an invoice that was issued, a key that was made, replaced or
revoked, a contact that was added. They are alerts, written in the transaction of what they tell of, and mailed so."""

from collections.abc import Collection
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.audit_details import CONTACT, hide_contact
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.deliveries import Recipient
from edgeproxy.collector.alerts.delivery import NoticeContacts
from edgeproxy.collector.alerts.kinds import ALERT_POLICIES, AlertKind
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.page_tables import contacts
from edgeproxy.collector.database.row_security import across_customers, served_customer
from edgeproxy.collector.database.schema import HOUR, customers
from edgeproxy.collector.encryption.rows import fetch_rows

HOURLY_MAX = 20
"""Notices of a kind to a customer in an hour: whoever makes keys by the thousand is not mailed of each."""


async def raise_notice(connection: AsyncConnection, alert: Alert) -> None:
    """Raise a notice in the transaction that is under way, unless nobody would read it or there were too many."""
    roles = sorted(ALERT_POLICIES[alert.kind].contacts)
    owned = contacts.join(customers, customers.c.id == contacts.c.customer)
    of_customer = sa.select(contacts.c.role).select_from(owned).where(customers.c.name == alert.customer)
    has_readers = await connection.scalar(sa.select(of_customer.where(contacts.c.role.in_(roles)).exists()))
    if not has_readers:
        return
    columns = alerts.c
    recent = sa.select(columns.id).where(
        columns.customer == alert.customer, columns.kind == alert.kind, columns.at > round((alert.at - HOUR) * 1000)
    )
    async with across_customers(connection):
        if len((await connection.execute(recent.limit(HOURLY_MAX))).all()) < HOURLY_MAX:
            await raise_once(connection, alert)


async def raise_notice_by(connection: AsyncConnection, caller: Caller, alert: Alert) -> None:
    """Raise a notice of what a caller did, as `raise_notice` does: a contact is in it as in the audit log, and of an
    operator no name."""
    if caller.actor.startswith(CONTACT):
        by = hide_contact(connection, caller.actor)
    else:
        by = "operator" if served_customer() is None else "token"
    await raise_notice(connection, replace(alert, details={**alert.details, "by": by}))


async def notify_of_contact(connection: AsyncConnection, caller: Caller, customer: str) -> None:
    """Tell the owners that a customer has so far, by name, that somebody else than they adds a contact."""
    if caller.actor.startswith(CONTACT):
        return
    at, kind = now_ms(), AlertKind.CONTACT_ADDED
    title = f"{customer}: {kind.value.replace('_', ' ')}"
    alert = Alert(key=f"{kind}:{customer}:{at}", kind=kind, customer=customer, title=title, at=at / 1000, details={})
    await raise_notice_by(connection, caller, alert)


async def fetch_readers(connection: AsyncConnection, customer: str, roles: Collection[str]) -> list[Recipient]:
    """Return the contacts of a customer, by name, who have one of these roles, the same order each time."""
    rows = await _fetch_contacts(connection, customer)
    theirs = [row for row in rows if row["role"] in roles]
    return [
        Recipient(str(row["email"]), None if row["language"] is None else str(row["language"]))
        for row in sorted(theirs, key=lambda row: str(row["email"]))
    ]


async def find_address(connection: AsyncConnection, customer: str, label: str) -> str | None:
    """Return the address of a contact of a customer by the label in a notice; None where there is none any more."""
    addresses = [str(row["email"]) for row in await _fetch_contacts(connection, customer)]
    labels = {hide_contact(connection, f"{CONTACT}{address}"): address for address in addresses}
    return labels.get(label)


async def _fetch_contacts(connection: AsyncConnection, customer: str) -> list[dict[str, object]]:
    owner = sa.select(customers.c.id).where(customers.c.name == customer).scalar_subquery()
    return await fetch_rows(connection, contacts.name, sa.select(contacts).where(contacts.c.customer == owner))


CONTACTS = NoticeContacts(fetch_readers, find_address)
