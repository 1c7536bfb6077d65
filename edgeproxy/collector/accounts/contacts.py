"""Contacts: the people who may sign in for a customer through a link mailed to their address."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated

import orjson
import sqlalchemy as sa
from pydantic import BeforeValidator, WithJsonSchema
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.audit_details import CONTACT
from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_field
from edgeproxy.collector.accounts.contact_roles import OWNER, ContactRole, parse_role
from edgeproxy.collector.accounts.models import Body, UpdateCustomerRequest
from edgeproxy.collector.accounts.notices import notify_of_contact
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.alerts.deliveries import Recipient
from edgeproxy.collector.database.page_tables import contacts, held_forms, sessions, sign_in_links
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.encryption.rows import fetch_rows, match_value, seal_rows
from edgeproxy.collector.problems import request_codes
from edgeproxy.config.collector.pages import MAILBOX, read_mailbox
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.field_codes import NOT_A_CONTACT
from edgeproxy.config.units import value_error

CONTACTS_MAX = 50
"""The most contacts of a customer."""
SENSITIVE_SECONDS = 7 * 86400
"""A new contact may take no sensitive action for this many seconds if the person who added it could not either."""
CUSTOMERS_MAX = 20
"""The most customers that one mail has links for, or that a contact can choose from after sign-in at an issuer."""


def parse_contacts(value: object) -> tuple[str, ...]:
    """Return a list of addresses in lower case, sorted. Raises a value error."""
    hint = f"a list of at most {CONTACTS_MAX} addresses"
    if not isinstance(value, list | tuple) or len(value) > CONTACTS_MAX:
        raise value_error("cannot be used", hint)
    return tuple(sorted({read_mailbox(address).lower() for address in value}))


def parse_alert_address(value: object) -> str | None:
    """Return an address in lower case, or None for null. Raises a value error."""
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
    """The e-mail addresses of all contacts. A contact whose address is not in the list loses access."""


class Contact(TypedDict):
    """A contact of a customer."""

    email: str
    """The e-mail address."""
    role: ContactRole
    """The contact's rights: everything, keys and webhooks, or plan and payments."""
    signed_in_at: str | None
    """The time of the latest sign-in; null: never."""


class ContactList(TypedDict):
    """The contacts of a customer."""

    emails: list[str]
    """The e-mail addresses of all contacts."""
    contacts: list[Contact]
    """All contacts."""


class AlertAddress(Body):
    """The contact that gets a customer's own alerts by mail; null if none does."""

    email: Annotated[str | None, BeforeValidator(parse_alert_address), WithJsonSchema(ADDRESS_SCHEMA)]
    """The e-mail address of a contact of the customer; null turns alert mails off."""


class CustomerAlertAddress(TypedDict):
    """The address for a customer's own alerts, and whether this collector mails alerts."""

    email: str | None
    """The e-mail address; null if no alerts are mailed."""
    is_mailed: bool
    """True if this collector mails alerts to customers."""


def format_label(email: str) -> str:
    """Return the name of a contact in the audit log."""
    return f"{CONTACT}{email}"


async def fetch_contacts(connection: AsyncConnection, ref: str) -> list[Contact]:
    """Return the contacts of a customer, by id or name, sorted by address. Raises ChangeRejectedError."""
    owner = await customers.get_row(connection, ref)
    statement = sa.select(contacts).where(contacts.c.customer == owner.id)
    rows = await fetch_rows(connection, contacts.name, statement)
    return sorted(map(_to_contact, rows), key=lambda contact: contact["email"])


def _to_contact(row: Mapping[str, object]) -> Contact:
    at = row["signed_in_at"]
    return {
        "email": str(row["email"]),
        "role": parse_role(str(row["role"])),
        "signed_in_at": format_timestamp(at * 1000) if isinstance(at, int) else None,
    }


async def list_contacts(connection: AsyncConnection, ref: str) -> list[str]:
    """Return the addresses of the contacts of a customer, by id or name. Raises ChangeRejectedError."""
    return [contact["email"] for contact in await fetch_contacts(connection, ref)]


def to_response(of_customer: Sequence[Contact]) -> ContactList:
    """Return the contacts of a customer in the form of the API."""
    return {"emails": [contact["email"] for contact in of_customer], "contacts": list(of_customer)}


async def find_sensitive_from(
    connection: AsyncConnection, ref: str, caller: Caller, now: float, *, is_trusted: bool
) -> int | None:
    """Return the Unix second when a contact added now may first take sensitive actions; None means at once.

    `is_trusted` means that the caller may take them itself. If the caller is a contact, the new one waits as long as
    the caller, so a second address does not shorten the wait. Raises ChangeRejectedError.
    """
    if not caller.actor.startswith(CONTACT):
        return None if is_trusted else int(now) + SENSITIVE_SECONDS
    return await _fetch_held_until(connection, ref, caller.actor, now)


async def require_trusted(connection: AsyncConnection, customer: str, label: str, now: float) -> None:
    """Raise ChangeRejectedError if a contact of a customer may not take sensitive actions yet."""
    held_until = await _fetch_held_until(connection, customer, label, now)
    if held_until is not None:
        at = format_timestamp(held_until * 1000)
        raise ChangeRejectedError(
            request_codes.CONTACT_TOO_NEW,
            f"you are new here: you may do this from {at} on, or once an owner confirms you",
        )


async def _fetch_held_until(connection: AsyncConnection, ref: str, label: str, now: float) -> int | None:
    """Return the Unix second until which a contact may take no sensitive action, or None if it may now."""
    owner = await customers.get_row(connection, ref)
    is_theirs = match_value(connection, contacts.name, "email", label.removeprefix(CONTACT))
    statement = sa.select(contacts.c.sensitive_from).where(contacts.c.customer == owner.id, is_theirs)
    held_until: int | None = (await connection.execute(statement)).scalar()
    return held_until if held_until is not None and held_until > now else None


async def put_contacts(
    connection: AsyncConnection, caller: Caller, ref: str, body: Contacts, sensitive_from: int | None = None
) -> ContactList:
    """Replace the contacts of a customer. New contacts are owners; removed ones lose sessions, links and alerts.

    New contacts may take sensitive actions from the Unix second `sensitive_from` on. Raises ChangeRejectedError.
    """
    owner = await customers.lock_not_erased(connection, ref)
    before = await list_contacts(connection, owner.id)
    after = list(body.emails)
    if after != before:
        removed, added = set(before) - set(after), set(after) - set(before)
        if added:
            await notify_of_contact(connection, caller, owner.name)
            fields = {"customer": owner.id, "role": OWNER, "sensitive_from": sensitive_from}
            new = [{"email": email, **fields} for email in added]
            await connection.execute(sa.insert(contacts), await seal_rows(connection, contacts.name, new))
        entry = AuditEntry("customer.contacts", owner.name, {"emails": before}, {"emails": after})
        await audit.append_entry(connection, caller, entry)
        await delete_contacts(connection, caller, owner, removed)
        await customers.note_payer_change(connection, owner.id)
        labels = [format_label(email) for email in removed]
        theirs = (sign_in_links.c.customer == owner.name) & match_value(
            connection, sign_in_links.name, "label", *labels
        )
        await connection.execute(sa.delete(sign_in_links).where(theirs))
    return to_response(await fetch_contacts(connection, owner.id))


async def delete_contacts(
    connection: AsyncConnection, caller: Caller, owner: CustomerRow, emails: Collection[str]
) -> None:
    """Delete contacts of a locked customer with their sessions and held forms, and stop alert mails to them.

    Their sign-in links stay, but `find_role` rejects them.
    """
    is_removed = match_value(connection, contacts.name, "email", *emails)
    await connection.execute(sa.delete(contacts).where(contacts.c.customer == owner.id, is_removed))
    labels = [format_label(email) for email in emails]
    async with across_customers(connection):
        for table in (sessions, held_forms):
            theirs = (table.c.customer == owner.name) & match_value(connection, table.name, "label", *labels)
            await connection.execute(sa.delete(table).where(theirs))
    if orjson.loads(owner.metadata).get(customers.ALERT_ADDRESS, "").lower() in emails:
        await customers.delete_alert_address(connection, caller, owner)


async def find_alert_address(connection: AsyncConnection, ref: str) -> str | None:
    """Return the address for a customer's own alerts, by id or name, or None. Raises ChangeRejectedError."""
    owner = await customers.get_row(connection, ref)
    return (await customers.fetch_alert_addresses(connection, [owner.name])).get(owner.name)


async def put_alert_address(
    connection: AsyncConnection, caller: Caller, ref: str, email: str | None, collector_settings: CollectorSettings
) -> None:
    """Set the contact that receives a customer's own alerts, or None. Raises ChangeRejectedError."""
    owner = await customers.get_row(connection, ref, lock=True)
    if email is not None and email not in await list_contacts(connection, owner.id):
        raise reject_field("email", "is no contact of the customer", NOT_A_CONTACT)
    metadata = orjson.loads(owner.metadata)
    metadata.pop(customers.ALERT_ADDRESS, None)
    if email is not None:
        metadata[customers.ALERT_ADDRESS] = email
    change = UpdateCustomerRequest.model_validate({}).model_copy(update={"metadata": metadata})
    await customers.update_customer(connection, caller, owner.id, change, collector_settings)


async def list_customers(connection: AsyncConnection, email: str) -> list[str]:
    """Return the names of the customers that have this contact, at most CUSTOMERS_MAX.

    Customers that the contact has signed in for come first, latest first, then the oldest customers. Any new customer
    may name an address as its contact, so the newest come last.
    """
    joined = contacts.join(customers_table, customers_table.c.id == contacts.c.customer)
    theirs = match_value(connection, contacts.name, "email", email.lower()) & customers_table.c.deleting_since.is_(None)
    order = (contacts.c.signed_in_at.desc().nulls_last(), customers_table.c.created_at, customers_table.c.name)
    statement = sa.select(customers_table.c.name).select_from(joined).where(theirs).order_by(*order)
    return list(await connection.scalars(statement.limit(CUSTOMERS_MAX)))


async def fetch_alert_recipients(connection: AsyncConnection, names: Iterable[str]) -> dict[str, Recipient]:
    """Return the recipients of customers' own alerts by customer name, with the contacts' languages."""
    recipients = {}
    for name, address in (await customers.fetch_alert_addresses(connection, names)).items():
        is_theirs = match_value(connection, contacts.name, "email", address.lower())
        owned = contacts.join(customers_table, customers_table.c.id == contacts.c.customer)
        statement = sa.select(contacts.c.language).select_from(owned).where(customers_table.c.name == name, is_theirs)
        recipients[name] = Recipient(address, (await connection.execute(statement)).scalar())
    return recipients


async def find_role(
    connection: AsyncConnection, label: str, customer: str, now: float, language: str
) -> ContactRole | None:
    """Return the role that a link's owner gets for a customer, and record the sign-in with its language.

    The role is None if the contact was removed or the customer is being deleted. A link printed by a command has no
    contact, and has an owner's role.

    The customer's row is locked until the transaction ends. A concurrent change of contacts therefore runs later and
    also ends the new session.
    """
    if not label.startswith(CONTACT):
        return OWNER
    row = await customers.find_row(connection, customer, lock=True)
    if row is None or row.deleting_since is not None:
        return None
    is_theirs = match_value(connection, contacts.name, "email", label.removeprefix(CONTACT))
    update = (
        sa.update(contacts)
        .where(contacts.c.customer == row.id, is_theirs)
        .values(signed_in_at=int(now), language=language)
    )
    role = await connection.scalar(update.returning(contacts.c.role))
    return None if role is None else parse_role(role)
