"""Monthly statements of prepaid credits: opening balance, changes, closing balance.

Everything is by the time of booking, so that a past month does not change: late usage is in the statement of the month
that booked it. Opening balance and lines add up to the closing balance. Amounts are millicredits.

A statement of the current month ends with the usage that is not booked yet, so that its reader sees the credits left.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import spreadsheet
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CREDIT
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions
from edgeproxy.collector.languages.billing_words import CREDIT_KINDS
from edgeproxy.config.collector.currency_units import USD, format_millicredits

PENDING = "Used and not booked yet"
"""The text of usage that no transaction has yet."""
FIELDS = ("date", "what", "reference", "meter", "model", "millicredits")
"""The columns of a statement as CSV, followed by the amount in a column named after the currency."""


class CalendarMonth(NamedTuple):
    """A month of UTC."""

    year: int
    month: int

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"

    @property
    def begin(self) -> int:
        """The Unix millisecond at its start."""
        return int(datetime(self.year, self.month, 1, tzinfo=UTC).timestamp()) * 1000

    @property
    def end(self) -> int:
        """The Unix millisecond at the start of the next month."""
        return self.following.begin

    @property
    def following(self) -> "CalendarMonth":
        """The next month."""
        return CalendarMonth(self.year + self.month // 12, self.month % 12 + 1)


class StatementLine(NamedTuple):
    """One transaction, or all usage of a meter and model in the month."""

    at: int | None
    """The Unix millisecond of the booking; None for usage, which is a sum."""
    kind: str
    reference: str
    meter: str
    model: str
    amount: int


class Statement(NamedTuple):
    """A month of a customer."""

    customer: str
    month: CalendarMonth
    opening: int
    lines: Sequence[StatementLine]
    closing: int
    """The balance, computed independently of the lines. Opening balance and lines must add up to it."""
    until: int
    """The Unix millisecond of the closing balance: the last of the month, or now if the month is not over."""
    currency: str = USD
    pending: int = 0
    """The usage that is not booked yet; 0 if the month is over."""

    @property
    def left(self) -> int:
        """The credits that are left: the closing balance without unbooked usage."""
        return self.closing - self.pending

    @property
    def is_final(self) -> bool:
        """True if the month is over."""
        return self.until == self.month.end - 1

    @property
    def closing_label(self) -> str:
        """The text of the closing balance."""
        return "Closing balance" if self.is_final else "Balance so far"


async def list_months(connection: AsyncConnection, customer: str) -> list[CalendarMonth]:
    """Return the months from the first booking to the last one, newest first."""
    at = credit_transactions.c.at
    ends = sa.select(sa.func.min(at), sa.func.max(at)).where(credit_transactions.c.customer == customer)
    first, last = (await connection.execute(ends)).one()
    if first is None:
        return []
    months = [month_of(first)]
    while months[-1] != month_of(last):
        months.append(months[-1].following)
    return months[::-1]


async def fetch_statement(connection: AsyncConnection, customer: str, month: CalendarMonth, now: int) -> Statement:
    """Return the statement of a month, or of its part before this Unix millisecond if it is not over."""
    columns, entries = credit_transactions.c, credit_entries.c
    within = (columns.customer == customer) & (columns.at >= month.begin) & (columns.at < month.end)
    changes = columns.kind.in_(list(CREDIT_KINDS))
    single = (
        sa.select(columns.at, columns.kind, columns.source, columns.amount)
        .where(within, changes, columns.kind != "consumption")
        .order_by(columns.seq)
    )
    # Usage has a transaction for each hour. On a statement, all hours of a meter and model are one line.
    used = (
        sa.select(entries.meter, entries.model, sa.cast(sa.func.sum(entries.amount), sa.BigInteger))
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(within, columns.kind == "consumption", entries.account == "revenue")
        .group_by(entries.meter, entries.model)
        .order_by(entries.meter, entries.model)
    )
    lines = [
        StatementLine(row.at, row.kind, row.source, "", "", row.amount) for row in await connection.execute(single)
    ]
    lines += [StatementLine(None, "consumption", "", *row) for row in await connection.execute(used)]
    opening = await journal.fetch_balance(connection, customer, month.begin - 1)
    # Not the sum of the lines: a reader of the statement can check one by the other.
    closing = await journal.fetch_balance(connection, customer, month.end - 1)
    return Statement(customer, month, opening, lines, closing, min(month.end - 1, max(month.begin, now)))


def month_of(at: int) -> CalendarMonth:
    """Return the UTC month of a Unix millisecond."""
    date = datetime.fromtimestamp(at / 1000, UTC)
    return CalendarMonth(date.year, date.month)


def parse_month(text: str) -> CalendarMonth:
    """Parse a month such as `2027-03`. Raises ValueError."""
    year, dash, number = text.partition("-")
    is_valid = (
        dash and len(year) == 4 and len(number) == 2 and (year + number).isdecimal() and (year + number).isascii()
    )
    if not is_valid or not 1 <= int(number) <= 12 or not 2000 <= int(year) <= 2999:
        raise ValueError(f"{text[:40]!r} is no month such as 2027-03")
    return CalendarMonth(int(year), int(number))


def format_credits(amount: int) -> str:
    """Format millicredits as credits: `1,234.5`."""
    whole, fraction = divmod(abs(amount), CREDIT)
    decimals = f"{fraction:03}".rstrip("0")
    return f"{'-' * (amount < 0)}{whole:,}{'.' * bool(decimals)}{decimals}"


def render_csv(statement: Statement) -> str:
    """Return a statement as CSV: opening balance first, closing balance last."""

    def amount(millicredits: int) -> tuple[int, str]:
        return millicredits, format_millicredits(millicredits, statement.currency)

    rows: list[Sequence[int | str]] = [
        (format_day(statement.month.begin), "Opening balance", "", "", "", *amount(statement.opening))
    ]
    for line in statement.lines:
        at = "" if line.at is None else format_day(line.at)
        rows.append((at, CREDIT_KINDS[line.kind], line.reference, line.meter, line.model, *amount(line.amount)))
    if statement.pending:
        rows.append(("", PENDING, "", "", "", *amount(-statement.pending)))
    rows.append((format_day(statement.until), statement.closing_label, "", "", "", *amount(statement.left)))
    return spreadsheet.render_csv([(*FIELDS, statement.currency), *rows])


def format_day(at: int) -> str:
    """Format the day of a Unix millisecond: `2027-03-01`."""
    return (format_timestamp(at) or "")[:10]
