"""Personal data in the audit log with `encryption`: sealed before it is chained, so the chain survives an erasure.

The customer's data key encrypts the details of changes of the customer. Destroying the key erases the details; the
entry stays. This also holds for a customer's objects, for example an alert or an invoice, if the entry names their
owner: the ciphertext then ends with the customer's id. Details of an erased customer are never stored. A contact's
address is stored as the keyed hash that `contacts.email` has.
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
"""Actions whose target begins with a customer's name and whose details are about that customer.

Other details about a customer are sealed if their entry names the owner.
"""
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
"""Actions whose details are about no customer, or remain as proof after an erasure. Each has its reason."""
OWNER = "@"
"""The separator before the customer's id at the end of a ciphertext, used if the target does not name the customer."""
ERASED = '{"erased":true}'
"""The details of an entry whose data key is destroyed, or whose customer was erased before."""
TABLE = "audit"


class Details(NamedTuple):
    """The stored fields of an entry without its time and caller. `before` and `after` are JSON or a ciphertext."""

    action: str
    target: str
    before: str | None
    after: str | None
    customer: str | None = None
    """The id or name of the customer that the details are about, if the target does not name it."""

    @property
    def owner(self) -> str | None:
        """The id or name of the customer whose data key seals the details, or None."""
        return self.customer or (_get_customer(self.target) if self.action in SEALED_ACTIONS else None)


async def seal_details(connection: AsyncConnection, entries: Sequence[Details]) -> list[Details]:
    """Return entries in their stored form. Raises KeysUnavailableError."""
    if find_keyring(connection) is None:
        return list(entries)
    owners = {entry.owner for entry in entries if entry.owner is not None}
    ids, erased = await _fetch_customers(connection, owners, reads_keys=True)
    keys = await fetch_data_keys(connection, set(ids.values()) - erased, create=True)
    return [_seal(connection, entry, ids.get(entry.owner or ""), keys) for entry in entries]


def _seal(connection: AsyncConnection, entry: Details, customer: str | None, keys: DataKeys) -> Details:
    """Return a customer's entry in its stored form; `customer` is an id, or None if no data key seals the entry."""
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
    """Return entries with their details opened. Raises KeysUnavailableError and SealedValueError."""
    owners = [_find_owner(entry) for entry in entries]
    sealed = {owner for owner in owners if owner is not None}
    if not sealed:
        return list(entries)
    refs, erased = await _fetch_customers(connection, sealed)
    # A key created after the erasure opens no earlier entries.
    there = {ref: id_ for ref, id_ in refs.items() if id_ not in erased}
    ids = [there.get(owner or "", "") for owner in owners]
    needed = frozenset(filter(None, ids))
    try:
        keys = await find_data_keys(connection, needed)
        return [open_entry(entry, id_, keys) for entry, id_ in zip(entries, ids, strict=True)]
    except SealedValueError:  # Another collector may have replaced a key that is cached here.
        keys = await fetch_data_keys(connection, needed)
        return [_open_or_mark(entry, id_, keys) for entry, id_ in zip(entries, ids, strict=True)]


def _open_or_mark(entry: Details, customer: str, keys: DataKeys) -> Details:
    """Return an entry with its details, or with UNREADABLE_DETAILS if they were altered.

    The entry's actor and action remain readable.
    """
    try:
        return open_entry(entry, customer, keys)
    except SealedValueError as error:
        set_aside(TABLE, f"{entry.action} {hash_unreadable(str(entry.after or entry.before))}", error)
        return entry._replace(before=None, after=UNREADABLE_DETAILS)


UNREADABLE_DETAILS = '{"unreadable":true}'
"""The details of an entry that were damaged."""


def open_entry(entry: Details, customer: str, keys: DataKeys) -> Details:
    """Return a customer's entry with its details; `customer` is an id, or "" if erased. Raises SealedValueError."""
    texts = {}
    for column in ("before", "after"):
        text: str | None = getattr(entry, column)
        if text is not None and is_sealed(text):
            is_there, bound = keys.has(customer), (TABLE, column, entry.action, entry.target)
            sealed = text.partition(OWNER)[0]
            texts[column] = keys.open_text(customer, sealed, *bound) if is_there else ERASED
    return entry._replace(**texts)


def _find_owner(entry: Details) -> str | None:
    """Return the id or name of the customer whose data key sealed an entry, or None if it is not sealed."""
    sealed = next((text for text in (entry.after, entry.before) if text is not None and is_sealed(text)), None)
    return None if sealed is None else sealed.partition(OWNER)[2] or _get_customer(entry.target)


def is_sealed(text: str | None) -> bool:
    """Return whether details are encrypted."""
    return text is not None and text.startswith(CIPHERTEXT)


def hide_contact(connection: AsyncConnection, name: str) -> str:
    """Return an actor or a target in its stored form: a contact's address as a keyed hash."""
    keyring = find_keyring(connection)
    if keyring is None or not name.startswith(CONTACT):
        return name
    return CONTACT + hash_value(keyring, "contacts", "email", name.removeprefix(CONTACT))


def _get_customer(target: str) -> str:
    """Return the customer's name in a target like `acme` or `acme/we_…`."""
    return target.partition("/")[0]


async def _fetch_customers(
    connection: AsyncConnection, names: Iterable[str], *, reads_keys: bool = False
) -> tuple[dict[str, str], frozenset[str]]:
    """Return the ids of these customers by name and by id, and the ids of the erased ones.

    With `reads_keys` this query also reads their data keys, so that `fetch_data_keys` finds them cached.
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
