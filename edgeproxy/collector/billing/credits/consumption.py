"""The consumption of prepaid credits: usage is read from the ledger hour by hour and booked.

The cost meter counts millicredits. An hour is booked once it is complete; the transaction that reads the ledger fixes
its value. A later comparison with the ledger finds late usage and books it as a revision of its hour. Nothing is booked
twice, because customer, hour and revision identify a single transaction.

An hour whose sum is below zero, because of corrections, takes usage of earlier hours back, the latest first.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.billing.credits import credits, returned_usage
from edgeproxy.collector.billing.journal import postings
from edgeproxy.collector.billing.journal.journal import Journal, Posting, open_journal
from edgeproxy.collector.billing.journal.postings import ConsumptionPart, TransactionKind
from edgeproxy.collector.billing.rating.money import compute_millicredits
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.database.credit_tables import credit_balances, credit_entries, credit_head, credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import CORRECTIONS, DAY, HOUR, customers, events
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.queries import LedgerQuery
from edgeproxy.config.collector.currency_units import USD

COMPLETE_SECONDS = 900
"""An hour is complete this many seconds after its end. Edges ship each minute; later usage is a revision."""
EVER = 253_402_300_799
"""The last Unix second of the year 9999."""
MODEL = "model"
"""The dimension that names the model."""
AMOUNT_MAX = 10**15
"""The most millicredits to book for a customer's hour: a billion US dollars. A larger value is a fault of the meter."""


Amounts = Mapping[str, int]
"""Millicredits or units by model. The model is empty if usage has none, or if models were not queried."""
T = TypeVar("T", str, tuple[str, str])


class CreditMeters(NamedTuple):
    """The ledger meters to read for credits of a currency."""

    cost: str
    """The meter that counts the millicredits that a customer pays."""
    cogs: Mapping[str, int] = {}
    """Our cost of a unit of other meters, in 10⁻¹² smallest units."""
    others: Mapping[str, "CreditMeters"] = {}
    """The meters for credits in currencies other than US dollars, by currency code."""

    @property
    def by_currency(self) -> Mapping[str, "CreditMeters"]:
        """The meters of each currency."""
        return {USD: self, **self.others}


class CreditCustomer(NamedTuple):
    """A customer who pays with credits, and the Unix second since when."""

    id: str
    since: int
    currency: str = USD
    """The currency of its credits."""


class LateHour(NamedTuple):
    """An hour of a customer, by name, that has more usage in the ledger than is booked."""

    customer: str
    hour: int


async def book_next_hour(database: Database, meters: CreditMeters, now: float) -> bool:
    """Book the next complete hour, and the grants that expire by its end. Return False if no hour is complete."""
    async with database.writing() as connection, open_journal(connection) as books:
        # Hours are booked strictly in order, because each may spend what the one before left.
        hour = books.slice or await _find_first_hour(connection)
        if hour is None or hour + HOUR + COMPLETE_SECONDS > now:
            return False
        until = hour + HOUR
        await database.ledger.lock_rollup(connection)  # Otherwise usage that is rolled up meanwhile would count twice.
        payers = await _fetch_payers(connection, until)
        # One query per page of customers reads all balances, instead of one per customer.
        await books.load_balances([payer.id for payer in payers.values()])
        for currency, of_currency in meters.by_currency.items():
            await _book_hour(books, of_currency, Span(hour, until), _select_payers(payers, currency))
        # Usage is booked before grants expire: the credits are valid for an hour that begins before their end.
        books.slice = until
        await credits.expire_grants(books, until * 1000)
    return True


async def _book_hour(books: Journal, meters: CreditMeters, span: Span, payers: Mapping[str, CreditCustomer]) -> None:
    """Book the usage of an hour for payers whose credits are in one currency."""
    if not payers:
        return
    used = await _fetch_totals(books.connection, meters.cost, span, payers, MODEL)
    costs = {name: await _fetch_totals(books.connection, name, span, payers, MODEL) for name in meters.cogs}
    for name, payer in sorted(payers.items()):
        quantities = {meter: amounts.get(name, {}) for meter, amounts in costs.items()}
        _book_usage(books, meters, payer.id, (span.start, 0), used.get(name, {}), _compute_costs(meters, quantities))


def _select_payers(payers: Mapping[str, CreditCustomer], currency: str) -> dict[str, CreditCustomer]:
    """Return the payers with credits in a currency, by name."""
    return {name: payer for name, payer in payers.items() if payer.currency == currency}


async def revise_days(database: Database, meters: CreditMeters, days: Iterable[int]) -> int:
    """Book late and taken-back usage of the hours of these days. Return the number of hours with such usage."""
    days = list(days)
    async with database.reading(whole=True) as connection:
        reductions = await _fetch_reductions(connection, meters, min(days, default=0)) if days else {}
    revised = 0
    for day in days:
        async with database.reading(whole=True) as connection:
            corrected = await _list_corrected_hours(connection, meters, day, reductions)
        # The lists are read without the lock of the journal. Under the lock each hour is computed again, in its own
        # transaction, so that the bookings of others wait for one hour and not for all.
        for hour, most in corrected.items():
            async with database.writing() as connection, open_journal(connection) as books:
                await database.ledger.lock_rollup(connection)
                revised += await _return_hour(books, meters, hour, most, _get_reduction(reductions, hour))
        async with database.reading(whole=True) as connection:
            late = await _list_late_hours(connection, meters, day, reductions)
        for hour in late:
            async with database.writing() as connection, open_journal(connection) as books:
                await database.ledger.lock_rollup(connection)
                revised += await _revise_hour(books, meters, hour, _get_reduction(reductions, hour))
    return revised


def _get_reduction(reductions: Mapping[str, Mapping[int, int]], hour: LateHour) -> int:
    return reductions.get(hour.customer, {}).get(hour.hour, 0)


def compute_reductions(values: Mapping[int, int]) -> dict[int, int]:
    """Return the amount that later hours below zero take back from each hour. `values` has the sums of hours.

    The latest usage is taken back first. An amount beyond all earlier usage is dropped.
    """
    # A stack: the latest hour with usage is on top, because it gives its usage back first.
    open_hours: list[tuple[int, int]] = []
    reductions: dict[int, int] = {}
    for hour, value in sorted(values.items()):
        if value > 0:
            open_hours.append((hour, value))
        left = max(-value, 0)
        while left and open_hours:
            earlier, used = open_hours.pop()
            part = min(used, left)
            reductions[earlier] = reductions.get(earlier, 0) + part
            left -= part
            if used > part:
                # The rest of the hour stays on top.
                open_hours.append((earlier, used - part))
    return reductions


async def fetch_pending(connection: AsyncConnection, meters: CreditMeters, customer: str) -> int:
    """Return the millicredits that a customer, by name, has used in unbooked hours, according to the ledger."""
    return (await fetch_pending_by_name(connection, meters, customer)).get(customer, 0)


async def fetch_pending_locked(connection: AsyncConnection, meters: CreditMeters, customer: str) -> int:
    """Return `fetch_pending`, and lock the journal until the transaction ends.

    Without the lock, an hour could be booked between this and a change of the balance. Its usage would count twice.
    """
    async with open_journal(connection):
        return await fetch_pending(connection, meters, customer)


async def fetch_pending_by_name(connection: AsyncConnection, meters: CreditMeters, *names: str) -> dict[str, int]:
    """Return the millicredits in unbooked hours by customer name, by default of all who pay with credits.

    A sum below zero counts as 0, because usage that is taken back returns to its grants with the booking.
    """
    booked = (await connection.execute(sa.select(credit_head.c.slice))).scalar_one()
    pending: dict[str, int] = {}
    for name in names or (None,):
        all_payers = await _fetch_payers(connection, EVER, name)
        for currency, of_currency in meters.by_currency.items():
            if payers := _select_payers(all_payers, currency):
                used = await _fetch_totals(connection, of_currency.cost, Span(booked, EVER), payers)
                pending |= {customer: max(0, sum(amounts.values())) for customer, amounts in used.items()}
    return pending


def format_source(customer: str, hour: int, revision: int) -> str:
    """Return the unique source of a consumption: customer, hour and revision."""
    return f"{customer}/{queries.format_time(hour)}/{revision}"


def _book_usage(
    books: Journal,
    meters: CreditMeters,
    customer: str,
    when: tuple[int, int],
    amounts: Amounts,
    costs: Mapping[tuple[str, str], int],
) -> None:
    """Book a customer's usage of an hour and its cost to us, by meter and model.

    `when` is the hour and its revision.
    """
    hour, revision = when
    source, amount = format_source(customer, hour, revision), sum(amounts.values())
    if amount > AMOUNT_MAX:
        log.get_logger().error("more was used than can be so, and less is booked", source=source, millicredits=amount)
    used = [ConsumptionPart(meters.cost, model, part) for model, part in limit_parts(amounts, AMOUNT_MAX).items()]
    if used:
        balance = books.get_credit_balance(customer)
        books.book(Posting(customer, "consumption", source, postings.consumption_entries(balance, used), slice=hour))
    entries = [entry for which, cost in costs.items() if cost for entry in postings.plain_entries("cost", cost, *which)]
    if entries:
        books.book(Posting(customer, "cost", source, tuple(entries), slice=hour))


async def _revise_hour(books: Journal, meters: CreditMeters, late: LateHour, reduction: int) -> int:
    """Book the next revision of an hour if it still differs. Return the number of revisions, 0 or 1.

    `reduction` is the amount that later hours take back.
    """
    customer, hour = late
    payers = await _fetch_payers(books.connection, hour + HOUR, customer)
    id_, span = payers[customer].id, Span(hour, hour + HOUR)
    meters = meters.by_currency[payers[customer].currency]
    used = (await _fetch_totals(books.connection, meters.cost, span, payers, MODEL)).get(customer, {})
    booked = await _fetch_booked_entries(books.connection, id_, hour, ("consumption", "usage_refund"), "revenue")
    booked_by_model: dict[str, int] = {}
    for (_, model), amount in booked.items():
        booked_by_model[model] = booked_by_model.get(model, 0) - amount
    # Usage that later hours take back counts as not used here. Otherwise its credits would be charged and returned in
    # turns.
    late_amount = min(sum(used.values()) - reduction, AMOUNT_MAX) - sum(booked_by_model.values())
    if late_amount <= 0:
        return 0
    quantities = {}
    for name in meters.cogs:
        quantities[name] = (await _fetch_totals(books.connection, name, span, payers, MODEL)).get(customer, {})
    costs = await _fetch_booked_entries(books.connection, id_, hour, ("cost",), "cogs")
    dearer: dict[tuple[str, str], int] = {}
    for name in meters.cogs:
        now = _compute_costs(meters, {name: quantities[name]})
        dearer |= compute_growth(now, {which: cost for which, cost in costs.items() if which[0] == name})
    revision = await _find_last_revision(books.connection, id_, hour) + 1
    growth = limit_parts(compute_growth(used, booked_by_model), late_amount)
    await credits.reverse_expiry(books, id_, hour, late_amount, format_source(id_, hour, revision))
    _book_usage(books, meters, id_, (hour, revision), growth, dearer)
    return 1


async def _fetch_reductions(connection: AsyncConnection, meters: CreditMeters, since: int) -> dict[str, dict[int, int]]:
    """Return the amount that later booked hours take back from each hour from `since` on, by customer name.

    A customer who has no value below zero is left out.
    """
    booked_until = (await connection.execute(sa.select(credit_head.c.slice))).scalar_one()
    names = sa.select(events.c.customer).where(events.c.value < 0, *_select_corrections(meters, since, booked_until))
    reductions: dict[str, dict[int, int]] = {}
    for customer in sorted(await connection.scalars(names.distinct())):
        for payer in (await _fetch_payers(connection, booked_until, customer)).values():
            meter = meters.by_currency[payer.currency].cost
            hours = await _fetch_hours(connection, meter, Span(since, booked_until), customer, payer)
            reductions[customer] = compute_reductions(hours)
    return reductions


async def _list_corrected_hours(
    connection: AsyncConnection, meters: CreditMeters, day: int, reductions: Mapping[str, Mapping[int, int]]
) -> dict[LateHour, int]:
    """Return the most millicredits that were taken back from each booked hour of a day."""
    booked_until = (await connection.execute(sa.select(credit_head.c.slice))).scalar_one()
    columns = events.c
    statement = sa.select(columns.customer, columns.time, columns.value).where(
        *_select_corrections(meters, day, min(day + DAY, booked_until))
    )
    corrected = {
        LateHour(customer, hour): amount
        for customer, hours in reductions.items()
        for hour, amount in hours.items()
        if day <= hour < day + DAY
    }
    for customer, time, value in await connection.execute(statement):
        hour = LateHour(customer, time - time % HOUR)
        corrected[hour] = corrected.get(hour, 0) + abs(value)
    return corrected


def _select_corrections(meters: CreditMeters, since: int, until: int) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of events that were corrected or are corrections, of these meters and times."""
    columns, costs = events.c, [of_currency.cost for of_currency in meters.by_currency.values()]
    is_correction: sa.ColumnElement[bool] = sa.text(f"({CORRECTIONS})")  # type: ignore[assignment]
    return [columns.time >= since, columns.time < until, is_correction, columns.meter.in_(costs)]


async def _return_hour(books: Journal, meters: CreditMeters, corrected: LateHour, most: int, reduction: int) -> int:
    """Return the credits of booked usage of an hour that was taken back since, at most `most`.

    `reduction` is the part that later hours take back. Return the number of changed hours, 0 or 1.
    """
    customer, hour = corrected
    payers = await _fetch_payers(books.connection, hour + HOUR, customer)
    if customer not in payers:
        return 0
    payer, span = payers[customer], Span(hour, hour + HOUR)
    cost = meters.by_currency[payer.currency].cost
    used = sum((await _fetch_totals(books.connection, cost, span, payers)).get(customer, {}).values())
    booked = (await _fetch_booked(books.connection, hour, hour + HOUR)).get(payer.id, {}).get(hour, 0)
    left = min(booked - max(used - reduction, 0), most)
    return int(left > 0 and await returned_usage.return_usage(books, payer.id, hour, left))


def _compute_costs(meters: CreditMeters, quantities: Mapping[str, Amounts]) -> dict[tuple[str, str], int]:
    """Return the cost of these units to us in millicredits, by meter and model."""
    return {
        (name, model): min(compute_millicredits(quantity, meters.cogs[name]), AMOUNT_MAX)
        for name, of_meter in quantities.items()
        for model, quantity in sorted(of_meter.items())
    }


def compute_growth(now: Mapping[T, int], before: Mapping[T, int]) -> dict[T, int]:
    """Return the growth of each value that has grown, limited to the growth of their sum.

    Usage booked without a model may reappear under a model, so the values alone could grow by more.
    """
    growth = {name: value - before.get(name, 0) for name, value in now.items()}
    return limit_parts(growth, sum(now.values()) - sum(before.values()))


def limit_parts(parts: Mapping[T, int], most: int) -> dict[T, int]:
    """Return these parts, in order of name, until they reach `most`; empty ones are left out."""
    limited: dict[T, int] = {}
    for name, part in sorted(parts.items()):
        limited_part = min(part, most - sum(limited.values()))
        if limited_part > 0:
            limited[name] = limited_part
    return limited


async def _find_first_hour(connection: AsyncConnection) -> int | None:
    """Return the hour when the first customer got credits, or None."""
    since = (await connection.execute(sa.select(sa.func.min(credit_balances.c.since)))).scalar_one()
    return None if since is None else int(since - since % HOUR)


async def _fetch_payers(connection: AsyncConnection, until: int, name: str | None = None) -> dict[str, CreditCustomer]:
    """Return the customers who pay with credits before `until`, by name: all, or the one of this name."""
    statement = (
        sa.select(customers.c.name, credit_balances.c.customer, credit_balances.c.since, customers.c.currency)
        .join_from(credit_balances, customers, customers.c.id == credit_balances.c.customer)
        .where(credit_balances.c.since < until)
    )
    if name is not None:
        statement = statement.where(customers.c.name == name)
    rows = await connection.execute(statement)
    return {row.name: CreditCustomer(row.customer, row.since, row.currency or USD) for row in rows}


async def _fetch_totals(
    connection: AsyncConnection, meter: str, whole: Span, payers: Mapping[str, CreditCustomer], *split: str
) -> dict[str, dict[str, int]]:
    """Return the usage of a meter by payer, by name, since each pays with credits; with MODEL in `split`, by model,
    too.

    Usage in times without charging is left out.
    """
    totals: dict[str, dict[str, int]] = {}
    for span in await _list_charged_spans(connection, whole):
        for name, amounts in (await _fetch_usage(connection, meter, span, payers, split)).items():
            of_name = totals.setdefault(name, {})
            for model, value in amounts.items():
                of_name[model] = of_name.get(model, 0) + value
    return totals


async def _list_charged_spans(connection: AsyncConnection, whole: Span) -> list[Span]:
    """Return the parts of a span with charging."""
    spans, at = [], whole.start
    # The empty span at the end closes the part after the last waiver.
    for waiver in [*await charging.list_waived_within(connection, whole), Span(whole.end, whole.end)]:
        if at < waiver.start:
            spans.append(Span(at, waiver.start))
        at = max(at, waiver.end)
    return spans


async def _fetch_hours(
    connection: AsyncConnection, meter: str, whole: Span, name: str, payer: CreditCustomer
) -> dict[int, int]:
    """Return the usage of a meter by hour since a customer pays with credits, without times without charging."""
    hours: dict[int, int] = {}
    for span in await _list_charged_spans(connection, whole):
        # A span from before the customer paid with credits becomes empty.
        query = LedgerQuery(name, meter, max(span.start, payer.since), max(span.end, payer.since), ("hour",))
        async for rows in queries.stream_usage(connection, query):
            for row in rows:
                hour = queries.parse_time("hour", row["hour"])
                hours[hour] = hours.get(hour, 0) + row["value"]
    return hours


async def _fetch_usage(
    connection: AsyncConnection, meter: str, span: Span, payers: Mapping[str, CreditCustomer], split: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    """Return the usage of a meter in a span by payer, by name, since each pays with credits."""
    usage: dict[str, dict[str, int]] = {}

    async def add_usage(only: str | None, since: int, until: int) -> None:
        async for rows in queries.stream_usage(
            connection, LedgerQuery(only, meter, since, until, ("customer", *split))
        ):
            for row in rows:
                if row["customer"] in payers:
                    usage.setdefault(row["customer"], {})[row.get(MODEL, "")] = row["value"]

    # One query reads all customers. A customer who started to pay with credits within the span is read again, from that
    # time on.
    await add_usage(next(iter(payers)) if len(payers) == 1 else None, span.start, span.end)
    for customer, payer in payers.items():
        if span.start < payer.since and usage.pop(customer, None) is not None:
            await add_usage(customer, payer.since, max(payer.since, span.end))
    return usage


async def _list_late_hours(
    connection: AsyncConnection, meters: CreditMeters, day: int, reductions: Mapping[str, Mapping[int, int]]
) -> list[LateHour]:
    """Return the hours of a day that have more usage than is booked, less the amounts that later hours take back."""
    booked_until = (await connection.execute(sa.select(credit_head.c.slice))).scalar_one()
    until = min(day + DAY, booked_until)
    if until <= day:
        return []
    all_payers = await _fetch_payers(connection, until)
    booked = await _fetch_booked(connection, day, until)
    late = []
    for currency, of_currency in meters.by_currency.items():
        payers = _select_payers(all_payers, currency)
        used = await _fetch_totals(connection, of_currency.cost, Span(day, until), payers) if payers else {}
        for customer, amounts in sorted(used.items()):
            payer = payers[customer]
            booked_hours = booked.get(payer.id, {})
            # An hour below zero would hide the late usage of another one in the sum of the day.
            if customer not in reductions and sum(amounts.values()) <= sum(booked_hours.values()):
                continue
            hours = await _fetch_hours(connection, of_currency.cost, Span(day, until), customer, payer)
            reduced = reductions.get(customer, {})
            late += [
                LateHour(customer, hour)
                for hour, value in hours.items()
                if value - reduced.get(hour, 0) > booked_hours.get(hour, 0)
            ]
    return late


async def _fetch_booked(connection: AsyncConnection, start: int, until: int) -> dict[str, dict[int, int]]:
    """Return the booked millicredits of each customer's hours, by customer id, less refunded usage."""
    columns = credit_transactions.c
    total = sa.cast(sa.func.sum(-columns.amount), sa.BigInteger)
    statement = (
        sa.select(columns.customer, columns.slice, total)
        .where(columns.kind.in_(("consumption", "usage_refund")), columns.slice >= start, columns.slice < until)
        .group_by(columns.customer, columns.slice)
    )
    booked: dict[str, dict[int, int]] = {}
    for customer, hour, value in await connection.execute(statement):
        booked.setdefault(customer, {})[hour] = value
    return booked


async def _find_last_revision(connection: AsyncConnection, customer: str, hour: int) -> int:
    """Return the number of the last booked revision of an hour, for usage or cost."""
    columns = credit_transactions.c
    statement = sa.select(columns.source).where(
        columns.kind.in_(("consumption", "cost")), columns.slice == hour, columns.customer == customer
    )
    sources = await connection.scalars(statement)
    return max((int(source.rpartition("/")[2]) for source in sources), default=0)


async def _fetch_booked_entries(
    connection: AsyncConnection, customer: str, hour: int, kinds: Sequence[TransactionKind], account: str
) -> dict[tuple[str, str], int]:
    """Return the sum of an hour's entries on an account, by meter and model."""
    columns, entries = credit_transactions.c, credit_entries.c
    statement = (
        sa.select(entries.meter, entries.model, sa.cast(sa.func.sum(entries.amount), sa.BigInteger))
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(columns.kind.in_(kinds), columns.slice == hour, columns.customer == customer, entries.account == account)
        .group_by(entries.meter, entries.model)
    )
    return {(meter, model): amount for meter, model, amount in await connection.execute(statement)}
