"""The verification of the journal: its chain of hashes, and its sums by grant and customer."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.journal.journal import BALANCE_ACCOUNTS, FIRST_HASH, STORED, compute_hash
from edgeproxy.collector.billing.journal.postings import JournalEntry, compute_change
from edgeproxy.collector.database.credit_tables import (
    credit_balances,
    credit_entries,
    credit_grants,
    credit_head,
    credit_transactions,
)


class JournalTamperedError(Exception):
    """The journal was altered after it was written, or does not balance. The message names the first fault."""


async def verify_journal(connection: AsyncConnection) -> int:
    """Return the number of transactions if the journal is consistent. Raises JournalTamperedError.

    The transactions must form a chain and balance, and each grant and customer must have the sum of its entries.
    """
    head = (await connection.execute(sa.select(credit_head))).one()
    entries, transactions = credit_entries.c, credit_transactions.c
    statement = (
        sa.select(*STORED, entries.amount.label("booked"))
        .add_columns(entries.account, entries.grant_id, entries.meter, entries.model)
        .join_from(credit_transactions, credit_entries, entries.seq == transactions.seq, isouter=True)
        .order_by(transactions.seq, entries.position)
    )
    books = _JournalReader(head.cleared_seq, head.cleared_hash)
    # Streamed: a journal may be larger than memory.
    async for row in (await connection.stream(statement)).mappings():
        books.add_row(row)
    books.end_transaction()
    # Only the head shows that transactions at the end are missing.
    if (books.seq, books.hash) != (head.seq, head.hash):
        last = f"credit transactions {books.seq + 1} to {head.seq} were taken out"
        raise JournalTamperedError(
            last if head.seq > books.seq else f"the head of the journal was changed: it says {head.seq}"
        )
    rests = {row.id: row.rest for row in await connection.execute(sa.select(credit_grants))}
    of_customers = (await connection.execute(sa.select(credit_balances))).all()
    balances = {row.customer: row.balance for row in of_customers}
    granted = {row.customer: row.granted for row in of_customers}
    for what, stored, booked in (
        ("grant", rests, books.rests),
        ("balance of", balances, books.balances),
        ("sum of all credits of", granted, books.granted),
    ):
        # Both sides: a row without entries is as wrong as entries without a row.
        for name in sorted({*stored, *booked}):
            if stored.get(name, 0) != booked.get(name, 0):
                raise JournalTamperedError(
                    f"the {what} {name} is {stored.get(name)}, and its entries come to {booked.get(name, 0)}"
                )
    return books.seq


class _JournalReader:
    """Verifies the journal entry by entry, and sums the entries of each grant and customer."""

    def __init__(self, cleared_seq: int, cleared_hash: str) -> None:
        self.seq, self.hash = 0, FIRST_HASH
        self._cleared_seq, self._cleared_hash = cleared_seq, cleared_hash
        self._left = FIRST_HASH
        """The hash over the rest of the transactions with cleared details, up to the last one."""
        self.rests: dict[str, int] = {}
        self.balances: dict[str, int] = {}
        self.granted: dict[str, int] = {}
        self._row: sa.RowMapping | None = None
        self._entries: list[JournalEntry] = []

    def add_row(self, row: sa.RowMapping) -> None:
        """Add an entry with its transaction, by column names."""
        if self._row is not None and row["seq"] != self._row["seq"]:
            self.end_transaction()
        self._row = row
        # The outer join also yields transactions without entries, for example of a zero invoice.
        if row["account"] is not None:
            entry = JournalEntry(row["account"], row["booked"], row["grant_id"], row["meter"], row["model"])
            self._entries.append(entry)

    def end_transaction(self) -> None:
        """Verify the completed transaction. Raises JournalTamperedError."""
        row, entries = self._row, self._entries
        if row is None:
            return
        self._row, self._entries = None, []
        seq, customer, amount = row["seq"], row["customer"] or "", row["amount"]
        if seq != self.seq + 1:
            raise JournalTamperedError(f"credit transaction {self.seq + 1} was taken out")
        if seq <= self._cleared_seq:
            # The stored hashes include the details that were cleared. The head has a hash over the rest.
            self._left = compute_hash(self._left, row, entries)
            if seq == self._cleared_seq and self._left != self._cleared_hash:
                raise JournalTamperedError(f"one of the credit transactions 1 to {seq}, without details, was changed")
        elif compute_hash(self.hash, row, entries) != row["hash"]:
            raise JournalTamperedError(f"credit transaction {seq} was changed, or the one before it")
        if sum(entry.amount for entry in entries) or compute_change(entries) != amount:
            raise JournalTamperedError(f"credit transaction {seq} does not balance")
        self.seq, self.hash = seq, row["hash"]
        self.balances[customer] = self.balances.get(customer, 0) + amount
        # `granted` is all that was ever available, as the journal writes it.
        if row["kind"] != "consumption":
            self.granted[customer] = self.granted.get(customer, 0) + amount
        for entry in entries:
            if entry.grant:
                self.rests[entry.grant] = self.rests.get(entry.grant, 0) - entry.amount


async def list_differences(connection: AsyncConnection) -> list[str]:
    """Return the ids of customers whose balance differs from the sum of their entries.

    The result includes `journal` if the whole journal does not sum to 0 in each currency.
    """
    entries, transactions = credit_entries.c, credit_transactions.c
    is_unbalanced = any((await sum_journal(connection)).values())
    booked = (
        sa.select(transactions.customer, sa.func.sum(-entries.amount).label("booked"))
        .join_from(credit_transactions, credit_entries, entries.seq == transactions.seq)
        .where(entries.account.in_(BALANCE_ACCOUNTS))
        .group_by(transactions.customer)
        .subquery()
    )
    both = (
        sa.select(credit_balances.c.customer)
        .join_from(credit_balances, booked, booked.c.customer == credit_balances.c.customer, isouter=True)
        .where(credit_balances.c.balance != sa.func.coalesce(booked.c.booked, 0))
        .order_by(credit_balances.c.customer)
    )
    differing = list(await connection.scalars(both))
    return ["journal", *differing] if is_unbalanced else differing


async def sum_journal(connection: AsyncConnection) -> dict[str, int]:
    """Return the sum of all entries by currency, which should be 0 in each."""
    entries, transactions = credit_entries.c, credit_transactions.c
    statement = (
        sa.select(transactions.currency, sa.cast(sa.func.sum(entries.amount), sa.BigInteger))
        .join_from(credit_transactions, credit_entries, entries.seq == transactions.seq)
        .group_by(transactions.currency)
    )
    return {row.currency: row[1] for row in await connection.execute(statement)}
