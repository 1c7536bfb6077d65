"""The append-only journal of prepaid credits. Each transaction has the hash of the one before it.

`open_journal` locks the journal until the database transaction ends. A balance read under the lock is the one that
bookings apply to, also with several collectors. A caller that also writes to the audit log does so after the journal,
because locks are always taken in the same order. `verification.py` detects later changes, like
collector/accounts/audit.py for the audit log.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import documents
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.billing.journal.credit_events import enqueue_credit_events
from edgeproxy.collector.billing.journal.postings import (
    CreditBalance,
    Grant,
    JournalEntry,
    TransactionKind,
    apply_entries,
    compute_change,
)
from edgeproxy.collector.database.book_text import as_stored, find_book_cipher
from edgeproxy.collector.database.credit_tables import (
    DETAILS,
    credit_balances,
    credit_entries,
    credit_grants,
    credit_head,
    credit_transactions,
)
from edgeproxy.collector.database.schema import MINUTE
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.config.collector.currency_units import DECIMALS, USD

FIRST_HASH = "0" * 64
"""The hash before the first transaction."""
LOOKED_UP_MAX = 5_000
"""The most customers that one statement looks up."""
HASHED = ("seq", "at", "customer", "kind", "source", "original", "slice", "amount", "details")
KEPT = frozenset({"fees"})
"""Details that stay when the others are cleared. They are amounts and times that revenue recognition needs."""
ENTRY_COLUMNS = ("seq", "position", "account", "amount", "grant_id", "meter", "model")
NO_SLICE = -1
BALANCE_ACCOUNTS = frozenset({"deferred", "overdraft"})
"""The accounts that make up a customer's balance."""
CREDIT_KINDS: frozenset[TransactionKind] = frozenset(
    (
        *("purchase", "gift", "withdrawal", "expiry", "expiry_reversed", "consumption", "cost", "usage_refund"),
        "usage_moved",
        *("refund", "refund_paid", "refund_failed", "chargeback", "chargeback_won"),
        *("moved_out", "moved_in"),
    )
)
"""The kinds of transactions in the currency of a customer's credits."""


class Posting(NamedTuple):
    """A transaction to book."""

    customer: str
    """The customer's id; empty if the transaction has no customer, like a payout."""
    kind: TransactionKind
    source: str
    """The identity of the transaction within its kind. Each kind and source is booked once."""
    entries: tuple[JournalEntry, ...]
    original: str = ""
    """The source of the transaction that this one reverses, or the grant that it is about."""
    slice: int = NO_SLICE
    details: Mapping[str, object] = {}
    currency: str = USD
    """The currency of all entries. A transaction about credits has the currency of the customer's credits."""

    @property
    def is_about_credits(self) -> bool:
        """True if it changes the credits of a customer."""
        return any(entry.account in BALANCE_ACCOUNTS for entry in self.entries)


class TransactionRow(NamedTuple):
    """A transaction row without its details and its hash."""

    seq: int
    at: int
    """Unix milliseconds."""
    customer: str
    kind: TransactionKind
    source: str
    original: str
    slice: int
    amount: int


class JournalHead(NamedTuple):
    """The end of the journal: its last transaction, and the first Unix second whose usage is not booked yet."""

    seq: int
    hash: str
    at: int
    """Unix milliseconds."""
    slice: int


class GrantRow(NamedTuple):
    """A grant row. Amounts are millicredits."""

    id: str
    customer: str
    number: int
    rest: int
    expires_at: int | None
    paid: int
    tax: int
    returned: int
    payment: str | None
    """The payment intent of a purchase."""

    def to_grant(self) -> Grant:
        """Return the grant in the form that bookings compute with."""
        return Grant(self.id, self.rest, self.expires_at, self.paid, self.tax, self.returned)


STORED = [
    as_stored(column).label(column.name) if column.name == "details" else column
    for column in credit_transactions.columns
]
"""The columns of a transaction as stored, which the hash covers. Details may be sealed."""
TRANSACTION_FIELDS = [credit_transactions.c[name] for name in TransactionRow._fields]
GRANT_FIELDS = [credit_grants.c[name] for name in GrantRow._fields]


class Journal:
    """The journal under its lock. `open_journal` creates it."""

    def __init__(self, connection: AsyncConnection, head: JournalHead, now: int) -> None:
        self.connection = connection
        self._cipher = find_book_cipher(connection)
        # Times in the journal never go back, even if this collector's clock is slow. So a day that was closed stays
        # closed.
        self.at = max(now, head.at)
        """The Unix millisecond of all transactions booked now."""
        self.slice: int = head.slice
        """The first Unix second whose usage is not booked yet; 0 if none is booked."""
        self._seq, self._hash, self._was_slice = head.seq, head.hash, head.slice
        self._balances: dict[str, CreditBalance] = {}
        self._payments: dict[str, str | None] = {}
        """Payment intents by the id of the new grant."""
        self._stored: set[str] = set()
        """Customers with a stored balance."""
        self._currencies: dict[str, str] = {}
        """The credit currency of each customer whose balance was read."""
        self._transactions: list[dict[str, object]] = []
        self._entries: list[dict[str, object]] = []
        self._touched: dict[str, str] = {}
        """Changed grants, with their customers."""
        self._granted: dict[str, int] = {}
        """Changes of the sum of all credits, by customer."""
        self._changed: set[str] = set()
        """Customers whose balance may have changed."""

    async def find_transaction(self, kind: TransactionKind, source: str) -> TransactionRow | None:
        """Return the transaction of this kind and source, or None."""
        condition = (credit_transactions.c.kind == kind) & (credit_transactions.c.source == source)
        row = (await self.connection.execute(sa.select(*TRANSACTION_FIELDS).where(condition))).one_or_none()
        return None if row is None else TransactionRow(*row)

    async def list_followers(self, kind: TransactionKind, original: str) -> list[int]:
        """Return the numbers of the transactions of this kind that name `original`."""
        condition = (credit_transactions.c.kind == kind) & (credit_transactions.c.original == original)
        return list(await self.connection.scalars(sa.select(credit_transactions.c.seq).where(condition)))

    async def fetch_credit_balance(self, customer: str) -> CreditBalance:
        """Return the balance of a customer with all its grants, including spent ones."""
        if customer not in self._balances:
            await self.load_balances([customer], spent=True)
        return self._balances[customer]

    def get_credit_balance(self, customer: str) -> CreditBalance:
        """Return a balance that `load_balances` has read. Raises KeyError."""
        return self._balances[customer]

    async def load_balances(self, customers: Sequence[str], *, spent: bool = False) -> None:
        """Read the balances of these customers, with spent grants if `spent` is set."""
        for at in range(0, len(customers), LOOKED_UP_MAX):
            page = customers[at : at + LOOKED_UP_MAX]
            grants: dict[str, list[Grant]] = {customer: [] for customer in page}
            conditions: list[sa.ColumnElement[bool]] = [credit_grants.c.customer.in_(page)]
            if not spent:
                conditions.append(credit_grants.c.rest != 0)
            for row in await fetch_grants(self.connection, *conditions):
                grants[row.customer].append(row.to_grant())
            balances = sa.select(credit_balances).where(credit_balances.c.customer.in_(page))
            overdrafts = {row.customer: row.overdraft for row in await self.connection.execute(balances)}
            self._stored.update(overdrafts)
            currencies = sa.select(customers_table.c.id, customers_table.c.currency).where(
                customers_table.c.id.in_(page), customers_table.c.currency.is_not(None)
            )
            self._currencies.update(dict.fromkeys(page, USD))
            self._currencies.update({row.id: row.currency for row in await self.connection.execute(currencies)})
            for customer in page:
                self._balances[customer] = CreditBalance(tuple(grants[customer]), overdrafts.get(customer, 0))

    def get_currency(self, customer: str) -> str:
        """Return the credit currency of a customer whose balance was read. Raises KeyError."""
        return self._currencies[customer]

    def set_currency(self, customer: str, currency: str) -> None:
        """Set the currency of a customer's first credits, which also fixes the currency of its later charges."""
        self._currencies[customer] = currency

    def create_grant(self, customer: str, grant: Grant, payment: str | None = None) -> None:
        """Create a grant. The next booking adds its credits."""
        balance = self._balances[customer]
        self._balances[customer] = balance._replace(grants=(*balance.grants, grant))
        self._payments[grant.id] = payment
        self._touched[grant.id] = customer

    def record_return(self, customer: str, grant: str, amount: int) -> None:
        """Record that a part of a grant's price was refunded. A negative amount records that it came back."""
        balance = self._balances[customer]
        grants = [
            other._replace(returned=other.returned + amount) if other.id == grant else other for other in balance.grants
        ]
        self._balances[customer] = balance._replace(grants=tuple(grants))
        self._touched[grant] = customer

    def book(self, posting: Posting) -> int:
        """Book a transaction, and return its number.

        A transaction about credits gets the currency of the customer's credits; the customer's balance must have been
        read. Raises ValueError if the transaction does not balance, or if its kind may not change credits.
        """
        # Other kinds state their own currency, for example a payout, which has no customer.
        if posting.kind in CREDIT_KINDS:
            posting = posting._replace(currency=self._currencies[posting.customer])
        _check_posting(posting)
        self._seq += 1
        amount = compute_change(posting.entries)
        row: dict[str, object] = {
            "seq": self._seq,
            "at": self.at,
            "customer": posting.customer or None,
            "kind": posting.kind,
            "source": posting.source,
            "original": posting.original,
            "slice": posting.slice,
            "amount": amount,
            "details": self._format_details(posting.details),
            "currency": posting.currency,
        }
        # The hash covers the details as stored, so `verify` needs no key.
        self._hash = compute_hash(self._hash, row, posting.entries)
        self._transactions.append({**row, "hash": self._hash})
        self._entries += [
            dict(zip(ENTRY_COLUMNS, (self._seq, position, *entry), strict=True))
            for position, entry in enumerate(posting.entries)
        ]
        for entry in posting.entries:
            if entry.grant:
                self._touched[entry.grant] = posting.customer
        # `granted` is all that was ever available, so consumption does not lower it.
        if posting.customer and posting.kind != "consumption":
            self._granted[posting.customer] = self._granted.get(posting.customer, 0) + amount
        if posting.is_about_credits:
            self._balances[posting.customer] = apply_entries(self._balances[posting.customer], posting.entries)
            self._changed.add(posting.customer)
        return self._seq

    def _format_details(self, details: Mapping[str, object]) -> str:
        """Return details as stored: sealed with this year's key, unless all of them are retained after its end."""
        text = orjson.dumps(dict(details), option=orjson.OPT_SORT_KEYS).decode()
        if self._cipher is None or KEPT.issuperset(details):
            return text
        return self._cipher.seal(text, DETAILS, is_looked_up=False)

    async def flush(self) -> None:
        """Write the booked transactions, and the balances and grants that they change."""
        if self._transactions or self.slice != self._was_slice:
            values = {"seq": self._seq, "hash": self._hash, "at": self.at, "slice": self.slice}
            await self.connection.execute(sa.update(credit_head).values(**values))
        if not self._transactions:
            return
        await self.connection.execute(sa.insert(credit_transactions), self._transactions)
        if self._entries:  # The transaction of a zero invoice has no entries.
            await self.connection.execute(sa.insert(credit_entries), self._entries)
        created: list[tuple[str, Grant]] = []
        changed: list[tuple[str, Grant]] = []
        for id_, customer in self._touched.items():
            grant = self._balances[customer].grant(id_)
            assert grant is not None
            # `create_grant` enters each new grant in `_payments`, a gift with None.
            (created if id_ in self._payments else changed).append((customer, grant))
        if created:
            await self.connection.execute(sa.insert(credit_grants), [self._grant_row(*item) for item in created])
        if changed:
            # SQLAlchemy reserves the names of columns for the values to set, so the parameters have other names.
            statement = sa.update(credit_grants).where(credit_grants.c.id == sa.bindparam("of"))
            rows = [{"of": grant.id, "left": grant.rest, "back": grant.returned} for _, grant in changed]
            changed_columns = statement.values(rest=sa.bindparam("left"), returned=sa.bindparam("back"))
            await self.connection.execute(changed_columns, rows)
        await self._write_balances(self._changed)
        await enqueue_credit_events(self.connection, self._transactions)

    async def _write_balances(self, customers: Iterable[str]) -> None:
        """Write the balances of these customers."""
        since = self.at // 1000 - self.at // 1000 % MINUTE
        old: list[dict[str, object]] = []
        new: list[dict[str, object]] = []
        for customer in sorted(customers):
            balance = self._balances[customer]
            granted = self._granted.get(customer, 0)
            if customer in self._stored:
                old.append({"of": customer, "has": balance.balance, "owes": balance.overdraft, "more": granted})
            else:
                sums = {"balance": balance.balance, "overdraft": balance.overdraft, "granted": granted}
                new.append({"customer": customer, "since": since, **sums})
        if old:
            statement = sa.update(credit_balances).where(credit_balances.c.customer == sa.bindparam("of"))
            # `granted` grows by the change, so that this statement needs no earlier value of it.
            statement = statement.values(balance=sa.bindparam("has"), overdraft=sa.bindparam("owes"))
            await self.connection.execute(
                statement.values(granted=credit_balances.c.granted + sa.bindparam("more")), old
            )
        if new:
            await self.connection.execute(sa.insert(credit_balances), new)
        # Edges get the sum of all credits and count their use themselves. Consumption is no news to them.
        await self._notify_edges([customer for customer, more in self._granted.items() if more])

    async def _notify_edges(self, customers: Sequence[str]) -> None:
        """Notify edges of the new credit sums of these customers, by id."""
        for at in range(0, len(customers), LOOKED_UP_MAX):
            statement = sa.select(customers_table.c.name).where(
                customers_table.c.id.in_(customers[at : at + LOOKED_UP_MAX])
            )
            await documents.enqueue_changes(self.connection, "customer", await self.connection.scalars(statement))

    def _grant_row(self, customer: str, grant: Grant) -> dict[str, object]:
        return {
            "id": grant.id,
            "customer": customer,
            "number": self._seq,
            "rest": grant.rest,
            "expires_at": grant.expires,
            "paid": grant.paid,
            "tax": grant.tax,
            "returned": grant.returned,
            "payment": self._payments[grant.id],
        }


def _check_posting(posting: Posting) -> None:
    """Raise ValueError if a transaction does not balance, or has a currency or kind that is not allowed."""
    if sum(entry.amount for entry in posting.entries):
        raise ValueError(f"a {posting.kind} of {posting.customer} does not balance")
    if posting.currency not in DECIMALS:
        raise ValueError(f"a {posting.kind} of {posting.customer} cannot be in {posting.currency}")
    if posting.is_about_credits and posting.kind not in CREDIT_KINDS:
        raise ValueError(f"a {posting.kind} of {posting.customer} cannot change credits")


@asynccontextmanager
async def open_journal(connection: AsyncConnection) -> AsyncIterator[Journal]:
    """Open the journal, locked until the database transaction ends. The end of the block writes the bookings."""
    # The lock on this row gives transactions one order. Each of them continues the chain of hashes.
    statement = sa.select(*(credit_head.c[name] for name in JournalHead._fields)).with_for_update()
    books = Journal(connection, JournalHead._make((await connection.execute(statement)).one()), now_ms())
    yield books
    await books.flush()


async def fetch_grants(connection: AsyncConnection, *conditions: sa.ColumnElement[bool]) -> list[GrantRow]:
    """Return the grants that meet all conditions, in the order of their creation."""
    statement = sa.select(*GRANT_FIELDS).where(*conditions).order_by(credit_grants.c.number, credit_grants.c.id)
    return [GrantRow._make(row) for row in await connection.execute(statement)]


def compute_hash(prev: str, row: Mapping[str, object] | sa.RowMapping, entries: Sequence[JournalEntry]) -> str:
    """Return the hash of a transaction after the hash `prev`: SHA-256 in hex of its JSON.

    A transaction in US dollars has no currency in its hash, like those written before other currencies were supported.
    """
    currency = [] if row["currency"] == USD else [row["currency"]]
    content = [prev, *(row[name] for name in HASHED), *currency, [list(entry) for entry in entries]]
    return hashlib.sha256(orjson.dumps(content)).hexdigest()


async def fetch_entries(connection: AsyncConnection, seqs: Sequence[int]) -> list[JournalEntry]:
    """Return the entries of these transactions, in order."""
    columns = credit_entries.c
    statement = sa.select(columns.account, columns.amount, columns.grant_id, columns.meter, columns.model)
    ordered = statement.where(columns.seq.in_(seqs)).order_by(columns.seq, columns.position)
    return [JournalEntry(*row) for row in await connection.execute(ordered)]


async def fetch_balance(connection: AsyncConnection, customer: str, at: int | None = None) -> int:
    """Return the millicredits that a customer can spend after all bookings up to this Unix millisecond.

    Without `at` it is the balance now.
    """
    if at is None:
        statement = sa.select(credit_balances.c.balance).where(credit_balances.c.customer == customer)
        return await connection.scalar(statement) or 0
    transactions = credit_transactions.c
    until = (transactions.customer == customer) & (transactions.at <= at)
    total = sa.select(sa.func.sum(transactions.amount)).where(until)
    return int((await connection.execute(total)).scalar_one() or 0)


async def list_grants(connection: AsyncConnection, customer: str) -> list[Grant]:
    """Return the grants of a customer, in the order of their creation."""
    return [row.to_grant() for row in await fetch_grants(connection, credit_grants.c.customer == customer)]
