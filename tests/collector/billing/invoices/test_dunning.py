"""A customer that does not pay is served during the payment grace, then paused with 402, then released by a payment."""

from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import documents
from edgeproxy.collector.billing.invoices import dunning
from edgeproxy.collector.billing.mismatch import Level
from edgeproxy.collector.billing.reconciliation import credits
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.credit_tables import credit_balances
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import reconciliations
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.tiers import Tier

NOW = 1_800_000_000
DAY = 86400
SETTINGS = CollectorSettings.model_construct(
    billing=Billing(plans="plans.yaml", mode="live", payment_grace="7day"),  # type: ignore[arg-type]
    tiers={"basic": Tier()},
    meters={},
    regions=None,
)


async def add(connection: AsyncConnection, name: str, closed: int | None, total: int = 500, **more: Any) -> None:
    """Add a customer, with an open invoice if `closed` says how many seconds ago it was closed."""
    settings = orjson.dumps({"tier": "basic", **more}).decode()
    row = {"id": name, "name": name, "tier": "basic", "settings": settings, "metadata": "{}"}
    await connection.execute(sa.insert(customers), [{**row, "created_at": 1, "version": 1}])
    if closed is not None:
        zeros = dict.fromkeys(
            ("subtotal", "period_start", "period_end", "failures", "tries", "try_at", "created_at"), 0
        )
        own = {"id": name, "customer": name, "period": "2027-01-01", "kind": "period", "state": "open", "total": total}
        row = {**zeros, **own, "currency": "usd", "closes_at": NOW - closed}
        await connection.execute(sa.insert(invoices), [row])


async def refused(connection: AsyncConnection) -> list[str]:
    """Return the customers that edges refuse with 402."""
    names = (await connection.execute(sa.select(customers.c.name).order_by(customers.c.name))).scalars().all()
    pauses = [orjson.loads(line)["customer"].get("paused") for line in await documents.fetch_lines(connection, names)]
    return [name for name, paused in zip(names, pauses, strict=True) if paused and paused.get("status") == 402]


async def test_after_the_grace_402_and_released_once_all_is_paid(database: str) -> None:
    everybody = ("pays", "waits", "late", "elsewhere", "nothing", "banned")

    books = await Database.connect(database)
    async with books.writing() as connection:
        await add(connection, "pays", None)
        await add(connection, "waits", 7 * DAY - 1)
        await add(connection, "late", 7 * DAY)
        # It cannot be changed, and must not block the others.
        await add(connection, "elsewhere", 30 * DAY, tier="gone")
        await add(connection, "nothing", 30 * DAY, total=0)
        await add(connection, "banned", 30 * DAY, paused={"why": "Abuse.", "status": 403})
        assert await dunning.pause_and_release(connection, SETTINGS, NOW, ["waits", "pays"]) == ([], [])
        due = await dunning.list_due_customers(connection, SETTINGS, NOW)
        assert due.unpaid_since["late"] == NOW - 7 * DAY
        assert await dunning.pause_and_release(connection, SETTINGS, NOW, everybody) == (["late"], [])
        assert await refused(connection) == ["late"]
        assert await dunning.pause_and_release(connection, SETTINGS, NOW, everybody) == ([], [])
        assert await dunning.pause_and_release(connection, SETTINGS, NOW + 1, everybody) == (["waits"], [])
        paid = sa.update(invoices).where(invoices.c.id.in_(["late", "banned"]))
        await connection.execute(paid.values(state="paid"))
        assert await dunning.pause_and_release(connection, SETTINGS, NOW + 2, everybody) == ([], ["late"])
        assert await refused(connection) == ["waits"]
    await books.close()


@pytest.mark.parametrize(("balance", "level"), [(0, Level.NONE), (7, Level.PAGE)])
async def test_balance_that_differs_from_its_entries_raises_a_page_alert(
    sqlite_database: str, balance: int, level: Level
) -> None:
    books = await Database.connect(sqlite_database)
    async with books.writing() as connection:
        await add(connection, "acme", None)
        row = {"customer": "acme", "balance": balance, "overdraft": 0, "since": 0}
        await connection.execute(sa.insert(credit_balances), [row])
    for _ in range(2):
        _, reported = await credits.reconcile_balances(books, NOW)
        assert reported is level
    async with books.reading() as connection:
        recorded = (await connection.execute(sa.select(reconciliations.c.rows))).scalars().all()
        assert [orjson.loads(rows) for rows in recorded] == ([[]] if not balance else [[["acme", "credits", 0, 7]]] * 2)
    await books.close()


async def test_dunning_grace_starts_at_the_issue_and_ends_no_earlier_than_the_due_date(database: str) -> None:
    books = await Database.connect(database)
    async with books.writing() as connection:
        times = {"held": (NOW, NOW), "mailed": (NOW - 10 * DAY, NOW + 4 * DAY)}
        for name, (issued_at, due_at) in times.items():
            await add(connection, name, 30 * DAY)
            issued = sa.update(invoices).where(invoices.c.id == name)
            await connection.execute(issued.values(issued_at=issued_at, due_at=due_at))
        for days, late in ((0, {}), (4, {"mailed": NOW - 10 * DAY}), (7, {"mailed": NOW - 10 * DAY, "held": NOW})):
            due = await dunning.list_due_customers(connection, SETTINGS, NOW + days * DAY)
            assert due.unpaid_since == late
    await books.close()


async def test_dunning_skips_unpausable_customers_and_pauses_others(sqlite_database: str) -> None:
    books = await Database.connect(sqlite_database)
    async with books.writing() as connection:
        for number in range(dunning.TAKEN_MAX):
            await add(connection, f"banned{number:03}", 30 * DAY, paused={"why": "Abuse.", "status": 403})
        for number in range(dunning.TAKEN_MAX):
            await add(connection, f"gone{number:03}", 30 * DAY, tier="gone")
        await add(connection, "late", 30 * DAY)
        due = await dunning.list_due_customers(connection, SETTINGS, NOW)
        assert {name[:4] for name in due.unpaid_since} == {"gone", "late"}
    await books.close()


FIRST = dunning.Dunning(dunning.RETRYING, 1, NOW, NOW + DAY)
LAST = dunning.Dunning(dunning.EXHAUSTED, 5, NOW, None)
MAILED = dunning.Dunning(dunning.SCHEDULED, 0, NOW - DAY, NOW - DAY)
DEBITED = dunning.Dunning(dunning.PROCESSING, 0, NOW, NOW + DAY)


@pytest.mark.parametrize(
    ("before", "event", "now", "after"),
    [
        (None, "declined", NOW, FIRST),
        (FIRST, "declined", NOW + DAY, dunning.Dunning(dunning.RETRYING, 2, NOW, NOW + 3 * DAY)),
        # After a long outage the times that are over are not made up for.
        (FIRST, "declined", NOW + 4 * DAY, dunning.Dunning(dunning.RETRYING, 2, NOW, NOW + 7 * DAY)),
        (FIRST, "declined", NOW + 7 * DAY, dunning.Dunning(dunning.EXHAUSTED, 2, NOW, None)),
        (FIRST, "method_changed", NOW + 5, FIRST._replace(state=dunning.SCHEDULED, retry_at=NOW + 5)),
        (LAST, "method_changed", NOW + 9 * DAY, LAST._replace(state=dunning.SCHEDULED, retry_at=NOW + 9 * DAY)),
        (None, "due", NOW - DAY, MAILED),
        (MAILED, "method_changed", NOW, MAILED._replace(declined_at=NOW, retry_at=NOW)),
        (MAILED, "declined", NOW, FIRST),  # The schedule counts from the first decline.
        (None, "begun", NOW, DEBITED),
        (FIRST, "begun", NOW + DAY, dunning.Dunning(dunning.PROCESSING, 1, NOW, NOW + 2 * DAY)),
        (DEBITED, "begun", NOW + DAY, DEBITED._replace(declined_at=NOW + DAY, retry_at=NOW + 2 * DAY)),
        (DEBITED, "declined", NOW + DAY, dunning.Dunning(dunning.RETRYING, 1, NOW + DAY, NOW + 2 * DAY)),
        (DEBITED, "method_changed", NOW, None),  # It is under way, whatever the customer has now.
        (FIRST, "due", NOW, None),
        (LAST, "declined", NOW, None),
        (None, "method_changed", NOW, None),
    ],
)
def test_each_state_leads_where_the_table_says(
    before: dunning.Dunning | None, event: str, now: int, after: dunning.Dunning | None
) -> None:
    schedule = (DAY, 3 * DAY, 7 * DAY)
    if after is None:
        with pytest.raises(dunning.DunningStateError):
            dunning.advance(before, dunning.DunningEvent(event), now, schedule)
        return
    step = dunning.advance(before, dunning.DunningEvent(event), now, schedule)
    assert step == after
    assert step.state in dunning.TRANSITIONS[None if before is None else before.state, dunning.DunningEvent(event)]
