"""Races of price changes with changes of subscribers and the roll of periods, over several connections.

The result equals the result of some order of these changes, and each customer pays once.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.subscriptions import plan_versions, price_changes, subscription_rows, subscriptions
from edgeproxy.collector.billing.subscriptions.changes import When
from edgeproxy.collector.database.billing_tables import segments
from edgeproxy.collector.database.billing_tables import subscriptions as subscription_table
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.collector.load import load_plans_text
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.tables_ready import put_tables
from tests.support.interleaved import interleave
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, at, fetch_invoices
from tests.support.one_thread import in_memory
from tests.support.sold import CALLER, Sold, sold

HOUR = 3600
CUSTOMERS = 3
APRIL = at(2027, 4, 1)
PLANS = """
plans:
  team@1: {fee: "50", tier: standard, quantity: {max: 9}}
  solo@1: {fee: "9", tier: free}
"""
DEARER = 'plans: {team@2: {fee: "60", tier: standard, quantity: {max: 9}}}'
LATER = 'plans: {team@3: {fee: "70", tier: standard, quantity: {max: 9}}}'
Act = Callable[[Sold, str], Awaitable[None]]
"""A change of a customer by name, or of prices."""


def schedule(text: str, time: int) -> Act:
    async def act(of: Sold, _: str) -> None:
        async with of.database.writing() as connection:
            plans = load_plans_text("plans", text).plans
            prepared = await price_changes.prepare_change(connection, text, plans, of.known.plans, time, lock=True)
            await price_changes.schedule_change(connection, CALLER, prepared, "dearer")

    return act


async def withdraw(of: Sold, _: str) -> None:
    async with of.database.writing() as connection:
        rows = await price_changes.list_changes(connection, None, 10)
        row = next(row for row in rows if row.at == FEBRUARY)
        await price_changes.withdraw_change(connection, CALLER, row.id, "not after all", FEBRUARY - HOUR)


def change(plan: str, now: int, when: When | None = None, quantity: int | None = None) -> Act:
    async def act(of: Sold, name: str) -> None:
        terms: dict[str, Any] = {"settings": of.known, "now": now, "quantity": quantity}
        async with of.database.writing() as connection:
            await subscriptions.change_subscription(connection, CALLER, name, plan, when, **terms)

    return act


def cancel(now: int) -> Act:
    async def act(of: Sold, name: str) -> None:
        async with of.database.writing() as connection:
            await subscriptions.cancel_subscription(connection, CALLER, name, "period_end", settings=of.known, now=now)

    return act


def roll(now: int) -> Act:
    async def act(of: Sold, name: str) -> None:
        async with of.database.reading() as connection:
            loaded = await subscription_rows.get_by_customer(connection, name)
        async with of.database.writing() as connection:
            await subscriptions.roll_period(connection, loaded.row.id, settings=of.known, now=now)

    return act


class Race(NamedTuple):
    """Concurrent changes, after the changes `before`."""

    plan: str
    shared: Sequence[Act]
    """Changes of prices: the race has each once."""
    own: Sequence[Act]
    """Changes of each customer."""
    before: Sequence[Act] = ()


RACES = {
    "upgrade": Race("solo", [schedule(DEARER, FEBRUARY)], [roll(FEBRUARY), change("team", FEBRUARY + HOUR, "now")]),
    "quantity": Race(
        "team", [schedule(DEARER, FEBRUARY)], [roll(FEBRUARY), change("team", FEBRUARY - HOUR, quantity=3)]
    ),
    "planned": Race("team", [schedule(DEARER, FEBRUARY)], [change("solo", FEBRUARY - HOUR), roll(FEBRUARY)]),
    "end": Race("team", [schedule(DEARER, FEBRUARY)], [cancel(FEBRUARY - HOUR), roll(FEBRUARY)]),
    "withdrawn": Race(
        "solo", [withdraw], [change("team", FEBRUARY - HOUR, "now"), roll(FEBRUARY)], [schedule(DEARER, FEBRUARY)]
    ),
    "two changes": Race("team", [withdraw, schedule(LATER, MARCH)], [roll(FEBRUARY)], [schedule(DEARER, FEBRUARY)]),
    "new": Race("team", [schedule(LATER, FEBRUARY), schedule(DEARER, MARCH)], [roll(FEBRUARY)]),
    "twice": Race("team", [schedule(DEARER, FEBRUARY)] * 2, [roll(FEBRUARY)] * 2),
}
"""Races by name."""


ORDERS: dict[tuple[str, Sequence[Act]], tuple[object, ...]] = {}
"""The outcomes of a race's orders. They do not depend on the database."""


async def attempt(act: Act, of: Sold, name: str) -> None:
    """Make a change like the API, with a retry if another change came first."""
    with suppress(ChangeRejectedError):
        try:
            await act(of, name)
        except sa.exc.IntegrityError:
            await act(of, name)


async def describe(of: Sold, name: str) -> tuple[object, ...]:
    """Return the scheduled moves, and the segments and invoices of a customer."""
    async with of.database.reading() as connection:
        moves = tuple((move.before, move.after, move.at) for move in await plan_versions.fetch_moves(connection))
        statement = sa.select(segments.c.plan_version, segments.c.quantity, segments.c.start, segments.c.end)
        own = statement.join_from(segments, subscription_table).join(customers).where(customers.c.name == name)
        had = tuple(map(tuple, await connection.execute(own.order_by(segments.c.start))))
    billed = await fetch_invoices(of, name)
    return moves, had, tuple((key, one["total"]) for key, one in sorted(billed.items()))


async def settle(closing: Any) -> None:
    """Close the periods until April."""
    for time in (FEBRUARY, MARCH + FREEZE, APRIL + FREEZE):
        await closing.step(time)


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """A database for one order after the other. Without threads an order takes half the CPU."""
    return in_memory(f"sqlite:///{tmp_path_factory.mktemp('serial')}/ledger.db")


async def describe_order(
    serial: Database, folder: Path, race: Race, order: Sequence[Act], plans: Path
) -> tuple[object, ...]:
    """Make the changes of a race one after the other in an empty database, and describe the customer."""
    assert serial.file is not None
    serial.file.unlink(missing_ok=True)
    url = put_tables(f"sqlite:///{serial.file}")
    async with sold(folder, url, "http://127.0.0.1:1", database=serial, plans=str(plans), mode="shadow") as (
        of,
        closing,
    ):
        await of.customer("acme", race.plan, now=JANUARY)
        for act in (*race.before, *order):
            await attempt(act, of, "acme")
        await settle(closing)
        return await describe(of, "acme")


@pytest.mark.usefixtures("sqlite_with_threads")
@pytest.mark.parametrize("name", RACES)
async def test_concurrent_price_changes_equal_one_serial_order(
    tmp_path: Path, database: str, serial: Database, name: str, seed: int
) -> None:
    race, plans, names = RACES[name], tmp_path / "plans.yaml", [f"payer-{number}" for number in range(CUSTOMERS)]
    plans.write_text(PLANS)

    async with AsyncExitStack() as stack:
        (of, closing), other = [
            await stack.enter_async_context(
                sold(tmp_path, database, "http://127.0.0.1:1", plans=str(plans), mode="shadow")
            )
            for _ in range(2)
        ]
        for customer in names:
            await of.customer(customer, race.plan, now=JANUARY)
        for act in race.before:
            await attempt(act, of, "")
        acts = [(act, "") for act in race.shared] + [(act, name) for name in names for act in race.own]
        random.Random(seed).shuffle(acts)
        sides = itertools.cycle((of, other[0]))
        await asyncio.gather(*(attempt(act, side, one) for (act, one), side in zip(acts, sides, strict=False)))
        await settle(closing)
        outcomes = {await describe(of, customer): customer for customer in names}
    for order in set(itertools.permutations([*race.shared, *race.own])):
        if outcomes:  # An order is computed once, and only while an outcome lacks an order.
            if (name, order) not in ORDERS:
                ORDERS[name, order] = await describe_order(serial, tmp_path, race, order, plans)
            outcomes.pop(ORDERS[name, order], None)
    assert outcomes == {}


INTERLEAVED = {
    "withdrawal within a later change": ("two changes", schedule(LATER, MARCH), "FROM price_moves", withdraw),
    "later change within a withdrawal": ("two changes", withdraw, "UPDATE price_moves", schedule(LATER, MARCH)),
    "change within a roll": ("twice", roll(FEBRUARY), "FROM price_moves", schedule(DEARER, FEBRUARY)),
    "withdrawal within an upgrade": ("withdrawn", change("team", FEBRUARY - HOUR, "now"), "FROM price_moves", withdraw),
    "change within an upgrade": (
        "upgrade",
        change("team", FEBRUARY + HOUR, "now"),
        "FROM price_moves",
        schedule(DEARER, FEBRUARY),
    ),
    "two first changes": ("new", schedule(LATER, FEBRUARY), "FROM price_moves", schedule(DEARER, MARCH)),
    "the same change twice": ("twice", schedule(DEARER, FEBRUARY), "INSERT INTO", schedule(DEARER, FEBRUARY)),
}
"""Races of two changes on PostgreSQL: the first one stops after a statement until the second one is done or waits."""


@pytest.mark.parametrize("name", INTERLEAVED)
async def test_interleaved_price_changes_equal_one_serial_order(
    tmp_path: Path, postgresql: Postgresql, serial: Database, name: str
) -> None:
    (about, first, stop, second), plans, url = INTERLEAVED[name], tmp_path / "plans.yaml", postgresql.database()
    race = RACES[about]
    plans.write_text(PLANS)

    def of_database(act: Act, known: Any) -> Callable[[Database], Awaitable[object]]:
        return lambda database: attempt(act, Sold(database, known), "acme")

    orders = (first, second), (second, first)
    outcomes = [await describe_order(serial, tmp_path, race, order, plans) for order in orders]
    async with sold(tmp_path, url, "http://127.0.0.1:1", plans=str(plans), mode="shadow") as (of, closing):
        await of.customer("acme", race.plan, now=JANUARY)
        for act in race.before:
            await attempt(act, of, "")
        await interleave(of.database, url, of_database(first, of.known), stop, of_database(second, of.known))
        await settle(closing)
        assert await describe(of, "acme") in outcomes
