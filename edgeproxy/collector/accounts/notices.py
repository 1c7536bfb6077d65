"""Notices to a customer's contacts: an issued invoice, a payment, spent credits, a changed key, an added contact.

Key notices report that a key was created, replaced or revoked. Notices are alerts, written in the transaction of the
action, and mailed like alerts.
"""

from collections.abc import Collection
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.audit_details import CONTACT, hide_contact
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.alerts.alert import Alert, has_many, raise_once
from edgeproxy.collector.alerts.deliveries import Recipient
from edgeproxy.collector.alerts.delivery import NoticeContacts
from edgeproxy.collector.alerts.kinds import ALERT_POLICIES, AlertKind
from edgeproxy.collector.database.page_tables import contacts
from edgeproxy.collector.database.row_security import across_customers, served_customer
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.encryption.rows import fetch_rows


async def raise_notice(connection: AsyncConnection, alert: Alert) -> None:
    """Raise a notice in the current transaction, unless it has no readers or there were too many."""
    roles = sorted(ALERT_POLICIES[alert.kind].contacts)
    owned = contacts.join(customers, customers.c.id == contacts.c.customer)
    of_customer = sa.select(contacts.c.role).select_from(owned).where(customers.c.name == alert.customer)
    has_readers = await connection.scalar(sa.select(of_customer.where(contacts.c.role.in_(roles)).exists()))
    if not has_readers:
        return
    async with across_customers(connection):
        if not await has_many(connection, str(alert.customer), alert.kind, round(alert.at * 1000)):
            await raise_once(connection, alert)


async def raise_notice_by(connection: AsyncConnection, caller: Caller, alert: Alert) -> None:
    """Raise a notice of a caller's action, as `raise_notice` does.

    It identifies a contact as in the audit log, and never names an operator.
    """
    if caller.actor.startswith(CONTACT):
        by = hide_contact(connection, caller.actor)
    else:
        by = "operator" if served_customer() is None else "token"
    await raise_notice(connection, replace(alert, details={**alert.details, "by": by}))


async def notify_of_contact(connection: AsyncConnection, caller: Caller, customer: str) -> None:
    """Notify a customer's existing owners that someone other than a contact adds a contact."""
    if caller.actor.startswith(CONTACT):
        return
    at, kind = now_ms(), AlertKind.CONTACT_ADDED
    title = f"{customer}: {kind.value.replace('_', ' ')}"
    alert = Alert(key=f"{kind}:{customer}:{at}", kind=kind, customer=customer, title=title, at=at / 1000, details={})
    await raise_notice_by(connection, caller, alert)


async def notify_of_deletion(
    connection: AsyncConnection, caller: Caller, row: CustomerRow, deleted_seconds: float | None
) -> None:
    """Notify a customer's owners once of the begun deletion. `deleted_seconds` is the setting `retention.deleted`."""
    since, kind = row.deleting_since, AlertKind.DELETION_REQUESTED
    assert since is not None  # The deletion has begun.
    until = None if deleted_seconds is None else format_timestamp(since + round(deleted_seconds * 1000))
    alert = Alert(
        key=f"{kind}:{row.id}:{since}",
        kind=kind,
        customer=row.name,
        title=f"{row.name}: {kind.value.replace('_', ' ')}",
        at=since / 1000,
        details={} if until is None else {"erased_on": until},
    )
    await raise_notice_by(connection, caller, alert)


async def fetch_readers(connection: AsyncConnection, customer: str, roles: Collection[str]) -> list[Recipient]:
    """Return the contacts of a customer, by name, with one of these roles, ordered by e-mail address."""
    rows = await _fetch_contacts(connection, customer)
    theirs = [row for row in rows if row["role"] in roles]
    return [
        Recipient(str(row["email"]), None if row["language"] is None else str(row["language"]))
        for row in sorted(theirs, key=lambda row: str(row["email"]))
    ]


async def find_address(connection: AsyncConnection, customer: str, label: str) -> str | None:
    """Return the address of a customer's contact by the label in a notice, or None if the contact is gone."""
    addresses = [str(row["email"]) for row in await _fetch_contacts(connection, customer)]
    labels = {hide_contact(connection, f"{CONTACT}{address}"): address for address in addresses}
    return labels.get(label)


async def _fetch_contacts(connection: AsyncConnection, customer: str) -> list[dict[str, object]]:
    owner = sa.select(customers.c.id).where(customers.c.name == customer).scalar_subquery()
    return await fetch_rows(connection, contacts.name, sa.select(contacts).where(contacts.c.customer == owner))


CONTACTS = NoticeContacts(fetch_readers, find_address)
