"""The day's journal for bookkeeping: balanced, the same bytes each time.

What was booked is in the day of its entry. Fees are revenue over the days that they pay for, usage when it was used,
credits when they are consumed. A day can be had once it is over, and from then on nothing is booked in it any more.

Bookkeeping counts cents, the journal millicredits. So each account's day is the difference of two rounded balances:
over any number of days an account is right to half a cent, and what rounding leaves is a line of its own.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits.statements import usd_of
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.rating.money import rounded, share
from edgeproxy.collector.database.credit_tables import credit_entries, credit_head, credit_transactions
from edgeproxy.collector.database.schema import DAY

ACCOUNTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cash": "Stripe Clearing",
        "fees": "Payment Processing Fees",
        "receivable": "Accounts Receivable",
        "deferred": "Deferred Revenue - Credits",
        "deferred_fees": "Deferred Revenue - Plan Fees",
        "overdraft": "Credit Overdrafts Receivable",
        "revenue": "Revenue - Usage",
        "revenue_fees": "Revenue - Plan Fees",
        "promotion": "Promotional Credits",
        "cogs": "Cost of Revenue",
        "payable": "Accrued Cost of Revenue",
        "refunds": "Refunds Payable",
        "breakage": "Revenue - Expired Credits",
        "tax": "Sales Tax Payable",
        "rounding": "Rounding",
    }
)
"""Every account, and the name that it has in books unless the configuration says another."""
Format = Literal["csv", "quickbooks", "xero"]
FORMATS: Final[tuple[Format, ...]] = ("csv", "quickbooks", "xero")


class NotOver(Exception):
    """The day is not over, so that its journal can still grow: a sentence."""


class Movement(NamedTuple):
    """What one kind of happening has moved on an account of a customer, in millicredits."""

    account: str
    kind: str
    customer: str
    amount: int


class Fee(NamedTuple):
    """A fee that was invoiced, in cents, and the seconds that it pays for."""

    amount: int
    start: int
    end: int
    booked: int
    """The Unix second at which it was booked."""
    customer: str

    def earned(self, second: int) -> int:
        """How many cents of it are revenue at this Unix second, whatever was booked late."""
        if self.booked >= second:
            return 0
        if self.end <= self.start:
            return self.amount
        return share(self.amount, min(max(second - self.start, 0), self.end - self.start), self.end - self.start)


class DayJournal(NamedTuple):
    """A day of the books."""

    day: date
    movements: Sequence[Movement]
    """Exact, in millicredits; they sum to zero."""
    cents: Sequence[tuple[str, int]]
    """By account, whole cents; they sum to zero."""


async def day_journal(connection: AsyncConnection, day: date, now: float) -> DayJournal:
    """The journal of a day; raises NotOver. In a transaction that writes: from here on nothing is booked in it."""
    begin = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    end = begin + DAY
    if now < end:
        raise NotOver(f"{day} is not over yet")
    await _close(connection, end * 1000)
    fees = await fees_between(connection, begin, end)
    movements = [*await _movements(connection, begin * 1000, end * 1000), *earned(fees, begin, end)]
    before, after = await balances_before(connection, begin * 1000), await balances_before(connection, end * 1000)
    for second, balances in ((begin, before), (end, after)):
        revenue = CENT * sum(fee.earned(second) for fee in fees)
        balances["deferred_fees"] = balances.get("deferred_fees", 0) + revenue
        balances["revenue_fees"] = balances.get("revenue_fees", 0) - revenue
    return DayJournal(day, sorted(movements), in_cents(before, after))


def earned(fees: Iterable[Fee], begin: int, end: int) -> Iterator[Movement]:
    """What of these fees became revenue in a day."""
    for fee in fees:
        amount = CENT * (fee.earned(end) - fee.earned(begin))
        if amount:
            yield Movement("deferred_fees", "fee_earned", fee.customer, amount)
            yield Movement("revenue_fees", "fee_earned", fee.customer, -amount)


def in_cents(before: Mapping[str, int], after: Mapping[str, int]) -> list[tuple[str, int]]:
    """By how many cents each account has moved between two balances, in the order of ACCOUNTS; what rounding leaves is
    the last line.
    """
    lines = []
    for account in ACCOUNTS:
        moved = rounded(after.get(account, 0), CENT) - rounded(before.get(account, 0), CENT)
        if moved:
            lines.append((account, moved))
    rest = -sum(amount for _, amount in lines)
    return [*lines, ("rounding", rest)] if rest else lines


def written(journal: DayJournal, form: Format, names: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """A day as a file that bookkeeping takes; `names` are those of accounts that the configuration gives."""
    return FORMS[form](journal, {**ACCOUNTS, **names}).encode()


def _csv(journal: DayJournal, names: Mapping[str, str]) -> str:
    """All that was moved, exactly."""
    rows: list[Sequence[object]] = [("date", "account", "name", "kind", "customer", "debit", "credit")]
    for account, kind, customer, amount in journal.movements:
        sides = (usd_of(amount), "") if amount > 0 else ("", usd_of(-amount))
        rows.append((journal.day.isoformat(), account, names[account], kind, customer, *sides))
    return _table(rows)


def _quickbooks(journal: DayJournal, names: Mapping[str, str]) -> str:
    """Journal entries as QuickBooks Online imports them: by names of accounts, days in the American order."""
    rows: list[Sequence[object]] = [("JournalNo", "JournalDate", "AccountName", "Debits", "Credits", "Description")]
    for account, amount in journal.cents:
        sides = (_decimal(amount), "") if amount > 0 else ("", _decimal(-amount))
        number, day = f"EP{journal.day:%Y%m%d}", f"{journal.day:%m/%d/%Y}"
        rows.append((number, day, names[account], *sides, f"edgeproxy {journal.day}"))
    return _table(rows)


def _xero(journal: DayJournal, names: Mapping[str, str]) -> str:
    """A manual journal as Xero imports it: by codes of accounts, debits above zero."""
    rows: list[Sequence[object]] = [("*Narration", "*Date", "Description", "*AccountCode", "*TaxRate", "*Amount")]
    for account, amount in journal.cents:
        day = f"{journal.day:%d/%m/%Y}"
        rows.append(
            (f"edgeproxy {journal.day}", day, ACCOUNTS[account], names[account], "Tax Exempt", _decimal(amount))
        )
    return _table(rows)


FORMS: Final[Mapping[Format, Callable[[DayJournal, Mapping[str, str]], str]]] = {
    "csv": _csv,
    "quickbooks": _quickbooks,
    "xero": _xero,
}


def _table(rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(rows)
    return out.getvalue()


def _decimal(cents: int) -> str:
    return f"{'-' * (cents < 0)}{abs(cents) // 100}.{abs(cents) % 100:02}"


async def _close(connection: AsyncConnection, end: int) -> None:
    """Have nothing booked before this Unix millisecond any more, however late a collector's clock is."""
    await connection.execute(sa.select(credit_head.c.seq).with_for_update())
    await connection.execute(sa.update(credit_head).where(credit_head.c.at < end).values(at=end))


async def _movements(connection: AsyncConnection, begin: int, end: int) -> list[Movement]:
    """What was booked between these Unix milliseconds."""
    entries, columns = credit_entries.c, credit_transactions.c
    total = sa.cast(sa.func.sum(entries.amount), sa.BigInteger)
    wanted = (
        sa.select(entries.account, columns.kind, columns.customer, total)
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(columns.at >= begin, columns.at < end)
        .group_by(entries.account, columns.kind, columns.customer)
    )
    return [Movement(*row) for row in await connection.execute(wanted) if row[-1]]


async def balances_before(connection: AsyncConnection, end: int) -> dict[str, int]:
    """What each account comes to by what was booked before this Unix millisecond."""
    entries, columns = credit_entries.c, credit_transactions.c
    total = sa.cast(sa.func.sum(entries.amount), sa.BigInteger)
    wanted = (
        sa.select(entries.account, total)
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(columns.at < end)
        .group_by(entries.account)
    )
    return {row[0]: row[1] for row in await connection.execute(wanted)}


async def fees_between(connection: AsyncConnection, begin: int, end: int) -> list[Fee]:
    """The fees of invoices that become revenue between these Unix seconds."""
    columns = credit_transactions.c
    wanted = sa.select(columns.at, columns.customer, columns.details).where(_has_fees(begin, end))
    return [
        fee
        for row in await connection.execute(wanted.order_by(columns.seq))
        for fee in fees_of(row.details, row.at // 1000, row.customer)
    ]


async def equal_fees_between(connection: AsyncConnection, begin: int, end: int) -> list[tuple[Fee, int]]:
    """The same, each with how many customers were invoiced it on one day of UTC, at whose begin it counts as booked: a
    hundred thousand of them are few different ones.
    """
    found = await connection.execute(_equal_fees(begin, end))
    return [(fee, count) for at, said, count in found for fee in fees_of(said, at // 1000, "")]


async def equal_fees_by_version(
    connection: AsyncConnection, begin: int, end: int, held: sa.Subquery
) -> list[tuple[str | None, Fee, int]]:
    """The same by the `version` of a plan that `held` has for a `customer`; None for those whom it does not have."""
    of_customer = held.c.customer == credit_transactions.c.customer
    statement = _equal_fees(begin, end).outerjoin_from(credit_transactions, held, of_customer)
    found = await connection.execute(statement.add_columns(held.c.version).group_by(held.c.version))
    return [(version, fee, count) for at, said, count, version in found for fee in fees_of(said, at // 1000, "")]


def _equal_fees(begin: int, end: int) -> sa.Select[Any]:
    """The days of UTC on which equal fees were booked, in milliseconds, their details, and of how many invoices."""
    at, details = credit_transactions.c.at, credit_transactions.c.details
    day = (at - at % (DAY * 1000)).label("day")
    return sa.select(day, details, sa.func.count()).where(_has_fees(begin, end)).group_by(day, details)


def _has_fees(begin: int, end: int) -> sa.ColumnElement[bool]:
    """Which transactions have fees that become revenue between these Unix seconds."""
    columns = credit_transactions.c
    is_in_time = (columns.at < end * 1000) & ((columns.slice >= begin) | (columns.at >= begin * 1000))
    return columns.kind.in_(("invoice", "invoice_void")) & is_in_time


def fees_of(details: str, booked: int, customer: str) -> Iterator[Fee]:
    """The fees of an invoice, by the details of its transaction."""
    for amount, start, end in orjson.loads(details).get("fees", ()):
        yield Fee(amount, start, end, booked, customer)
