"""Personal data in the audit log, where `encryption` is set: sealed before it is chained, so the chain outlives it.

Details of changes of a customer are encrypted by the customer's data key; with that key they are gone, and the entry
stays. So are those of what belongs to a customer, such as an alert or an invoice, where the entry says whose it is: its
ciphertext ends with the customer's id. Details of a customer who is erased already are never stored. The address of a
contact is a keyed hash, the one that `contacts.email` has.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.encryption_tables import data_keys
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.unreadable_rows import hash_unreadable, set_aside
from edgeproxy.collector.encryption.data_keys import (
    CIPHERTEXT,
    DataKeys,
    SealedValueError,
    fetch_data_keys,
    find_data_keys,
    unwrap_data_keys,
)
from edgeproxy.collector.encryption.keyring import find_keyring
from edgeproxy.collector.encryption.rows import hash_value

CONTACT = "contact:"
"""The prefix of contacts' names in the audit log."""
SEALED_ACTIONS = frozenset(
    (
        *("customer.create", "customer.change", "customer.contacts", "customer.import", "customer.spend_alerts"),
        *(
            "customer.currency",
            "customer.public-key",
            "key.create",
            "key.change",
            "key.revoke",
            "key.restore",
            "key.rotate",
        ),
        *("webhook.create", "webhook.change", "webhook.delete", "limits.raise", "limits.revert"),
        *("subscription.create", "subscription.change", "subscription.coupon", "subscription.import"),
        *("subscription.import_dropped", "usage.correct"),
    )
)
"""Actions on a target that begins with the name of a customer, with details about it. Other details of a customer are
sealed where their entry says whose they are."""
CLEAR_ACTIONS: Mapping[str, str] = {
    "customer.delete": "states alone, which prove an erasure after it",
    "customer.restore": "states alone, as of `customer.delete`",
    "customer.erase": "states alone, as of `customer.delete`",
    "customer.erase_at_stripe": "an id at Stripe, which proves what was deleted there",
    "customer.deleted_at_stripe": "an id at Stripe, as of `customer.erase_at_stripe`",
    "customer.export": "it has no details",
    "customer.move": "ids and states, as of `customer.delete`",
    "customer.move_document": "it has no details",
    "customer.arrive": "ids, states and how many keys came, as of `customer.delete`",
    "customer.withdraw_arrival": "ids and states, as of `customer.delete`",
    "residency.aggregates": "it has no details",
    "end_user.erase": "counts",
    "credits.clear_details": "a number and a hash, by which the journal is proved",
    "privacy_request.create": "kind and law, which prove after an erasure that it was asked for",
    "privacy_request.step": "states, as of `privacy_request.create`",
    "holdings.change": "counts",
    "session.link": "it has no details",
    "denied": "who was denied is nobody yet; `why` is the collector's text",
    "flag.put": "about all customers: shares, tiers, and names, which stay",
    "price_change.schedule": "about all who have a plan",
    "price_change.withdraw": "about all who have a plan",
    "price_change.done": "about all who have a plan",
    "incident.create": "published",
    "incident.update": "published",
    "maintenance.announce": "published",
    "maintenance.update": "published",
    "edge.change": "about an edge",
    "quarantine.replay": "about an edge",
    "checks.run": "states and a count",
    "directory.back": "it has no details",
    "encryption.destroy_book_keys": "years",
    "encryption.rotate": "counts",
    "billing.replay": "it has no details",
    "billing.rollout": "about all who are charged",
    "billing.stop": "about all who are charged",
    "billing.resume": "about all who are charged",
}
"""Actions whose details are about no customer, or prove something once the customer is erased; each with why."""
OWNER = "@"
"""What is before the id of the customer at the end of a ciphertext whose target does not name it."""
ERASED = '{"erased":true}'
"""The details of an entry whose data key is gone, or whose customer was erased before."""
TABLE = "audit"


class Details(NamedTuple):
    """What is stored of an entry, but its time and its caller. `before` and `after` are JSON, or a ciphertext."""

    action: str
    target: str
    before: str | None
    after: str | None
    customer: str | None = None
    """The id or the name of the customer whom the details are about, where the target does not name it."""

    @property
    def owner(self) -> str | None:
        """The id or the name of the customer whose data key seals the details; None where none does."""
        return self.customer or (_get_customer(self.target) if self.action in SEALED_ACTIONS else None)


async def seal_details(connection: AsyncConnection, entries: Sequence[Details]) -> list[Details]:
    """Return entries as they are stored; raises KeysUnavailableError."""
    if find_keyring(connection) is None:
        return list(entries)
    owners = {entry.owner for entry in entries if entry.owner is not None}
    ids, erased = await _fetch_customers(connection, owners, reads_keys=True)
    keys = await fetch_data_keys(connection, set(ids.values()) - erased, create=True)
    return [_seal(connection, entry, ids.get(entry.owner or ""), keys) for entry in entries]


def _seal(connection: AsyncConnection, entry: Details, customer: str | None, keys: DataKeys) -> Details:
    """Return an entry of a customer, by id, as it is stored; None: of nobody whose data key could seal it."""
    stored = entry._replace(target=hide_contact(connection, entry.target))
    if customer is None:
        return stored
    ending = "" if entry.customer is None else f"{OWNER}{customer}"

    def seal(column: str, text: str | None) -> str | None:
        if text is None:
            return None
        if not keys.has(customer):
            return ERASED
        return keys.seal_text(customer, text, TABLE, column, stored.action, stored.target) + ending

    return stored._replace(before=seal("before", entry.before), after=seal("after", entry.after))


async def open_details(connection: AsyncConnection, entries: Sequence[Details]) -> list[Details]:
    """Return entries with their details; raises KeysUnavailableError and SealedValueError."""
    owners = [_find_owner(entry) for entry in entries]
    sealed = {owner for owner in owners if owner is not None}
    if not sealed:
        return list(entries)
    refs, erased = await _fetch_customers(connection, sealed)
    there = {ref: id_ for ref, id_ in refs.items() if id_ not in erased}  # A key made since opens nothing of before.
    ids = [there.get(owner or "", "") for owner in owners]
    needed = frozenset(filter(None, ids))
    try:
        keys = await find_data_keys(connection, needed)
        return [open_entry(entry, id_, keys) for entry, id_ in zip(entries, ids, strict=True)]
    except SealedValueError:  # One that was unwrapped lately may be another collector's no more.
        keys = await fetch_data_keys(connection, needed)
        return [_open_or_mark(entry, id_, keys) for entry, id_ in zip(entries, ids, strict=True)]


def _open_or_mark(entry: Details, customer: str, keys: DataKeys) -> Details:
    """Return an entry with its details, which are UNREADABLE where they were changed: who did what is still told."""
    try:
        return open_entry(entry, customer, keys)
    except SealedValueError as error:
        set_aside(TABLE, f"{entry.action} {hash_unreadable(str(entry.after or entry.before))}", error)
        return entry._replace(before=None, after=UNREADABLE_DETAILS)


UNREADABLE_DETAILS = '{"unreadable":true}'
"""The details of an entry that were damaged."""


def open_entry(entry: Details, customer: str, keys: DataKeys) -> Details:
    """Return an entry of a customer, by id, with its details; "" is one who is erased. Raises SealedValueError."""
    texts = {}
    for column in ("before", "after"):
        text: str | None = getattr(entry, column)
        if text is not None and is_sealed(text):
            is_there, bound = keys.has(customer), (TABLE, column, entry.action, entry.target)
            sealed = text.partition(OWNER)[0]
            texts[column] = keys.open_text(customer, sealed, *bound) if is_there else ERASED
    return entry._replace(**texts)


def _find_owner(entry: Details) -> str | None:
    """Return the id or the name of the customer by whose data key an entry is sealed; None where it is not."""
    sealed = next((text for text in (entry.after, entry.before) if text is not None and is_sealed(text)), None)
    return None if sealed is None else sealed.partition(OWNER)[2] or _get_customer(entry.target)


def is_sealed(text: str | None) -> bool:
    """Return whether details are encrypted."""
    return text is not None and text.startswith(CIPHERTEXT)


def hide_contact(connection: AsyncConnection, name: str) -> str:
    """Return an actor or a target as it is stored: the address of a contact as a keyed hash."""
    keyring = find_keyring(connection)
    if keyring is None or not name.startswith(CONTACT):
        return name
    return CONTACT + hash_value(keyring, "contacts", "email", name.removeprefix(CONTACT))


def _get_customer(target: str) -> str:
    """Return the name of the customer of a target: `acme`, `acme/we_…`."""
    return target.partition("/")[0]


async def _fetch_customers(
    connection: AsyncConnection, names: Iterable[str], *, reads_keys: bool = False
) -> tuple[dict[str, str], frozenset[str]]:
    """Return the ids of these customers, by name or id, as they are asked for, and the ids of those who are erased.

    With `reads_keys` their data keys are read too, so that `fetch_data_keys` has no need to.
    """
    keyring, ordered = find_keyring(connection), sorted(names)
    if keyring is None or not ordered:
        return {}, frozenset()
    statement = sa.select(customers.c.name, customers.c.id, customers.c.erased_at)
    if reads_keys:
        statement = statement.add_columns(data_keys.c.encryption_key, data_keys.c.wrapped)
        statement = statement.outerjoin_from(customers, data_keys, data_keys.c.customer == customers.c.id)
    named = customers.c.name.in_(ordered) | customers.c.id.in_(ordered)
    rows = (await connection.execute(statement.where(named))).all()
    if reads_keys:
        wrapped = [(row.id, row.encryption_key, row.wrapped) for row in rows if row.wrapped is not None]
        await unwrap_data_keys(connection, keyring, wrapped)
    erased = frozenset(row.id for row in rows if row.erased_at is not None)
    return {ref: row.id for row in rows for ref in (row.name, row.id)}, erased
