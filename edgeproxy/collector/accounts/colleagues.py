"""Colleagues: the contacts of a customer, which its owners invite, give roles, and remove."""

from typing import Annotated

import sqlalchemy as sa
from pydantic import BeforeValidator, WithJsonSchema
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller, Values
from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_field
from edgeproxy.collector.accounts.contact_roles import OWNER, ContactRole
from edgeproxy.collector.accounts.contacts import (
    CONTACTS_MAX,
    Contact,
    ContactList,
    delete_contacts,
    fetch_contacts,
    format_label,
    to_response,
)
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.accounts.notices import notify_of_contact
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.database.page_tables import contacts, sessions
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.encryption.rows import match_value, seal_rows
from edgeproxy.collector.problems import account_codes
from edgeproxy.config.collector.pages import MAILBOX, read_mailbox

ADDRESS_SCHEMA = {"type": "string", "pattern": f"^{MAILBOX.pattern}$"}
LAST_OWNER = "somebody has to stay an owner"


def parse_address(value: object) -> str:
    """Return an address in lower case. Raises a value error."""
    return read_mailbox(value).lower()


Address = Annotated[str, BeforeValidator(parse_address), WithJsonSchema(ADDRESS_SCHEMA)]


class PutContactRequest(Body):
    """A contact of a customer and its role."""

    email: Address
    """The e-mail address."""
    role: ContactRole
    """The contact's rights: `owner` may do everything, `developer` manages keys and webhooks, `billing` manages plan
    and payments.
    """


class RemoveContactRequest(Body):
    """The contact who is removed."""

    email: Address
    """The e-mail address."""


async def put_contact(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    request: PutContactRequest,
    sensitive_from: int | None = None,
) -> tuple[bool, ContactList]:
    """Add a contact to a customer, or change its role. Return whether it is new, and all contacts.

    A change applies to the contact's sessions from their next request on. A contact that was not an owner may take
    sensitive actions from the Unix second `sensitive_from` on; None confirms any contact. Raises ChangeRejectedError.
    """
    owner = await customers.lock_not_erased(connection, ref)
    before = {contact["email"]: contact for contact in await fetch_contacts(connection, owner.id)}
    email, role = request.email, request.role
    existing = before.get(email)
    if existing is None:
        if len(before) >= CONTACTS_MAX:
            raise reject_field("email", f"would be one more than the {CONTACTS_MAX} people of a customer")
        await notify_of_contact(connection, caller, owner.name)
        new = [{"email": email, "customer": owner.id, "role": role, "sensitive_from": sensitive_from}]
        await connection.execute(sa.insert(contacts), await seal_rows(connection, contacts.name, new))
        await customers.note_payer_change(connection, owner.id)
        await _record(connection, caller, owner, None, {"email": email, "role": role})
        return True, to_response(await fetch_contacts(connection, owner.id))
    is_theirs = (contacts.c.customer == owner.id) & match_value(connection, contacts.name, "email", email)
    if sensitive_from is None or existing["role"] != OWNER:
        await connection.execute(sa.update(contacts).where(is_theirs).values(sensitive_from=sensitive_from))
    if existing["role"] != role:
        if role != OWNER:
            require_other_owner(list(before.values()), email)
        await connection.execute(sa.update(contacts).where(is_theirs).values(role=role))
        is_session = (sessions.c.customer == owner.name) & match_value(
            connection, sessions.name, "label", format_label(email)
        )
        async with across_customers(connection):
            await connection.execute(sa.update(sessions).where(is_session).values(contact_role=role))
        previous = {"email": email, "role": existing["role"]}
        await _record(connection, caller, owner, previous, {"email": email, "role": role})
    return False, to_response(await fetch_contacts(connection, owner.id))


async def remove_contact(connection: AsyncConnection, caller: Caller, ref: str, email: str) -> ContactList:
    """Remove a contact of a customer and end its sessions.

    Return the remaining contacts. Raises ChangeRejectedError.
    """
    owner = await customers.get_row(connection, ref, lock=True)
    before = await fetch_contacts(connection, owner.id)
    removed = next((contact for contact in before if contact["email"] == email), None)
    if removed is not None:
        require_other_owner(before, email)
        await _record(connection, caller, owner, {"email": email, "role": removed["role"]}, None)
        await delete_contacts(connection, caller, owner, {email})
        await customers.note_payer_change(connection, owner.id)
    return to_response([contact for contact in before if contact["email"] != email])


def require_other_owner(of_customer: list[Contact], email: str) -> None:
    """Raise ChangeRejectedError if this contact is the only owner."""
    owners = {contact["email"] for contact in of_customer if contact["role"] == OWNER}
    if owners == {email}:
        raise ChangeRejectedError(account_codes.LAST_OWNER, LAST_OWNER)


async def _record(
    connection: AsyncConnection,
    caller: Caller,
    owner: CustomerRow,
    before: Values | None,
    after: Values | None,
) -> None:
    await audit.append_entry(connection, caller, AuditEntry("customer.contacts", owner.name, before, after))
