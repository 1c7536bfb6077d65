"""The event of a limit that refuses: once an hour of each limit, to the customers who want it, whoever looks."""

from collections.abc import Mapping

import orjson
import sqlalchemy as sa

from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import HOUR, customers, ledger, series
from edgeproxy.collector.database.webhook_tables import webhook_deliveries, webhook_messages
from edgeproxy.collector.jobs.limit_events import LimitEvents
from edgeproxy.collector.webhook_endpoints import endpoints
from edgeproxy.collector.webhook_endpoints.models import CreateWebhookEndpointRequest
from edgeproxy.config import dimensions
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.collector.webhooks import Webhooks
from edgeproxy.config.meters import Meter

NOON = 1_790_000_040 - 1_790_000_040 % 86400 + 43200
WEBHOOKS = Webhooks.model_validate(
    {"encryption": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=", "networks": ["127.0.0.0/8"]}
)
SETTINGS = CollectorSettings.model_construct(webhooks=WEBHOOKS, meters={"refused": Meter(count="refusals")})


async def add_customer(database: Database, name: str, **endpoint: object) -> None:
    async with database.writing() as connection:
        row = {"id": f"id-{name}", "name": name, "tier": "basic", "settings": '{"tier":"basic"}', "metadata": "{}"}
        await connection.execute(sa.insert(customers), [{**row, "created_at": 1, "version": 1}])
        new = CreateWebhookEndpointRequest.model_validate({"url": "http://127.0.0.1:1/", **endpoint})
        await endpoints.create_endpoint(connection, Caller("test"), name, new, WEBHOOKS)


async def count_refusals(database: Database, minute: int, counts: Mapping[tuple[str, str], int]) -> None:
    """Have the ledger count refusals of customers by limits in a minute."""
    splits = {key: f'{{"certain":"yes","limit":"{key[1]}"}}' for key in counts}
    async with database.writing() as connection:
        keys = [["edge", "eu", customer, "refused", "v1", splits[customer, limit]] for customer, limit in counts]
        await database.ledger.insert_series(connection, keys)
        rows = await connection.execute(series.select())
        numbers = {(row.customer, row.dimensions): row.id for row in rows}
        ids = {key: numbers[key[0], splits[key]] for key in counts}
        split = [
            {"name": name, "series": ids[key], "value": value}
            for key in counts
            for name, value in dimensions.parse_dimensions(splits[key]).items()
        ]
        await database.ledger.insert_series_dimensions(connection, split)
        await database.ledger.add(connection, ledger, {minute: {ids[key]: value for key, value in counts.items()}})


async def fetch_messages(database: Database) -> list[tuple[str, str, int]]:
    """The customer, the limit and the count of each message, and that each has one delivery."""
    async with database.reading() as connection:
        bodies = (await connection.execute(sa.select(webhook_messages.c.body).order_by(webhook_messages.c.body))).all()
        deliveries = sa.select(sa.func.count()).select_from(webhook_deliveries)
        assert (await connection.execute(deliveries)).scalar_one() == len(bodies)
    documents = [orjson.loads(row.body) for row in bodies]
    assert {document["type"] for document in documents} <= {"limit.exceeded"}
    data = [document["data"] for document in documents]
    return sorted((one["customer"], one["limit"], one["refused"]) for one in data)


async def test_refusing_limit_sends_one_event_an_hour_to_subscribed_endpoints(database: str) -> None:
    opened = await Database.connect(database)
    try:
        await add_customer(opened, "acme")
        await add_customer(opened, "bolt", types=["invoice.paid"])
        jobs = [LimitEvents(opened, lambda: SETTINGS) for _ in range(2)]
        await jobs[0].step(NOON + 120)
        assert await fetch_messages(opened) == []
        refused = {("acme", "basic"): 7, ("acme", "burst"): 2, ("bolt", "basic"): 90, ("none", "basic"): 5}
        await count_refusals(opened, NOON, refused)
        for job in (*jobs, *jobs):
            await job.step(NOON + 180)
        first = [("acme", "basic", 7), ("acme", "burst", 2)]
        assert await fetch_messages(opened) == first
        # Refusals that an edge ships shortly after the end of an hour still belong to that hour.
        await count_refusals(opened, NOON + HOUR, {("acme", "basic"): 3})
        await jobs[0].step(NOON + 2 * HOUR + 600)
        assert await fetch_messages(opened) == sorted([*first, ("acme", "basic", 3)])
        await count_refusals(opened, NOON + 3 * HOUR, {("acme", "basic"): 4})
        await jobs[0].step(NOON + 4 * HOUR + 1000)
        assert len(await fetch_messages(opened)) == 3, "the event is too late for its hour"
    finally:
        await opened.close()
