"""What customers with credits have used: taken from the ledger hour by hour, and booked.

The meter of costs counts millicredits. An hour is booked once it is complete; its value is fixed in the transaction
that reads the ledger. What comes later is found by comparing what is booked with the ledger, and is booked as a
revision of its hour. Whoever runs this again books nothing twice: there is one transaction of a customer, an hour and a
revision.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.journal import postings
from edgeproxy.collector.billing.journal.journal import Journal, Posting, journal
from edgeproxy.collector.billing.journal.postings import Kind, Used
from edgeproxy.collector.billing.rating.money import millicredits
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.database.credit_tables import credit_balances, credit_entries, credit_head, credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR, customers
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.queries import Asked

COMPLETE_SECONDS = 900
"""Seconds after its end at which an hour is complete; edges ship each minute, and what comes later is a revision."""
EVER = 253_402_300_799
"""The last Unix second of the year 9999."""
MODEL = "model"
"""The dimension that says which model was used."""
AMOUNT_MAX = 10**15
"""Millicredits of a customer's hour that are booked at most: a billion US dollars. More is a meter gone wrong."""


Amounts = Mapping[str, int]
"""By model; under an empty name where none was said, or asked for."""
T = TypeVar("T", str, tuple[str, str])


class Meters(NamedTuple):
    """What is read of the ledger."""

    cost: str
    """The meter that counts the millicredits which a customer pays."""
    cogs: Mapping[str, int] = {}
    """What a unit of other meters costs us, in 10⁻¹² cents."""


class Payer(NamedTuple):
    """A customer who pays by credits, and the Unix second from which on."""

    id: str
    since: int


class Late(NamedTuple):
    """An hour of a customer, by name, of which less is booked than the ledger has."""

    customer: str
    hour: int


async def step(database: Database, meters: Meters, now: float) -> bool:
    """Book the next complete hour, and what expires by its end; False where there is none."""
    async with database.writing() as connection, journal(connection) as books:
        hour = books.slice or await _first(connection)
        if hour is None or hour + HOUR + COMPLETE_SECONDS > now:
            return False
        until = hour + HOUR
        await database.hold_rollup(connection)  # Else what is rolled up meanwhile counts twice.
        payers = await _payers(connection, until)
        used = await _totals(connection, meters.cost, Span(hour, until), payers, MODEL)
        costs = {name: await _totals(connection, name, Span(hour, until), payers, MODEL) for name in meters.cogs}
        await books.load([payer.id for payer in payers.values()])
        for name, payer in sorted(payers.items()):
            quantities = {meter: found.get(name, {}) for meter, found in costs.items()}
            _book(books, meters, payer.id, (hour, 0), used.get(name, {}), _costs_of(meters, quantities))
        books.slice = until
        await credits.expire(books, until * 1000)
    return True


async def revise(database: Database, meters: Meters, day: int) -> int:
    """Book what has come to the hours of a day since they were booked; how many hours that were."""
    async with database.reading(whole=True) as connection:
        late = await _late(connection, meters, day)
    revised = 0
    for one in late:
        async with database.writing() as connection, journal(connection) as books:
            await database.hold_rollup(connection)
            revised += await _revise(books, meters, one)
    return revised


async def pending(connection: AsyncConnection, meters: Meters, customer: str) -> int:
    """What a customer, by name, has used in the hours that are not booked yet, as far as it is in the ledger."""
    return (await pending_by_name(connection, meters, customer)).get(customer, 0)


async def pending_by_name(connection: AsyncConnection, meters: Meters, *names: str) -> dict[str, int]:
    """The same of these customers, by default of all who pay by credits, by name."""
    booked = (await connection.execute(sa.select(credit_head.c.slice))).scalar_one()
    found: dict[str, int] = {}
    for name in names or (None,):
        payers = await _payers(connection, EVER, name)
        if payers:
            used = await _totals(connection, meters.cost, Span(booked, EVER), payers)
            found |= {customer: sum(amounts.values()) for customer, amounts in used.items()}
    return found


def source_of(customer: str, hour: int, revision: int) -> str:
    """What makes a consumption this one."""
    return f"{customer}/{queries.written(hour)}/{revision}"


def _book(
    books: Journal,
    meters: Meters,
    customer: str,
    when: tuple[int, int],
    amounts: Amounts,
    costs: Mapping[tuple[str, str], int],
) -> None:
    """Book what a customer has used in an hour, with this revision, and what that costs us, by meter and model."""
    hour, revision = when
    source, amount = source_of(customer, hour, revision), sum(amounts.values())
    if amount > AMOUNT_MAX:
        log.get().error("more was used than can be so, and less is booked", source=source, millicredits=amount)
    used = [Used(meters.cost, model, part) for model, part in within(amounts, AMOUNT_MAX).items()]
    if used:
        purse = books.loaded(customer)
        books.book(Posting(customer, "consumption", source, postings.consumption(purse, used), slice=hour))
    entries = [entry for which, cost in costs.items() if cost for entry in postings.plain("cost", cost, *which)]
    if entries:
        books.book(Posting(customer, "cost", source, tuple(entries), slice=hour))


async def _revise(books: Journal, meters: Meters, late: Late) -> int:
    """Book the next revision of an hour where it still differs; how many that were."""
    customer, hour = late
    payers = await _payers(books.connection, hour + HOUR, customer)
    id_, span = payers[customer].id, Span(hour, hour + HOUR)
    found = (await _totals(books.connection, meters.cost, span, payers, MODEL)).get(customer, {})
    booked = await _booked_in(books.connection, id_, hour, "consumption", "revenue")
    known: dict[str, int] = {}
    for (_, model), amount in booked.items():
        known[model] = known.get(model, 0) - amount
    if not sum(known.values()) < min(sum(found.values()), AMOUNT_MAX):
        return 0
    quantities = {}
    for name in meters.cogs:
        quantities[name] = (await _totals(books.connection, name, span, payers, MODEL)).get(customer, {})
    costs = await _booked_in(books.connection, id_, hour, "cost", "cogs")
    dearer: dict[tuple[str, str], int] = {}
    for name in meters.cogs:
        now = _costs_of(meters, {name: quantities[name]})
        dearer |= grown(now, {which: cost for which, cost in costs.items() if which[0] == name})
    await books.purse(id_)
    revision = await _last_revision(books.connection, id_, hour)
    _book(books, meters, id_, (hour, revision + 1), grown(found, known), dearer)
    return 1


def _costs_of(meters: Meters, quantities: Mapping[str, Amounts]) -> dict[tuple[str, str], int]:
    """What these units cost us, by meter and model."""
    return {
        (name, model): min(millicredits(quantity, meters.cogs[name]), AMOUNT_MAX)
        for name, of_meter in quantities.items()
        for model, quantity in sorted(of_meter.items())
    }


def grown(now: Mapping[T, int], before: Mapping[T, int]) -> dict[T, int]:
    """By how much each of these is more than before: all of them together by no more than their sum is.

    What was booked without its model is of one of them.
    """
    more = {name: value - before.get(name, 0) for name, value in now.items()}
    return within(more, sum(now.values()) - sum(before.values()))


def within(parts: Mapping[T, int], most: int) -> dict[T, int]:
    """These parts, one after another, as far as they come to `most`; without those that are nothing."""
    found: dict[T, int] = {}
    for name, part in sorted(parts.items()):
        taken = min(part, most - sum(found.values()))
        if taken > 0:
            found[name] = taken
    return found


async def _first(connection: AsyncConnection) -> int | None:
    """The hour in which the first customer got credits; None where none has."""
    since = (await connection.execute(sa.select(sa.func.min(credit_balances.c.since)))).scalar_one()
    return None if since is None else int(since - since % HOUR)


async def _payers(connection: AsyncConnection, until: int, name: str | None = None) -> dict[str, Payer]:
    """Those who pay by credits before `until`, by name: all, or the one of this name."""
    wanted = (
        sa.select(customers.c.name, credit_balances.c.customer, credit_balances.c.since)
        .join_from(credit_balances, customers, customers.c.id == credit_balances.c.customer)
        .where(credit_balances.c.since < until)
    )
    if name is not None:
        wanted = wanted.where(customers.c.name == name)
    return {row.name: Payer(row.customer, row.since) for row in await connection.execute(wanted)}


async def _totals(
    connection: AsyncConnection, meter: str, whole: Span, payers: Mapping[str, Payer], *split: str
) -> dict[str, dict[str, int]]:
    """What each of these has used of a meter, by name, from when on they pay by credits; `split` by MODEL, or not.

    What was used while nothing was charged is nobody's.
    """
    found: dict[str, dict[str, int]] = {}
    at = whole.start
    for free in [*await charging.waived_of(connection, whole), Span(whole.end, whole.end)]:
        if at < free.start:
            for name, amounts in (await _used(connection, meter, Span(at, free.start), payers, split)).items():
                of_name = found.setdefault(name, {})
                for model, value in amounts.items():
                    of_name[model] = of_name.get(model, 0) + value
        at = max(at, free.end)
    return found


async def _used(
    connection: AsyncConnection, meter: str, span: Span, payers: Mapping[str, Payer], split: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    """What each of these has used of a meter in a span, by name, from when on they pay by credits."""
    found: dict[str, dict[str, int]] = {}

    async def ask(whose: str | None, since: int, until: int) -> None:
        async for rows in queries.stream(connection, Asked(whose, meter, since, until, ("customer", *split))):
            for row in rows:
                if row["customer"] in payers:
                    found.setdefault(row["customer"], {})[row.get(MODEL, "")] = row["value"]

    await ask(next(iter(payers)) if len(payers) == 1 else None, span.start, span.end)
    for customer, payer in payers.items():
        if span.start < payer.since and found.pop(customer, None) is not None:
            await ask(customer, payer.since, max(payer.since, span.end))
    return found


async def _late(connection: AsyncConnection, meters: Meters, day: int) -> list[Late]:
    """The hours of a day of which less is booked."""
    booked_until = (await connection.execute(sa.select(credit_head.c.slice))).scalar_one()
    until = min(day + DAY, booked_until)
    if until <= day:
        return []
    payers = await _payers(connection, until)
    found = await _totals(connection, meters.cost, Span(day, until), payers)
    booked = await _booked(connection, day, until)
    late = []
    for customer, amounts in sorted(found.items()):
        known = booked.get(payers[customer].id, {})
        if sum(amounts.values()) <= sum(known.values()):
            continue
        question = Asked(customer, meters.cost, max(day, payers[customer].since), until, ("hour",))
        async for rows in queries.stream(connection, question):
            hours = ((queries.moment("hour", row["hour"]), row["value"]) for row in rows)
            late += [Late(customer, hour) for hour, value in hours if value > known.get(hour, 0)]
    return late


async def _booked(connection: AsyncConnection, start: int, until: int) -> dict[str, dict[int, int]]:
    """What is booked of each customer's hours."""
    columns = credit_transactions.c
    total = sa.cast(sa.func.sum(-columns.amount), sa.BigInteger)
    wanted = (
        sa.select(columns.customer, columns.slice, total)
        .where(columns.kind == "consumption", columns.slice >= start, columns.slice < until)
        .group_by(columns.customer, columns.slice)
    )
    found: dict[str, dict[int, int]] = {}
    for customer, hour, value in await connection.execute(wanted):
        found.setdefault(customer, {})[hour] = value
    return found


async def _last_revision(connection: AsyncConnection, customer: str, hour: int) -> int:
    """The last revision of an hour that is booked, of usage or of its cost."""
    columns = credit_transactions.c
    wanted = sa.select(columns.source).where(
        columns.kind.in_(("consumption", "cost")), columns.slice == hour, columns.customer == customer
    )
    sources = (await connection.execute(wanted)).scalars()
    return max((int(source.rpartition("/")[2]) for source in sources), default=0)


async def _booked_in(
    connection: AsyncConnection, customer: str, hour: int, kind: Kind, account: str
) -> dict[tuple[str, str], int]:
    """What is booked of an hour on an account, by meter and model."""
    columns, entries = credit_transactions.c, credit_entries.c
    wanted = (
        sa.select(entries.meter, entries.model, sa.cast(sa.func.sum(entries.amount), sa.BigInteger))
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(columns.kind == kind, columns.slice == hour, columns.customer == customer, entries.account == account)
        .group_by(entries.meter, entries.model)
    )
    return {(meter, model): amount for meter, model, amount in await connection.execute(wanted)}
