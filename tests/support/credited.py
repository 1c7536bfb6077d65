"""A database with customers who have credits, and a clock of the test's own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.billing.journal.journal import Posting, open_journal
from edgeproxy.collector.billing.journal.postings import ConsumptionPart, consumption_entries
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import EVENTS, EVENTS_REGION, customers, edges
from edgeproxy.collector.ledger.ledger_writer import LedgerWriter
from edgeproxy.config.dimensions import format_dimensions
from edgeproxy.wire.batch import FIRST, Batch

HOUR = 1_790_000_000 // 3600 * 3600
"""An hour that is over, in Unix seconds."""
ALICE = Caller("alice", "192.0.2.1", "request-1")


async def with_customers(database: Database, *names: str) -> None:
    """Have customers whose ids are `id-` and their names."""
    row = {"tier": "basic", "settings": "{}", "metadata": "{}", "created_at": 0, "version": 1}
    if not names:
        return
    async with database.writing() as connection:
        await connection.execute(sa.insert(customers), [{"id": f"id-{name}", "name": name, **row} for name in names])


@asynccontextmanager
async def opened(url: str, *names: str) -> AsyncIterator[Database]:
    """A database with these customers."""
    database = await Database.connect(url)
    try:
        await with_customers(database, *names)
        yield database
    finally:
        await database.close()


async def write(database: Database, act: Callable[..., Awaitable[Any]], *arguments: Any, **also: Any) -> Any:
    """Have something done in a transaction of its own."""
    async with database.writing() as connection:
        return await act(connection, *arguments, **also)


async def book_spent_hour(connection: AsyncConnection, customer: str, hour: int, amount: int) -> str:
    """Book an hour of usage that the customer's credits pay, as the hourly job does. Return its id."""
    async with open_journal(connection) as books:
        balance, source = await books.fetch_credit_balance(customer), f"{customer}/{hour}/0"
        entries = consumption_entries(balance, [ConsumptionPart("cost", "", amount)])
        books.book(Posting(customer, "consumption", source, entries, slice=hour))
    return source


async def read(database: Database, look: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Read from the database in one snapshot."""
    async with database.reading(whole=True) as connection:
        return await look(connection, *arguments)


def run(url: str, work: Callable[[Database], Awaitable[None]], *names: str) -> None:
    """Do something with a database that has these customers."""

    async def do() -> None:
        async with opened(url, *names) as database:
            await work(database)

    asyncio.run(do())


async def count(database: Database, minute: int, *rows: tuple[Any, ...]) -> None:
    """Have this used in a minute, by its first Unix second: customer, meter, quantity, model."""
    told = tuple((who, meter, "-", value, format_dimensions({"model": model})) for who, meter, value, model in rows)
    async with database.writing() as connection:
        edge = {"edge": EVENTS, "region": EVENTS_REGION, "seq": 0, "hash": FIRST, "received": 0}
        if (await connection.execute(sa.select(edges.c.edge))).first() is None:
            await database.ledger.insert_edges(connection, [edge])
        await LedgerWriter(database).add_batches(
            connection, [Batch(EVENTS, EVENTS_REGION, 0, minute, minute + 60, FIRST, told)]
        )
