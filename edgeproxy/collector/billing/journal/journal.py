"""The journal: transactions that are only ever added, each with the hash of the one before it.

`journal` holds the lock under which all transactions follow each other until the database's transaction ends. So what
is read of a purse is what is booked on, with several collectors too. Whoever also writes to the audit log does so
afterwards: locks are taken in one order. `verify` finds what was changed later, as collector/accounts/audit.py does.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import documents
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.billing.journal.postings import Entry, Grant, Kind, Purse, applied, change
from edgeproxy.collector.database.credit_tables import (
    credit_balances,
    credit_entries,
    credit_grants,
    credit_head,
    credit_transactions,
)
from edgeproxy.collector.database.schema import MINUTE
from edgeproxy.collector.database.schema import customers as names

FIRST_HASH = "0" * 64
"""What the first transaction has in the place of the hash before it."""
LOOKED_UP_MAX = 5_000
"""Customers that one statement looks up."""
HASHED = ("seq", "at", "customer", "kind", "source", "original", "slice", "amount", "details")
NO_SLICE = -1
PURSE = frozenset({"deferred", "overdraft"})
"""The accounts of what customers have."""


class Posting(NamedTuple):
    """A transaction that is to be booked."""

    customer: str
    kind: Kind
    source: str
    """What makes it this one: of a kind and a source there is one transaction."""
    entries: tuple[Entry, ...]
    original: str = ""
    """What it takes back, or the grant that it is about."""
    slice: int = NO_SLICE
    details: Mapping[str, Any] = {}


class Tampered(Exception):
    """The journal is not what was written, or does not balance: a sentence that names the first thing wrong."""


class Journal:
    """The journal under its lock; `journal` makes one."""

    def __init__(self, connection: AsyncConnection, head: Any, now: int) -> None:
        self.connection = connection
        self.at = max(now, head.at)
        """The Unix millisecond at which all is booked that is booked now."""
        self.slice: int = head.slice
        """The Unix second from which on usage is not booked yet; 0: none is."""
        self._seq, self._hash, self._was_slice = head.seq, head.hash, head.slice
        self._purses: dict[str, Purse] = {}
        self._payments: dict[str, str | None] = {}
        """Of the grants that are new: what they were paid by."""
        self._there: set[str] = set()
        """Customers that have a balance already."""
        self._transactions: list[dict[str, Any]] = []
        self._entries: list[dict[str, Any]] = []
        self._touched: dict[str, str] = {}
        """Grants that have changed, with their customers."""
        self._granted: dict[str, int] = {}
        """By how much what customers have ever had to spend has changed."""
        self._moved: set[str] = set()
        """Customers whose balance has changed, or might have."""

    async def posted(self, kind: Kind, source: str) -> Any:
        """The transaction of this kind and source; None where there is none."""
        wanted = (credit_transactions.c.kind == kind) & (credit_transactions.c.source == source)
        return (await self.connection.execute(sa.select(credit_transactions).where(wanted))).one_or_none()

    async def purse(self, customer: str) -> Purse:
        """What a customer has, with all grants that there ever were."""
        if customer not in self._purses:
            await self.load([customer], spent=True)
        return self._purses[customer]

    def loaded(self, customer: str) -> Purse:
        """What a customer has whose purse was read before."""
        return self._purses[customer]

    async def load(self, customers: Sequence[str], *, spent: bool = False) -> None:
        """Read what these customers have; grants without a rest only where `spent` ones are asked for."""
        for at in range(0, len(customers), LOOKED_UP_MAX):
            some = customers[at : at + LOOKED_UP_MAX]
            grants: dict[str, list[Grant]] = {customer: [] for customer in some}
            wanted = sa.select(credit_grants).where(credit_grants.c.customer.in_(some))
            if not spent:
                wanted = wanted.where(credit_grants.c.rest != 0)
            for row in await self.connection.execute(wanted.order_by(credit_grants.c.number, credit_grants.c.id)):
                grants[row.customer].append(grant_of(row))
            balances = sa.select(credit_balances).where(credit_balances.c.customer.in_(some))
            overdrafts = {row.customer: row.overdraft for row in await self.connection.execute(balances)}
            self._there.update(overdrafts)
            for customer in some:
                self._purses[customer] = Purse(tuple(grants[customer]), overdrafts.get(customer, 0))

    def begin(self, customer: str, grant: Grant, payment: str | None = None) -> None:
        """Make a grant, which gets its credits by what is booked next."""
        purse = self._purses[customer]
        self._purses[customer] = purse._replace(grants=(*purse.grants, grant))
        self._payments[grant.id] = payment
        self._touched[grant.id] = customer

    def returned(self, customer: str, grant: str, amount: int) -> None:
        """Note that so much of what was paid for a grant has gone back; below zero: has come again."""
        purse = self._purses[customer]
        grants = [one._replace(returned=one.returned + amount) if one.id == grant else one for one in purse.grants]
        self._purses[customer] = purse._replace(grants=tuple(grants))
        self._touched[grant] = customer

    def book(self, posting: Posting) -> int:
        """Book a transaction; the number that it gets. Raises ValueError where it does not balance."""
        if sum(entry.amount for entry in posting.entries):
            raise ValueError(f"a {posting.kind} of {posting.customer} does not balance")
        self._seq += 1
        row = {
            "seq": self._seq,
            "at": self.at,
            "customer": posting.customer,
            "kind": posting.kind,
            "source": posting.source,
            "original": posting.original,
            "slice": posting.slice,
            "amount": change(posting.entries),
            "details": orjson.dumps(dict(posting.details), option=orjson.OPT_SORT_KEYS).decode(),
        }
        self._hash = row["hash"] = chained(self._hash, row, posting.entries)
        self._transactions.append(row)
        self._entries += [
            {
                "seq": self._seq,
                "position": position,
                "account": entry.account,
                "amount": entry.amount,
                "grant_id": entry.grant,
                "meter": entry.meter,
                "model": entry.model,
            }
            for position, entry in enumerate(posting.entries)
        ]
        for entry in posting.entries:
            if entry.grant:
                self._touched[entry.grant] = posting.customer
        if posting.kind != "consumption":
            self._granted[posting.customer] = self._granted.get(posting.customer, 0) + row["amount"]
        if any(entry.account in PURSE for entry in posting.entries):
            self._purses[posting.customer] = applied(self._purses[posting.customer], posting.entries)
            self._moved.add(posting.customer)
        return int(self._seq)

    async def close(self) -> None:
        """Write what was booked."""
        if self._transactions or self.slice != self._was_slice:
            values = {"seq": self._seq, "hash": self._hash, "at": self.at, "slice": self.slice}
            await self.connection.execute(sa.update(credit_head).values(**values))
        if not self._transactions:
            return
        await self.connection.execute(sa.insert(credit_transactions), self._transactions)
        await self.connection.execute(sa.insert(credit_entries), self._entries)
        made: list[tuple[str, Grant]] = []
        changed: list[tuple[str, Grant]] = []
        for id_, customer in self._touched.items():
            grant = self._purses[customer].grant(id_)
            assert grant is not None
            (made if id_ in self._payments else changed).append((customer, grant))
        if made:
            await self.connection.execute(sa.insert(credit_grants), [self._row_of(*one) for one in made])
        if changed:
            statement = sa.update(credit_grants).where(credit_grants.c.id == sa.bindparam("of"))
            rows = [{"of": grant.id, "left": grant.rest, "back": grant.returned} for _, grant in changed]
            left: dict[str, Any] = {"rest": sa.bindparam("left"), "returned": sa.bindparam("back")}
            await self.connection.execute(statement.values(**left), rows)
        await self._write_balances(self._moved)

    async def _write_balances(self, customers: Iterable[str]) -> None:
        """Write what these customers have, whether there was a balance of theirs or not."""
        since = self.at // 1000 - self.at // 1000 % MINUTE
        old: list[dict[str, Any]] = []
        new: list[dict[str, Any]] = []
        for customer in sorted(customers):
            purse = self._purses[customer]
            sums = {"has": purse.balance, "owes": purse.overdraft, "more": self._granted.get(customer, 0)}
            (old if customer in self._there else new).append({"of": customer, **sums})
        if old:
            statement = sa.update(credit_balances).where(credit_balances.c.customer == sa.bindparam("of"))
            values: dict[str, Any] = {"balance": sa.bindparam("has"), "overdraft": sa.bindparam("owes")}
            values["granted"] = credit_balances.c.granted + sa.bindparam("more")
            await self.connection.execute(statement.values(**values), old)
        if new:
            rows = [
                {
                    "customer": one["of"],
                    "balance": one["has"],
                    "overdraft": one["owes"],
                    "since": since,
                    "granted": one["more"],
                }
                for one in new
            ]
            await self.connection.execute(sa.insert(credit_balances), rows)
        await self._tell_edges([customer for customer, more in self._granted.items() if more])

    async def _tell_edges(self, customers: Sequence[str]) -> None:
        """Have edges hear of all that these customers, by id, ever had to spend."""
        for at in range(0, len(customers), LOOKED_UP_MAX):
            some = sa.select(names.c.name).where(names.c.id.in_(customers[at : at + LOOKED_UP_MAX]))
            await documents.note(self.connection, "customer", (await self.connection.execute(some)).scalars())

    def _row_of(self, customer: str, grant: Grant) -> dict[str, Any]:
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


@asynccontextmanager
async def journal(connection: AsyncConnection) -> AsyncIterator[Journal]:
    """The journal, locked until the transaction of the database ends; what is booked is written at the end of this."""
    head = (await connection.execute(sa.select(credit_head).with_for_update())).one()
    made = Journal(connection, head, now_ms())
    yield made
    await made.close()


def grant_of(row: Any) -> Grant:
    """A grant, of its row."""
    return Grant(row.id, row.rest, row.expires_at, row.paid, row.tax, row.returned)


def chained(prev: str, row: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    """Return the hash of a transaction behind one with the hash `prev`: SHA-256 in hex of all of it, as JSON."""
    said = [prev, *(row[name] for name in HASHED), [list(entry) for entry in entries]]
    return hashlib.sha256(orjson.dumps(said)).hexdigest()


async def entries_of(connection: AsyncConnection, seqs: Sequence[int]) -> list[Entry]:
    """The entries of these transactions, in their order."""
    columns = credit_entries.c
    wanted = sa.select(columns.account, columns.amount, columns.grant_id, columns.meter, columns.model)
    ordered = wanted.where(columns.seq.in_(seqs)).order_by(columns.seq, columns.position)
    return [Entry(*row) for row in await connection.execute(ordered)]


async def verify(connection: AsyncConnection) -> int:
    """Return how many transactions there are, if they are a chain and balance, and what each grant and each customer
    has, and ever had to spend, is the sum of their entries; raises Tampered.
    """
    head = (await connection.execute(sa.select(credit_head))).one()
    entries, transactions = credit_entries.c, credit_transactions.c
    statement = (
        sa.select(credit_transactions, entries.amount.label("booked"))
        .add_columns(entries.account, entries.grant_id, entries.meter, entries.model)
        .join_from(credit_transactions, credit_entries, entries.seq == transactions.seq, isouter=True)
        .order_by(transactions.seq, entries.position)
    )
    books = _Books()
    async for row in await connection.stream(statement):
        books.read(row)
    books.end()
    if (books.seq, books.hash) != (head.seq, head.hash):
        last = f"credit transactions {books.seq + 1} to {head.seq} were taken out"
        raise Tampered(last if head.seq > books.seq else f"the head of the journal was changed: it says {head.seq}")
    rests = {row.id: row.rest for row in await connection.execute(sa.select(credit_grants))}
    of_customers = (await connection.execute(sa.select(credit_balances))).all()
    balances = {row.customer: row.balance for row in of_customers}
    granted = {row.customer: row.granted for row in of_customers}
    for what, there, booked in (
        ("grant", rests, books.rests),
        ("balance of", balances, books.balances),
        ("sum of all credits of", granted, books.granted),
    ):
        for name in sorted({*there, *booked}):
            if there.get(name, 0) != booked.get(name, 0):
                raise Tampered(f"the {what} {name} is {there.get(name)}, and its entries come to {booked.get(name, 0)}")
    return books.seq


class _Books:
    """What is found as the journal is read, entry by entry."""

    def __init__(self) -> None:
        self.seq, self.hash = 0, FIRST_HASH
        self.rests: dict[str, int] = {}
        self.balances: dict[str, int] = {}
        self.granted: dict[str, int] = {}
        self._row: Any = None
        self._entries: list[Entry] = []

    def read(self, row: Any) -> None:
        """Take the next entry with its transaction."""
        if self._row is not None and row.seq != self._row.seq:
            self.end()
        self._row = row
        if row.account is not None:
            self._entries.append(Entry(row.account, row.booked, row.grant_id, row.meter, row.model))

    def end(self) -> None:
        """The transaction is whole; raises Tampered."""
        row, entries = self._row, self._entries
        if row is None:
            return
        self._row, self._entries = None, []
        if row.seq != self.seq + 1:
            raise Tampered(f"credit transaction {self.seq + 1} was taken out")
        if chained(self.hash, row._mapping, entries) != row.hash:
            raise Tampered(f"credit transaction {row.seq} was changed, or the one before it")
        if sum(entry.amount for entry in entries) or change(entries) != row.amount:
            raise Tampered(f"credit transaction {row.seq} does not balance")
        self.seq, self.hash = row.seq, row.hash
        self.balances[row.customer] = self.balances.get(row.customer, 0) + row.amount
        if row.kind != "consumption":
            self.granted[row.customer] = self.granted.get(row.customer, 0) + row.amount
        for entry in entries:
            if entry.grant:
                self.rests[entry.grant] = self.rests.get(entry.grant, 0) - entry.amount


async def differences(connection: AsyncConnection) -> list[str]:
    """What does not balance, by sums of the database alone: names of customers, and `journal`. Empty where all does."""
    entries, transactions = credit_entries.c, credit_transactions.c
    whole = (await connection.execute(sa.select(sa.func.sum(entries.amount)))).scalar_one()
    booked = (
        sa.select(transactions.customer, sa.func.sum(-entries.amount).label("booked"))
        .join_from(credit_transactions, credit_entries, entries.seq == transactions.seq)
        .where(entries.account.in_(PURSE))
        .group_by(transactions.customer)
        .subquery()
    )
    both = (
        sa.select(credit_balances.c.customer)
        .join_from(credit_balances, booked, booked.c.customer == credit_balances.c.customer, isouter=True)
        .where(credit_balances.c.balance != sa.func.coalesce(booked.c.booked, 0))
        .order_by(credit_balances.c.customer)
    )
    found = list((await connection.execute(both)).scalars())
    return ["journal", *found] if whole else found


async def balance(connection: AsyncConnection, customer: str, at: int | None = None) -> int:
    """What a customer had to spend after all that was booked until this Unix millisecond; None: what there is now."""
    if at is None:
        wanted = sa.select(credit_balances.c.balance).where(credit_balances.c.customer == customer)
        return (await connection.execute(wanted)).scalar_one_or_none() or 0
    transactions = credit_transactions.c
    until = (transactions.customer == customer) & (transactions.at <= at)
    total = sa.select(sa.func.sum(transactions.amount)).where(until)
    return int((await connection.execute(total)).scalar_one() or 0)


async def grants(connection: AsyncConnection, customer: str) -> list[Grant]:
    """The grants of a customer, in the order in which they came."""
    wanted = sa.select(credit_grants).where(credit_grants.c.customer == customer)
    ordered = wanted.order_by(credit_grants.c.number, credit_grants.c.id)
    return [grant_of(row) for row in await connection.execute(ordered)]
