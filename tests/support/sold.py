"""A database with subscribed customers and their usage, for billing without a collector."""

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import orjson
import yaml
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.models import CreateCustomerRequest
from edgeproxy.collector.billing.jobs.period_close import PeriodCloseJob
from edgeproxy.collector.billing.reconciliation.payments import complete_nothing
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe.request_rates import RequestPacer
from edgeproxy.collector.billing.subscriptions import plan_versions, subscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import EVENTS, EVENTS_REGION, EVENTS_ROUTE, ledger, series
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.settings import CollectorSettings
from loadtest.testbed.process import ROOT

CALLER = Caller("test")
KEY, LIVE_KEY = {"STRIPE_SECRET_KEY": "sk_test_sandbox"}, {"STRIPE_SECRET_KEY": "sk_live_sandbox"}
TIERS: dict[str, Any] = {name: {} for name in ("basic", "free", "standard", "enterprise")}


def settings(
    folder: Path,
    database: str,
    stripe: str,
    *,
    live: bool = False,
    meters: Mapping[str, Any] | None = None,
    **billing: Any,
) -> CollectorSettings:
    """Return the settings of a collector that charges all customers at this Stripe. By default all meters are sums."""
    way = {"base": stripe, "live": live}
    said = {"plans": str(ROOT / "loadtest/testbed/plans.yaml"), "mode": "live", "stripe": way, **billing}
    file = folder / "collector.yaml"
    tokens = [{"sha256": "a" * 64, "role": "edge"}]
    written = {"tokens": tokens, "database": database, "tiers": TIERS, "billing": said}
    being_written = file.with_suffix(f".{os.getpid()}")  # Of two that start at once none reads half a file.
    being_written.write_text(yaml.safe_dump(written if meters is None else {**written, "meters": meters}))
    being_written.replace(file)
    return load_collector(file, os.environ)


class Sold:
    """Customers with their plans and usage."""

    def __init__(self, database: Database, known: CollectorSettings) -> None:
        self.database = database
        self.known = known
        self.began = int(time.time())
        """No action at Stripe is older than this second."""
        self._seconds = count()

    async def customer(self, name: str, plan: str | None = None, *, now: float, **more: Any) -> None:
        """Create a customer, with a plan from now on."""
        async with self.database.writing() as connection:
            new = CreateCustomerRequest.model_validate({"name": name, "tier": "basic"})
            await customers.create_customer(connection, CALLER, new, self.known)
        if plan is not None:
            await self.subscribe(name, plan, now=now, **more)

    async def subscribe(self, name: str, plan: str, *, now: float, **more: Any) -> None:
        """Give a customer a plan from now on."""
        async with self.database.writing() as connection:
            await subscriptions.create_subscription(
                connection, CALLER, name, plan, settings=self.known, now=now, **{"is_yearly": False, **more}
            )

    async def change(self, name: str, plan: str, *, now: float, when: Any = None, **more: Any) -> None:
        """Change the plan of a customer."""
        async with self.database.writing() as connection:
            await subscriptions.change_subscription(
                connection, CALLER, name, plan, when, settings=self.known, now=now, **more
            )

    async def use(self, name: str, used: Mapping[str, int], *, at: float, split: Mapping[str, str] = {}) -> None:
        """Count usage in a minute; `split` are its dimensions."""
        minute = int(at) // 60 * 60
        text = orjson.dumps(split, option=orjson.OPT_SORT_KEYS).decode() if split else ""
        async with self.database.writing() as connection:
            await self.database.ledger.insert_series(
                connection, [[EVENTS, EVENTS_REGION, name, meter, EVENTS_ROUTE, text] for meter in used]
            )
            rows = await _series(connection, name, text)
            values = [
                {"series": rows[meter], "name": key, "value": value} for meter in used for key, value in split.items()
            ]
            if values:
                await self.database.ledger.insert_series_dimensions(connection, values)
            await self.database.ledger.add(connection, ledger, {minute: {rows[meter]: n for meter, n in used.items()}})


class Killed(BaseException):
    """The exception that stands for a process killed at once."""


class Mortal(Stripe):
    """A client whose process dies as soon as a call has changed something, before it handles the answer."""

    keys: ClassVar[set[str]] = set()
    """Idempotency keys of earlier changes."""

    async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
        """Make the call. Raises Killed if it changes something."""
        answer = await super().call(name, *ids, key=key, **params)
        if key is not None and key not in self.keys:
            self.keys.add(key)
            raise Killed
        return answer


async def _series(connection: AsyncConnection, name: str, split: str) -> dict[str, int]:
    rows = await connection.execute(series.select().where(series.c.customer == name, series.c.dimensions == split))
    return {row.meter: row.id for row in rows}


@asynccontextmanager
async def sold(
    folder: Path,
    url: str,
    stripe: str,
    client_of: Callable[..., Stripe] = Stripe,
    *,
    database: Database | None = None,
    live: bool = False,
    **billing: Any,
) -> AsyncIterator[tuple[Sold, PeriodCloseJob]]:
    """The database with the plans, and the job that closes invoices. Only a `live` job keeps Stripe's rate limit.

    By default the database is opened by its URL.
    """
    known = settings(folder, url, stripe, live=live, **billing)
    database = database or await Database.connect(url)
    assert known.billing is not None
    client = client_of(known.billing.stripe, LIVE_KEY if live else KEY)
    if not live:
        client.pace = RequestPacer(10_000.0, 10_000.0)  # A sandbox without rates takes any.
    try:
        async with database.writing() as connection:
            await plan_versions.record_plans(connection, known.plans)
        yield Sold(database, known), PeriodCloseJob(database, client, lambda: known, complete_nothing)
    finally:
        await client.close()
        await database.close()
