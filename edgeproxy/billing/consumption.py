"""What customers with credits have used: taken from the ledger hour by hour, and booked.

The meter of costs counts millicredits. An hour is booked once it is complete; its value is fixed in the transaction
that reads the ledger. What comes later is found by comparing what is booked with the ledger, and is booked as a
revision of its hour. Whoever runs this again books nothing twice: there is one transaction of a customer, an hour and a
revision.
"""

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy import log
from edgeproxy.billing import charging, credits, postings
from edgeproxy.billing.journal import Journal, Posting, journal
from edgeproxy.billing.money import millicredits
from edgeproxy.billing.postings import Used
from edgeproxy.billing.rating import Span
from edgeproxy.database.credit_tables import credit_balances, credit_entries, credit_head, credit_transactions
from edgeproxy.database.database import Database
from edgeproxy.database.schema import DAY, HOUR, customers
from edgeproxy.ledger import queries
from edgeproxy.ledger.queries import Asked

COMPLETE_SECONDS = 900
"""Seconds after its end at which an hour is complete; edges ship each minute, and what comes later is a revision."""
EVER = 253_402_300_799
"""The last Unix second of the year 9999."""
AMOUNT_MAX = 10**15
"""Millicredits of a customer's hour that are booked at most: a billion US dollars. More is a meter gone wrong."""


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
        used = await _totals(connection, meters.cost, hour, until, payers)
        costs = {name: await _totals(connection, name, hour, until, payers) for name in meters.cogs}
        await books.load([payer.id for payer in payers.values()])
        for name, payer in sorted(payers.items()):
            quantities = {meter: found.get(name, 0) for meter, found in costs.items()}
            _book(books, meters, payer.id, (hour, 0), used.get(name, 0), _cost_of(meters, quantities))
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
            found |= await _totals(connection, meters.cost, booked, EVER, payers)
    return found


def source_of(customer: str, hour: int, revision: int) -> str:
    """What makes a consumption this one."""
    return f"{customer}/{queries.written(hour)}/{revision}"


def _book(
    books: Journal, meters: Meters, customer: str, when: tuple[int, int], amount: int, costs: Mapping[str, int]
) -> None:
    """Book what a customer has used in an hour, with this revision, and what that costs us."""
    hour, revision = when
    source = source_of(customer, hour, revision)
    if amount > AMOUNT_MAX:
        log.get().error("more was used than can be so, and less is booked", source=source, millicredits=amount)
    booked = min(amount, AMOUNT_MAX)
    if booked:
        used = [Used(meters.cost, "", booked)]
        purse = books.loaded(customer)
        books.book(Posting(customer, "consumption", source, postings.consumption(purse, used), slice=hour))
    entries = [entry for name, cost in costs.items() if cost for entry in postings.plain("cost", cost, name)]
    if entries:
        books.book(Posting(customer, "cost", source, tuple(entries), slice=hour))


async def _revise(books: Journal, meters: Meters, late: Late) -> int:
    """Book the next revision of an hour where it still differs; how many that were."""
    customer, hour = late
    payers = await _payers(books.connection, hour + HOUR, customer)
    id_ = payers[customer].id
    found = await _totals(books.connection, meters.cost, hour, hour + HOUR, payers)
    booked, revision = await _booked_in(books.connection, id_, hour)
    more = found.get(customer, 0) - booked
    if more <= 0 or booked >= AMOUNT_MAX:
        return 0
    costs = {}
    for name in meters.cogs:
        costs[name] = (await _totals(books.connection, name, hour, hour + HOUR, payers)).get(customer, 0)
    known = await _costs_in(books.connection, id_, hour)
    grown = {name: max(0, cost - known.get(name, 0)) for name, cost in _cost_of(meters, costs).items()}
    await books.purse(id_)
    _book(books, meters, id_, (hour, revision + 1), more, grown)
    return 1


def _cost_of(meters: Meters, quantities: Mapping[str, int]) -> dict[str, int]:
    return {name: min(millicredits(quantities[name], price), AMOUNT_MAX) for name, price in meters.cogs.items()}


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
    connection: AsyncConnection, meter: str, start: int, until: int, payers: Mapping[str, Payer]
) -> dict[str, int]:
    """What each of these has used of a meter, by name: from `start` on, and from when on they pay by credits.

    What was used while nothing was charged is nobody's.
    """
    found: dict[str, int] = {}
    at = start
    for free in [*await charging.waived_of(connection, Span(start, until)), Span(until, until)]:
        if at < free.start:
            for name, value in (await _used(connection, meter, Span(at, free.start), payers)).items():
                found[name] = found.get(name, 0) + value
        at = max(at, free.end)
    return found


async def _used(connection: AsyncConnection, meter: str, span: Span, payers: Mapping[str, Payer]) -> dict[str, int]:
    """What each of these has used of a meter in a span, by name, from when on they pay by credits."""
    found: dict[str, int] = {}
    only = next(iter(payers)) if len(payers) == 1 else None
    async for rows in queries.stream(connection, Asked(only, meter, span.start, span.end, ("customer",))):
        found |= {row["customer"]: row["value"] for row in rows if row["customer"] in payers}
    for customer, payer in payers.items():
        if span.start < payer.since and customer in found:
            partly = await queries.usage(
                connection, Asked(customer, meter, payer.since, max(payer.since, span.end), ())
            )
            found[customer] = partly["total"]
    return found


async def _late(connection: AsyncConnection, meters: Meters, day: int) -> list[Late]:
    """The hours of a day of which less is booked."""
    booked_until = (await connection.execute(sa.select(credit_head.c.slice))).scalar_one()
    until = min(day + DAY, booked_until)
    if until <= day:
        return []
    payers = await _payers(connection, until)
    found = await _totals(connection, meters.cost, day, until, payers)
    booked = await _booked(connection, day, until)
    late = []
    for customer, total in sorted(found.items()):
        known = booked.get(payers[customer].id, {})
        if total <= sum(known.values()):
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


async def _booked_in(connection: AsyncConnection, customer: str, hour: int) -> tuple[int, int]:
    """What is booked of an hour, and its last revision."""
    columns = credit_transactions.c
    wanted = sa.select(columns.kind, columns.amount, columns.source).where(
        columns.kind.in_(("consumption", "cost")), columns.slice == hour, columns.customer == customer
    )
    rows = (await connection.execute(wanted)).all()
    revision = max((int(row.source.rpartition("/")[2]) for row in rows), default=0)
    return -sum(row.amount for row in rows), revision


async def _costs_in(connection: AsyncConnection, customer: str, hour: int) -> dict[str, int]:
    """What is booked of our own costs of an hour, by meter."""
    columns = credit_transactions.c
    wanted = (
        sa.select(credit_entries.c.meter, sa.cast(sa.func.sum(credit_entries.c.amount), sa.BigInteger))
        .join_from(credit_transactions, credit_entries, credit_entries.c.seq == columns.seq)
        .where(columns.kind == "cost", columns.slice == hour, columns.customer == customer)
        .where(credit_entries.c.account == "cogs")
        .group_by(credit_entries.c.meter)
    )
    return {row[0]: row[1] for row in await connection.execute(wanted)}
