"""Keys that are due for rotation raise each alert and reminder once, with any number of collectors."""

import asyncio

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts import customers, keys
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.models import CreateCustomerRequest, CreateKeyRequest
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.schema import keys as keys_table
from edgeproxy.collector.jobs.key_rotation import KeyRotationJob
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector.pages import Pages
from edgeproxy.config.collector.rotation import Rotation
from edgeproxy.config.collector.settings import CollectorSettings, Token
from edgeproxy.config.tiers import Tier
from edgeproxy.wire.batch import FIRST
from tests.support.credited import run

DAY = 86400
NOW = 1_790_812_800.0
"""1 October 2026 (UTC)."""
CALLER = Caller("test")


def settings(rotation: Rotation | None) -> CollectorSettings:
    token = Token.model_validate({"sha256": "a" * 64, "role": "edge"})
    pages = Pages.model_validate({"url": "https://console.example.com"})
    more = {"tokens": (token,), "tiers": {"basic": Tier()}, "pages": pages, "rotation": rotation}
    return CollectorSettings.model_validate({"sha256": FIRST, **more})


async def join(database: Database, name: str, every: str | None) -> str:
    """Create a customer with a key from the first of October, and return the key's id."""
    new = CreateCustomerRequest.model_validate({"name": name, "tier": "basic", "rotate_every": every})
    async with database.writing() as connection:
        await customers.create_customer(connection, CALLER, new, settings(None))
        key = await keys.create_key(connection, CALLER, name, CreateKeyRequest())
        await connection.execute(sa.update(keys_table).values(created_at=round(NOW * 1000)))
    return key["id"]


async def raised(database: Database) -> list[str]:
    """Return the keys of all alerts, oldest first."""
    async with database.reading() as connection:
        return list((await connection.execute(sa.select(alerts.c.key).order_by(alerts.c.id))).scalars())


def overdue(metrics: Metrics) -> float:
    """Return the number of due keys from the metrics."""
    (family,) = metrics.keys_due_for_rotation.collect()
    return family.samples[0].value


def test_due_alert_comes_a_week_ahead_or_in_the_last_fifth_of_the_time(database: str) -> None:
    async def work(opened: Database) -> None:
        ids = {name: await join(opened, name, every) for name, every in (("often", "10d"), ("rare", "100d"))}
        await join(opened, "never", None)
        async with opened.writing() as connection:
            revoked = await keys.create_key(connection, CALLER, "rare", CreateKeyRequest())
            await keys.revoke_key(connection, CALLER, revoked["id"])
            replaced = await keys.create_key(connection, CALLER, "rare", CreateKeyRequest())
            ids["new"] = (await keys.rotate_key(connection, CALLER, replaced["id"], 86400 * 300))["id"]
            await connection.execute(sa.update(keys_table).values(created_at=round(NOW * 1000)))
        job = KeyRotationJob(opened, Metrics(), lambda: settings(None))
        await job.step(NOW + 7.9 * DAY)
        assert await raised(opened) == []
        for _ in range(2):
            await job.step(NOW + 8.1 * DAY)
        async with opened.reading() as connection:
            (alert,) = (await connection.execute(sa.select(alerts))).all()
        assert (alert.key, alert.customer) == (f"rotation:{ids['often']}", "often")
        assert alert.title.endswith("is due for rotation by 2026-10-11")
        await job.step(NOW + 92.9 * DAY)
        assert len(await raised(opened)) == 1, "without rotation in the file there is no reminder"
        await job.step(NOW + 93.1 * DAY)
        assert set((await raised(opened))[1:]) == {f"rotation:{ids[name]}" for name in ("rare", "new")}

    run(database, work)


@pytest.mark.both_databases
def test_two_collectors_send_each_reminder_once_until_rotation(database: str) -> None:
    rotation = Rotation.model_validate({"deliver": "portal", "remind": ["2d", "5d"], "grace": "2d"})

    async def work(opened: Database) -> None:
        key = await join(opened, "acme", "10d")
        metrics = Metrics()
        first, second = (KeyRotationJob(opened, metrics, lambda: settings(rotation)) for _ in range(2))

        async def at(day: float) -> list[str]:
            await asyncio.gather(first.step(NOW + day * DAY), second.step(NOW + day * DAY))
            return [one.removeprefix(f"rotation:{key}") for one in await raised(opened)]

        assert await at(9) == [""]
        assert overdue(metrics) == 0
        assert await at(11.9) == [""]
        assert overdue(metrics) == 1
        assert await at(12.1) == ["", ":864000:2day"]
        assert await at(14.9) == ["", ":864000:2day"]
        assert await at(15.1) == ["", ":864000:2day", ":864000:5day"]
        async with opened.reading() as connection:
            last = (await connection.execute(sa.select(alerts).order_by(alerts.c.id.desc()).limit(1))).one()
        assert (last.kind, last.customer) == ("key_rotation_overdue", "acme")
        for part in ('"days_overdue":5', '"rotate_at":"https://console.example.com/account/keys"', '"overlap":"2day"'):
            assert part in last.details
        # A shorter rotation time makes another key overdue. Its first alert comes first, and reminders count from it.
        late = await join(opened, "late", None)
        async with opened.writing() as connection:
            await keys.rotate_key(connection, CALLER, key, DAY)
            change = sa.update(customers_table).where(customers_table.c.name == "late").values(rotate_every=DAY)
            await connection.execute(change)
            rotated = keys_table.c.customer.in_(sa.select(customers_table.c.id).where(customers_table.c.name == "acme"))
            await connection.execute(
                sa.update(keys_table).where(rotated).values(created_at=round((NOW + 99 * DAY) * 1000))
            )
        assert (await at(50))[3:] == [f"rotation:{late}"]
        assert (await at(51.9))[4:] == []
        assert (await at(56))[4:] == [f"rotation:{late}:86400:5day"], "of two that are over the last one counts"
        assert (await at(90))[5:] == []

    run(database, work)
