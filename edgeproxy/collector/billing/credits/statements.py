"""Statements of prepaid credits: what a customer had at the beginning of a month, what came and went, what was left.

All is by the time at which it was booked, so that a month that is over stays as it is: what comes late is in the
statement of the month in which it came. Opening and all lines come to the closing. Amounts are millicredits.
"""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.spreadsheet import as_text
from edgeproxy.collector.accounts.ids import moment
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CREDIT
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions

TEXTS = {
    "purchase": "Purchase",
    "gift": "Credits given",
    "withdrawal": "Credits taken back",
    "consumption": "Usage",
    "usage_refund": "Usage taken back",
    "refund": "Refund",
    "refund_failed": "Refund that failed",
    "chargeback": "Payment taken back",
    "chargeback_won": "Payment restored",
    "expiry": "Expired",
}
"""What customers read; other kinds change nothing of what they have."""
FIELDS = ("date", "what", "reference", "meter", "model", "millicredits", "usd")


class Month(NamedTuple):
    """A month of UTC."""

    year: int
    month: int

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"

    @property
    def begin(self) -> int:
        """The Unix millisecond at which it begins."""
        return int(datetime(self.year, self.month, 1, tzinfo=UTC).timestamp()) * 1000

    @property
    def end(self) -> int:
        """The Unix millisecond at which the next one begins."""
        return self.following.begin

    @property
    def following(self) -> "Month":
        """The next month."""
        return Month(self.year + self.month // 12, self.month % 12 + 1)


class Line(NamedTuple):
    """What came or went: a transaction, or all usage of a meter and model in the month."""

    at: int | None
    """When it was booked; None of usage, which is a sum."""
    kind: str
    reference: str
    meter: str
    model: str
    amount: int


class Statement(NamedTuple):
    """A month of a customer."""

    customer: str
    month: Month
    opening: int
    lines: Sequence[Line]
    closing: int
    """As it is known independently of the lines: to what opening and lines must come."""


async def months(connection: AsyncConnection, customer: str) -> list[Month]:
    """The months from the first in which something was booked to the last, newest first."""
    at = credit_transactions.c.at
    ends = sa.select(sa.func.min(at), sa.func.max(at)).where(credit_transactions.c.customer == customer)
    first, last = (await connection.execute(ends)).one()
    if first is None:
        return []
    found = [month_of(first)]
    while found[-1] != month_of(last):
        found.append(found[-1].following)
    return found[::-1]


async def statement(connection: AsyncConnection, customer: str, month: Month) -> Statement:
    """The statement of a month; of one that is not over, as far as it has come."""
    columns, entries = credit_transactions.c, credit_entries.c
    within = (columns.customer == customer) & (columns.at >= month.begin) & (columns.at < month.end)
    changes = columns.kind.in_(list(TEXTS))
    single = (
        sa.select(columns.at, columns.kind, columns.source, columns.amount)
        .where(within, changes, columns.kind != "consumption")
        .order_by(columns.seq)
    )
    used = (
        sa.select(entries.meter, entries.model, sa.cast(sa.func.sum(entries.amount), sa.BigInteger))
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(within, columns.kind == "consumption", entries.account == "revenue")
        .group_by(entries.meter, entries.model)
        .order_by(entries.meter, entries.model)
    )
    lines = [Line(row.at, row.kind, row.source, "", "", row.amount) for row in await connection.execute(single)]
    lines += [Line(None, "consumption", "", *row) for row in await connection.execute(used)]
    opening = await journal.balance(connection, customer, month.begin - 1)
    closing = await journal.balance(connection, customer, month.end - 1)
    return Statement(customer, month, opening, lines, closing)


def month_of(at: int) -> Month:
    """The month of UTC that a Unix millisecond is in."""
    when = datetime.fromtimestamp(at / 1000, UTC)
    return Month(when.year, when.month)


def read_month(said: str) -> Month:
    """Read `2027-03`; raises ValueError."""
    year, dash, number = said.partition("-")
    ok = dash and len(year) == 4 and len(number) == 2 and (year + number).isdecimal() and (year + number).isascii()
    if not ok or not 1 <= int(number) <= 12 or not 2000 <= int(year) <= 2999:
        raise ValueError(f"{said[:40]!r} is no month such as 2027-03")
    return Month(int(year), int(number))


def credits_of(amount: int) -> str:
    """Millicredits as people write credits: `1,234.5`."""
    whole, rest = divmod(abs(amount), CREDIT)
    places = f"{rest:03}".rstrip("0")
    return f"{'-' * (amount < 0)}{whole:,}{'.' * bool(places)}{places}"


def usd_of(amount: int) -> str:
    """Millicredits in US dollars, exactly: `0.001234`; at least two places."""
    whole, rest = divmod(abs(amount), CREDIT * 1000)
    places = f"{rest:06}"
    return f"{'-' * (amount < 0)}{whole}.{places[:2]}{places[2:].rstrip('0')}"


def csv_of(made: Statement) -> str:
    """A statement as CSV: opening first, closing last."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(FIELDS)
    writer.writerow((day(made.month.begin), "Opening balance", "", "", "", made.opening, usd_of(made.opening)))
    for line in made.lines:
        at = "" if line.at is None else day(line.at)
        texts = map(as_text, (line.reference, line.meter, line.model))
        writer.writerow((at, TEXTS[line.kind], *texts, line.amount, usd_of(line.amount)))
    writer.writerow((day(made.month.end - 1), "Closing balance", "", "", "", made.closing, usd_of(made.closing)))
    return out.getvalue()


def day(at: int) -> str:
    """The day of a Unix millisecond: `2027-03-01`."""
    return (moment(at) or "")[:10]
