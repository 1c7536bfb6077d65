"""Contacts: the people who may sign in for a customer, by a link that is mailed to their address."""

from typing import Annotated

import orjson
import sqlalchemy as sa
from pydantic import BeforeValidator, WithJsonSchema
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.audit_details import CONTACT
from edgeproxy.collector.accounts.change import reject_field
from edgeproxy.collector.accounts.models import Body, UpdateCustomerRequest
from edgeproxy.collector.database.page_tables import contacts, held_forms, sessions, sign_in_links
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.encryption.rows import fetch_rows, match_value, seal_rows
from edgeproxy.config.collector.pages import MAILBOX, read_mailbox
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.units import value_error

CONTACTS_MAX = 50
"""Contacts of a customer at most."""
CUSTOMERS_MAX = 20
"""Customers for which one contact gets links."""


def parse_contacts(value: object) -> tuple[str, ...]:
    """Return a list of addresses in small letters, sorted; raises a value error."""
    hint = f"a list of at most {CONTACTS_MAX} addresses"
    if not isinstance(value, list | tuple) or len(value) > CONTACTS_MAX:
        raise value_error("cannot be used", hint)
    return tuple(sorted({read_mailbox(address).lower() for address in value}))


def parse_alert_address(value: object) -> str | None:
    """Return an address in small letters, or None for null; raises a value error."""
    return None if value is None else read_mailbox(value).lower()


EMAILS_SCHEMA = {
    "type": "array",
    "maxItems": CONTACTS_MAX,
    "items": {"type": "string", "pattern": f"^{MAILBOX.pattern}$"},
}
ADDRESS_SCHEMA = {"anyOf": [{"type": "string", "pattern": f"^{MAILBOX.pattern}$"}, {"type": "null"}]}


class Contacts(Body):
    """All contacts of a customer."""

    emails: Annotated[tuple[str, ...], BeforeValidator(parse_contacts), WithJsonSchema(EMAILS_SCHEMA)]
    """The e-mail addresses of all contacts; an address that is not in the list loses its access."""


class ContactList(TypedDict):
    """The contacts of a customer."""

    emails: list[str]
    """The e-mail addresses of all contacts."""


class AlertAddress(Body):
    """The contact to whom a customer's own alerts are mailed; null: nobody."""

    email: Annotated[str | None, BeforeValidator(parse_alert_address), WithJsonSchema(ADDRESS_SCHEMA)]
    """The e-mail address of a contact of the customer; null: no alerts are mailed."""


class CustomerAlertAddress(TypedDict):
    """The address of a customer's own alerts, and whether this collector mails any."""

    email: str | None
    """The e-mail address; null where no alerts are mailed."""
    is_mailed: bool
    """Whether this collector mails alerts to customers at all."""


def format_label(email: str) -> str:
    """Return the name of a contact in the audit log."""
    return f"{CONTACT}{email}"


async def list_contacts(connection: AsyncConnection, ref: str) -> list[str]:
    """Return the addresses of the contacts of a customer, by id or name; raises ChangeRejectedError."""
    owner = await customers.get_row(connection, ref)
    statement = sa.select(contacts).where(contacts.c.customer == owner.id)
    return sorted(str(row["email"]) for row in await fetch_rows(connection, contacts.name, statement))


async def put_contacts(connection: AsyncConnection, caller: Caller, ref: str, body: Contacts) -> ContactList:
    """Replace the contacts of a customer; removed ones lose sessions, links and alerts. Raises ChangeRejectedError."""
    owner = await customers.get_row(connection, ref, lock=True)
    before = await list_contacts(connection, owner.id)
    after = list(body.emails)
    if after != before:
        removed, added = set(before) - set(after), set(after) - set(before)
        is_own = contacts.c.customer == owner.id
        is_removed = match_value(connection, contacts.name, "email", *removed)
        await connection.execute(sa.delete(contacts).where(is_own, is_removed))
        if added:
            new = [{"email": email, "customer": owner.id} for email in added]
            await connection.execute(sa.insert(contacts), await seal_rows(connection, contacts.name, new))
        labels = [format_label(email) for email in removed]
        for table in (sessions, sign_in_links, held_forms):
            theirs = (table.c.customer == owner.name) & table.c.label.in_(labels)
            await connection.execute(sa.delete(table).where(theirs))
        entry = AuditEntry("customer.contacts", owner.name, {"emails": before}, {"emails": after})
        await audit.append_entry(connection, caller, entry)
        if orjson.loads(owner.metadata).get(customers.ALERT_ADDRESS, "").lower() in removed:
            await customers.delete_alert_address(connection, caller, owner)
    return {"emails": after}


async def find_alert_address(connection: AsyncConnection, ref: str) -> str | None:
    """Return the address of a customer's own alerts, by id or name, or None; raises ChangeRejectedError."""
    owner = await customers.get_row(connection, ref)
    return (await customers.fetch_alert_addresses(connection, [owner.name])).get(owner.name)


async def put_alert_address(
    connection: AsyncConnection, caller: Caller, ref: str, email: str | None, collector_settings: CollectorSettings
) -> None:
    """Set the contact to whom a customer's own alerts are mailed, or None; raises ChangeRejectedError."""
    owner = await customers.get_row(connection, ref, lock=True)
    if email is not None and email not in await list_contacts(connection, owner.id):
        raise reject_field("email", "is no contact of the customer")
    metadata = orjson.loads(owner.metadata)
    metadata.pop(customers.ALERT_ADDRESS, None)
    if email is not None:
        metadata[customers.ALERT_ADDRESS] = email
    change = UpdateCustomerRequest.model_validate({}).model_copy(update={"metadata": metadata})
    await customers.update_customer(connection, caller, owner.id, change, collector_settings)


async def list_customers(connection: AsyncConnection, email: str) -> list[str]:
    """Return the names of the customers that have this contact, CUSTOMERS_MAX at most."""
    joined = contacts.join(customers_table, customers_table.c.id == contacts.c.customer)
    theirs = match_value(connection, contacts.name, "email", email.lower()) & customers_table.c.deleting_since.is_(None)
    statement = sa.select(customers_table.c.name).select_from(joined).where(theirs).order_by(customers_table.c.name)
    return list((await connection.execute(statement.limit(CUSTOMERS_MAX))).scalars())


async def can_sign_in(connection: AsyncConnection, label: str, customer: str | None) -> bool:
    """Return whether the owner of a link may still use it: a removed contact may not, nor one of a customer that is
    being deleted. A link that a command has printed has no contact, and stays usable.

    Until the transaction ends, no contact of the customer is removed: who does that next, ends the session, too.
    """
    if customer is None or not label.startswith(CONTACT):
        return True
    await customers.find_row(connection, customer, lock=True)
    return customer in await list_customers(connection, label.removeprefix(CONTACT))
