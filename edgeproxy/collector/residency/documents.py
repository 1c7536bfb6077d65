"""The data of a customer that goes to another residency, as JSON. Collectors of two versions may exchange it.

Keys go as hashes. Everything else stays: usage, invoices, webhooks and their secrets, tokens and reserved places.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import orjson
import sqlalchemy as sa
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.accounts import key_rows
from edgeproxy.collector.accounts.change import reject_fields
from edgeproxy.collector.accounts.contact_roles import ContactRole
from edgeproxy.collector.accounts.contacts import CONTACTS_MAX
from edgeproxy.collector.accounts.fields import Digest, Metadata, Scopes, Text, parse_customer_name
from edgeproxy.collector.accounts.key_budgets import KeyBudgetRequest, StoredBudget, parse_budget
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.accounts.rows import CustomerRow, KeyRow
from edgeproxy.collector.billing.journal.journal import fetch_balance
from edgeproxy.collector.database.page_tables import contacts
from edgeproxy.collector.database.quota_tables import limit_raises
from edgeproxy.collector.database.schema import keys
from edgeproxy.collector.encryption.rows import fetch_rows
from edgeproxy.collector.problems.coded_error import FieldFault
from edgeproxy.config.collector.currency_units import Currency
from edgeproxy.config.collector.pages import read_mailbox
from edgeproxy.config.customers import Customer
from edgeproxy.config.field_types import Name
from edgeproxy.config.limits import KeyLimit

FORMAT = 1


class MovedContact(Body):
    """A contact."""

    email: Annotated[str, BeforeValidator(read_mailbox)]
    role: ContactRole
    language: Text | None = None
    sensitive_from: int | None = None
    """Unix seconds. It is left out if absent, as older versions expect."""


class MovedKey(Body):
    """A key that can be used."""

    sha256: Digest
    start: Text
    name: Text | None = None
    scopes: Scopes | None = None
    limits: tuple[KeyLimit, ...] | None = None
    budget: KeyBudgetRequest | None = None
    expires_at: int | None = None
    """Unix milliseconds."""


class MovedRaise(Body):
    """A raise of limits that is not over."""

    factor: Annotated[int, Field(ge=2, le=100)]
    created_at: int
    ends_at: int
    why: Text


class CustomerDocument(Body):
    """A customer as it goes to another residency."""

    format: Literal[1]
    peer: Text
    """The id of the customer at the residency that it leaves."""
    name: Annotated[Name, AfterValidator(parse_customer_name)]
    settings: Customer
    external_id: Text | None = None
    metadata: Metadata = Field(default_factory=dict)
    rotate_every: int | None = None
    """Seconds."""
    currency: Currency | None = None
    millicredits: int = 0
    """The credits that are transferred separately, so that it is known early whether they can be spent."""
    contacts: Annotated[tuple[MovedContact, ...], Field(max_length=CONTACTS_MAX)] = ()
    limit_raise: MovedRaise | None = None
    keys: tuple[MovedKey, ...] = ()


def parse_document(document: Mapping[str, object]) -> CustomerDocument:
    """Return the data of a customer; raises ChangeRejectedError(422), whose faults do not show any values."""
    try:
        return CustomerDocument.model_validate(document)
    except ValidationError as error:
        places = [".".join(map(str, fault["loc"])) or "document" for fault in error.errors()]
        faults = [FieldFault(f"document.{place}", "cannot be used here") for place in places[:20]]
        raise reject_fields(faults) from None


async def build_document(connection: AsyncConnection, row: CustomerRow, now: int) -> JsonObject:
    """Build the data of a customer at this Unix millisecond."""
    balance = await fetch_balance(connection, row.id)
    settings = orjson.loads(row.settings)
    settings.pop("moved", None)
    return {
        "format": FORMAT,
        "peer": row.id,
        "name": row.display_name or row.name,
        "settings": settings,
        "external_id": row.external_id,
        "metadata": orjson.loads(row.metadata),
        "rotate_every": row.rotate_every,
        "currency": row.currency,
        "millicredits": balance,
        "contacts": await _fetch_contacts(connection, row.id, now),
        "limit_raise": await _find_raise(connection, row.id, now),
        "keys": [_dump_key(key) for key in await fetch_usable_keys(connection, row.id, now)],
    }


async def fetch_usable_keys(connection: AsyncConnection, customer: str, now: int) -> list[KeyRow]:
    """Return the keys of a customer, by id, that work at this Unix millisecond."""
    usable = (keys.c.customer == customer) & keys.c.revoked_at.is_(None)
    usable &= keys.c.expires_at.is_(None) | (keys.c.expires_at > now)
    statement = key_rows.select_keys(connection).where(usable).order_by(keys.c.id)
    return [KeyRow._make(row) for row in await connection.execute(statement)]


def _dump_key(row: KeyRow) -> JsonObject:
    budget = parse_budget(row.budget)
    return {
        "sha256": row.sha256,
        "start": row.start,
        "name": row.name,
        "scopes": None if row.scopes is None else orjson.loads(row.scopes),
        "limits": None if row.limits is None else orjson.loads(row.limits),
        "budget": None if budget is None else _dump_budget(budget),
        "expires_at": row.expires_at,
    }


def _dump_budget(budget: StoredBudget) -> JsonObject:
    return {"amount": budget.amount, "per": budget.per, "meter": budget.meter, "currency": budget.currency}


async def _fetch_contacts(connection: AsyncConnection, customer: str, now: int) -> list[JsonObject]:
    rows = await fetch_rows(connection, contacts.name, sa.select(contacts).where(contacts.c.customer == customer))
    dumped: list[JsonObject] = []
    for row in rows:
        contact: JsonObject = {"email": str(row["email"]), "role": str(row["role"])}
        if row["language"] is not None:
            contact["language"] = str(row["language"])
        if (held_until := row["sensitive_from"]) is not None and int(held_until) * 1000 > now:  # type: ignore[call-overload]
            contact["sensitive_from"] = held_until  # type: ignore[assignment]
        dumped.append(contact)
    return sorted(dumped, key=lambda contact: str(contact["email"]))


async def _find_raise(connection: AsyncConnection, customer: str, now: int) -> JsonObject | None:
    current = (limit_raises.c.customer == customer) & (limit_raises.c.ends_at > now)
    for row in await fetch_rows(connection, limit_raises.name, sa.select(limit_raises).where(current)):
        return {name: row[name] for name in ("factor", "created_at", "ends_at", "why")}  # type: ignore[misc]
    return None
