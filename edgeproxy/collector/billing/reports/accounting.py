"""The day's journal for bookkeeping. It is balanced, and every export has the same bytes.

A booking belongs to the day of its entry. Fees are revenue over the days that they pay for, usage when it is used,
credits when they are consumed. A day is available once it is over, and from then on nothing is booked in it.

Bookkeeping counts cents, the journal millicredits. So an account's amount for a day is the difference of two rounded
balances: over any number of days it is exact to half a cent. The rest of rounding is a line of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.spreadsheet import render_csv
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.rating.money import compute_share, divide_rounded
from edgeproxy.collector.database.credit_tables import DETAILS, credit_entries, credit_head, credit_transactions
from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.database.unreadable_rows import UNREADABLE, UnreadableRowError, set_aside_value
from edgeproxy.config.collector.currency_units import DECIMALS, USD, to_decimal

ACCOUNTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cash": "Stripe Balance",
        "clearing": "Stripe Clearing",
        "bank": "Bank",
        "other": "Other Activity at Stripe",
        "fees": "Payment Processing Fees",
        "chargebacks": "Chargebacks",
        "bad_debt": "Bad Debt",
        "receivable": "Accounts Receivable",
        "customer_balance": "Customer Balances at Stripe",
        "deferred": "Deferred Revenue - Credits",
        "deferred_fees": "Deferred Revenue - Plan Fees",
        "overdraft": "Credit Overdrafts Receivable",
        "revenue": "Revenue - Usage",
        "revenue_fees": "Revenue - Plan Fees",
        "discounts": "Discounts",
        "promotion": "Promotional Credits",
        "cogs": "Cost of Revenue",
        "payable": "Accrued Cost of Revenue",
        "refunds": "Refunds Payable",
        "breakage": "Revenue - Expired Credits",
        "residencies": "Due to Other Residencies",
        "tax": "Sales Tax Payable",
        "rounding": "Rounding",
    }
)
"""All accounts, with their default names in books."""
WITH_FEES: Final = ("invoice", "invoice_void", "credit_note", "credit_note_void", "dispute_lost", "dispute_won")
"""The kinds of transactions with fees in their details: the fees of an invoice, or the part taken off them."""
Format = Literal["csv", "quickbooks", "xero"]
FORMATS: Final[tuple[Format, ...]] = ("csv", "quickbooks", "xero")


class DayNotOverError(Exception):
    """The day is not over, so its journal can still grow."""


class Movement(NamedTuple):
    """The sum of one kind of transaction on an account of a customer, in millicredits."""

    account: str
    kind: str
    customer: str
    amount: int


class Fee(NamedTuple):
    """An invoiced fee in cents, and the seconds that it pays for."""

    amount: int
    start: int
    end: int
    booked: int
    """The Unix second of its booking."""
    customer: str

    def compute_earned(self, second: int) -> int:
        """Return the cents of the fee that are revenue at this Unix second, or 0 before it was booked."""
        if self.booked >= second:
            return 0
        # A fee that pays for no time is revenue at once.
        if self.end <= self.start:
            return self.amount
        return compute_share(
            self.amount, min(max(second - self.start, 0), self.end - self.start), self.end - self.start
        )


class EqualFees(NamedTuple):
    """A fee that several customers were invoiced on one UTC day. A hundred thousand fees have few different values."""

    fee: Fee
    """The fee, booked at the start of the day."""
    customers: int
    """The number of these customers."""
    version: str | None = None
    """The plan version of these customers; None if they have none or it was not requested."""


class DayJournal(NamedTuple):
    """A day of the books of one currency."""

    day: date
    movements: Sequence[Movement]
    """All movements, exactly, in millicredits. They sum to zero."""
    cents: Sequence[tuple[str, int]]
    """The movement of each account in whole smallest units, such as cents. They sum to zero."""
    currency: str = USD


async def fetch_day_journal(connection: AsyncConnection, day: date, now: float, currency: str = USD) -> DayJournal:
    """Return the journal of a day in one currency. Raises DayNotOverError.

    The transaction must be able to write: it closes the day, so that nothing more is booked in it.
    """
    begin = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    end = begin + DAY
    if now < end:
        raise DayNotOverError(f"{day} is not over yet")
    await _close_day(connection, end * 1000)
    fees = await fetch_fees_between(connection, begin, end, currency)
    booked = await _fetch_movements(connection, begin * 1000, end * 1000, currency)
    movements = [*booked, *compute_earned(fees, begin, end)]
    before, after = (
        await fetch_balances_before(connection, begin * 1000, currency),
        await fetch_balances_before(connection, end * 1000, currency),
    )
    # Fees are earned by the second, without bookings. So the balances of the journal lack the part that was earned by
    # then.
    for second, balances in ((begin, before), (end, after)):
        revenue = CENT * sum(fee.compute_earned(second) for fee in fees)
        balances["deferred_fees"] = balances.get("deferred_fees", 0) + revenue
        balances["revenue_fees"] = balances.get("revenue_fees", 0) - revenue
    return DayJournal(day, sorted(movements), compute_cents(before, after), currency)


def compute_earned(fees: Iterable[Fee], begin: int, end: int) -> Iterator[Movement]:
    """Yield the movements of fees that became revenue in a day."""
    for fee in fees:
        amount = CENT * (fee.compute_earned(end) - fee.compute_earned(begin))
        if amount:
            yield Movement("deferred_fees", "fee_earned", fee.customer, amount)
            yield Movement("revenue_fees", "fee_earned", fee.customer, -amount)


def compute_cents(before: Mapping[str, int], after: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the movement of each account between two balances in cents, in the order of ACCOUNTS.

    The last line is the rest of rounding.
    """
    lines = []
    for account in ACCOUNTS:
        # The difference of rounded balances, not the rounded difference: so all days together add up to the rounded
        # balance.
        moved = divide_rounded(after.get(account, 0), CENT) - divide_rounded(before.get(account, 0), CENT)
        if moved:
            lines.append((account, moved))
    rest = -sum(amount for _, amount in lines)
    return [*lines, ("rounding", rest)] if rest else lines


def render_journal(journal: DayJournal, file_format: Format, names: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """Return a day as a file for bookkeeping software. `names` are the configured names of accounts."""
    return RENDERERS[file_format](journal, {**ACCOUNTS, **names}).encode()


def _render_csv(journal: DayJournal, names: Mapping[str, str]) -> str:
    """Return all movements, exactly."""
    rows: list[Sequence[str]] = [("date", "account", "name", "kind", "customer", "debit", "credit")]
    for account, kind, customer, amount in journal.movements:
        exact = format_exactly(abs(amount), journal.currency)
        sides = (exact, "") if amount > 0 else ("", exact)
        rows.append((journal.day.isoformat(), account, names[account], kind, customer, *sides))
    return render_csv(rows)


def _render_quickbooks(journal: DayJournal, names: Mapping[str, str]) -> str:
    """Return journal entries for import into QuickBooks Online: account names, and dates in American order."""
    rows: list[Sequence[str]] = [("JournalNo", "JournalDate", "AccountName", "Debits", "Credits", "Description")]
    for account, amount in journal.cents:
        whole = to_decimal(abs(amount), journal.currency)
        sides = (f"{whole}", "") if amount > 0 else ("", f"{whole}")
        # QuickBooks joins the lines of one number to one journal entry.
        number, day = f"EP{journal.day:%Y%m%d}", f"{journal.day:%m/%d/%Y}"
        rows.append((number, day, names[account], *sides, f"edgeproxy {journal.day}"))
    return render_csv(rows)


def _render_xero(journal: DayJournal, names: Mapping[str, str]) -> str:
    """Return a manual journal for import into Xero: account codes, and positive debits."""
    rows: list[Sequence[str]] = [("*Narration", "*Date", "Description", "*AccountCode", "*TaxRate", "*Amount")]
    for account, amount in journal.cents:
        day = f"{journal.day:%d/%m/%Y}"
        rows.append(
            (
                f"edgeproxy {journal.day}",
                day,
                ACCOUNTS[account],
                names[account],
                "Tax Exempt",
                f"{to_decimal(amount, journal.currency)}",
            )
        )
    return render_csv(rows)


RENDERERS: Final[Mapping[Format, Callable[[DayJournal, Mapping[str, str]], str]]] = {
    "csv": _render_csv,
    "quickbooks": _render_quickbooks,
    "xero": _render_xero,
}


def format_exactly(amount: int, currency: str) -> str:
    """Format ten-thousandths of smallest units, such as millicredits, with all decimal places: `0.001234`."""
    whole, _, places = f"{Decimal(amount).scaleb(-4 - DECIMALS[currency]):f}".partition(".")
    places = places.rstrip("0").ljust(DECIMALS[currency], "0")
    return f"{whole}.{places}" if places else whole


async def _close_day(connection: AsyncConnection, end: int) -> None:
    """Close the books before this Unix millisecond, even if a collector's clock is slow."""
    # The lock of the journal: a booking under way ends first, and later ones see the new time.
    await connection.execute(sa.select(credit_head.c.seq).with_for_update())
    await connection.execute(sa.update(credit_head).where(credit_head.c.at < end).values(at=end))


async def _fetch_movements(connection: AsyncConnection, begin: int, end: int, currency: str) -> list[Movement]:
    """Return the movements in a currency between these Unix milliseconds."""
    entries, columns = credit_entries.c, credit_transactions.c
    total = sa.cast(sa.func.sum(entries.amount), sa.BigInteger)
    statement = (
        sa.select(entries.account, columns.kind, columns.customer, total)
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(columns.at >= begin, columns.at < end, columns.currency == currency)
        .group_by(entries.account, columns.kind, columns.customer)
    )
    rows = await connection.execute(statement)
    return [Movement(account, kind, customer or "", amount) for account, kind, customer, amount in rows if amount]


async def fetch_balances_before(connection: AsyncConnection, end: int, currency: str = USD) -> dict[str, int]:
    """Return the balance of each account in a currency from bookings before this Unix millisecond."""
    entries, columns = credit_entries.c, credit_transactions.c
    total = sa.cast(sa.func.sum(entries.amount), sa.BigInteger)
    statement = (
        sa.select(entries.account, total)
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(columns.at < end, columns.currency == currency)
        .group_by(entries.account)
    )
    return {row[0]: row[1] for row in await connection.execute(statement)}


async def fetch_fees_between(connection: AsyncConnection, begin: int, end: int, currency: str = USD) -> list[Fee]:
    """Return the invoiced fees in a currency that become revenue between these Unix seconds."""
    columns = credit_transactions.c
    statement = sa.select(columns.at, columns.customer, columns.details)
    statement = statement.where(_build_fee_condition(begin, end, currency))
    return [
        fee
        for row in await connection.execute(statement.order_by(columns.seq))
        for fee in parse_fees(row.details, row.at // 1000, row.customer)
    ]


async def fetch_equal_fees(
    connection: AsyncConnection, begin: int, end: int, currency: str = USD, held: sa.Subquery | None = None
) -> list[EqualFees]:
    """Return the fees in a currency that become revenue between these Unix seconds, with equal ones of a day grouped.

    With `held`, a query of `customer` and plan `version`, they are grouped by version, too.
    """
    columns = credit_transactions.c
    day = (columns.at - columns.at % (DAY * 1000)).label("day")
    version = sa.null() if held is None else held.c.version
    statement = sa.select(day, columns.details, version, sa.func.count())
    statement = statement.where(_build_fee_condition(begin, end, currency))
    statement = statement.group_by(day, columns.details)
    if held is not None:
        of_customer = held.c.customer == columns.customer
        statement = statement.outerjoin_from(credit_transactions, held, of_customer).group_by(version)
    return [
        EqualFees(fee, customers, plan_version)
        for at, details, plan_version, customers in await connection.execute(statement)
        for fee in parse_fees(details, at // 1000, "")
    ]


def _build_fee_condition(begin: int, end: int, currency: str) -> sa.ColumnElement[bool]:
    """Return the condition for transactions in a currency with fees that become revenue between these Unix seconds."""
    columns = credit_transactions.c
    is_in_time = (columns.at < end * 1000) & ((columns.slice >= begin) | (columns.at >= begin * 1000))
    return columns.kind.in_(WITH_FEES) & (columns.currency == currency) & is_in_time


def parse_fees(details: str, booked: int, customer: str) -> Iterator[Fee]:
    """Return the fees of an invoice from the details of its transaction.

    Raises UnreadableRowError if they cannot be read, because no sum may leave a transaction out.
    """
    try:
        fees = [(int(amount), int(start), int(end)) for amount, start, end in orjson.loads(details).get("fees", ())]
    except UNREADABLE as error:
        if isinstance(details, str):  # An UnreadableValue is already set aside.
            set_aside_value(DETAILS, details, error)
        raise UnreadableRowError("the fees of a credit transaction cannot be read") from error
    for amount, start, end in fees:
        yield Fee(amount, start, end, booked, customer)
