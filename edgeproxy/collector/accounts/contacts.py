"""Contacts: the people who may sign in for a customer, by a link that is mailed to their address."""

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
from edgeproxy.config.collector.pages import MAILBOX, read_mailbox
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.units import value_error

CONTACTS_MAX = 50
"""Contacts of a customer at most."""
SENSITIVE_SECONDS = 7 * 86400
"""Seconds for which a contact may do nothing that is sensitive, where whoever added it could not either."""
CUSTOMERS_MAX = 20
"""Customers for which one contact gets links by one mail, or chooses among after a sign-in at an issuer."""


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


class Contact(TypedDict):
    """A contact of a customer."""

    email: str
    """The e-mail address."""
    role: ContactRole
    """What the contact may do: everything, build, or pay."""
    signed_in_at: str | None
    """The time of the latest sign-in; null: never."""


class ContactList(TypedDict):
    """The contacts of a customer."""

    emails: list[str]
    """The e-mail addresses of all contacts."""
    contacts: list[Contact]
    """All contacts."""


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


async def fetch_contacts(connection: AsyncConnection, ref: str) -> list[Contact]:
    """Return the contacts of a customer, by id or name, in the order of their addresses; raises ChangeRejectedError."""
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
    """Return the addresses of the contacts of a customer, by id or name; raises ChangeRejectedError."""
    return [contact["email"] for contact in await fetch_contacts(connection, ref)]


def to_response(of_customer: Sequence[Contact]) -> ContactList:
    """Return the contacts of a customer as the API has them."""
    return {"emails": [contact["email"] for contact in of_customer], "contacts": list(of_customer)}


async def find_sensitive_from(
    connection: AsyncConnection, ref: str, caller: Caller, now: float, *, is_trusted: bool
) -> int | None:
    """Return the Unix second from which a contact may do what is sensitive whom a caller adds now; None: at once.

    `is_trusted`: the caller may do what is sensitive itself. An owner's colleague may from when the owner may: so
    nobody whom the rule holds up is helped by a second address. Raises ChangeRejectedError.
    """
    if not caller.actor.startswith(CONTACT):
        return None if is_trusted else int(now) + SENSITIVE_SECONDS
    return await _fetch_held_until(connection, ref, caller.actor, now)


async def require_trusted(connection: AsyncConnection, customer: str, label: str, now: float) -> None:
    """Raise ChangeRejectedError where a contact of a customer may not do what is sensitive yet."""
    held_until = await _fetch_held_until(connection, customer, label, now)
    if held_until is not None:
        at = format_timestamp(held_until * 1000)
        raise ChangeRejectedError(403, f"you are new here: you may do this from {at} on, or once an owner confirms you")


async def _fetch_held_until(connection: AsyncConnection, ref: str, label: str, now: float) -> int | None:
    """Return the Unix second until which a contact may do nothing that is sensitive; None where it may now."""
    owner = await customers.get_row(connection, ref)
    is_theirs = match_value(connection, contacts.name, "email", label.removeprefix(CONTACT))
    statement = sa.select(contacts.c.sensitive_from).where(contacts.c.customer == owner.id, is_theirs)
    held_until: int | None = (await connection.execute(statement)).scalar()
    return held_until if held_until is not None and held_until > now else None


async def put_contacts(
    connection: AsyncConnection, caller: Caller, ref: str, body: Contacts, sensitive_from: int | None = None
) -> ContactList:
    """Replace the contacts of a customer; removed ones lose sessions, links and alerts, new ones are owners.

    These may do what is sensitive from the Unix second `sensitive_from` on. Raises ChangeRejectedError.
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
        await customers.note_email_change(connection, owner.id)
        labels = [format_label(email) for email in removed]
        theirs = (sign_in_links.c.customer == owner.name) & match_value(
            connection, sign_in_links.name, "label", *labels
        )
        await connection.execute(sa.delete(sign_in_links).where(theirs))
    return to_response(await fetch_contacts(connection, owner.id))


async def delete_contacts(
    connection: AsyncConnection, caller: Caller, owner: CustomerRow, emails: Collection[str]
) -> None:
    """Delete contacts of a locked customer, with their sessions, their held forms and the mail of its alerts to them.

    Their links stay, and sign nobody in (`find_role`).
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
    """Return the names of the customers that have this contact, CUSTOMERS_MAX at most.

    Those for which the contact has signed in come first, the latest first, then the oldest customers: anybody may name
    an address as the contact of new ones.
    """
    joined = contacts.join(customers_table, customers_table.c.id == contacts.c.customer)
    theirs = match_value(connection, contacts.name, "email", email.lower()) & customers_table.c.deleting_since.is_(None)
    order = (contacts.c.signed_in_at.desc().nulls_last(), customers_table.c.created_at, customers_table.c.name)
    statement = sa.select(customers_table.c.name).select_from(joined).where(theirs).order_by(*order)
    return list((await connection.execute(statement.limit(CUSTOMERS_MAX))).scalars())


async def fetch_alert_recipients(connection: AsyncConnection, names: Iterable[str]) -> dict[str, Recipient]:
    """Return whom customers want their own alerts to be mailed to, by name, with the languages of contacts."""
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
    """Return the role in which the owner of a link signs in for a customer, and record that they do, in this language;
    None where they may not: a removed contact may not, nor one of a customer that is being deleted. A link that a
    command has printed has no contact, and is an owner's.

    Until the transaction ends, no contact of the customer is changed: who does that next, changes the session, too.
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
    role = (await connection.execute(update.returning(contacts.c.role))).scalar_one_or_none()
    return None if role is None else parse_role(role)
