"""The anomaly job on a ledger: baselines, findings, one alert per finding, and a pause undone by an operator."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.models import CreateCustomerRequest, UpdateCustomerRequest
from edgeproxy.collector.accounts.states import compute_customer_state
from edgeproxy.collector.anomalies import store
from edgeproxy.collector.anomalies.baseline import DAY, HOUR, WEEK
from edgeproxy.collector.anomalies.job import GRACE_SECONDS, AnomalyJob
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import audit, directory_outbox
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.ledger_writer import LedgerWriter
from edgeproxy.config.collector.settings import CollectorSettings, Token
from edgeproxy.config.tiers import Tier
from edgeproxy.wire.batch import FIRST, Batch
from loadtest.testbed.tables_ready import put_tables
from tests.support.books import hurry
from tests.support.credited import run

TODAY = 1_790_812_800
"""The start of a day, some months after the first usage."""
assert TODAY % DAY == 0


def settings(**said: Any) -> CollectorSettings:
    token = Token.model_validate({"sha256": "a" * 64, "role": "edge"})
    return CollectorSettings.model_validate(
        {"sha256": "", "tokens": (token,), "tiers": {"basic": Tier()}, "anomalies": said, "database": "sqlite:///x"}
    )


class Books:
    """A ledger filled hour by hour, and an anomaly job on it."""

    def __init__(self, database: Database, **said: Any) -> None:
        self.database = database
        if database.is_sqlite:
            event.listen(database._writer.sync_engine.pool, "checkout", hurry)
        self.known = settings(**said)
        self.job = AnomalyJob(database, self.known)

    async def create(self, *names: str) -> None:
        """Create customers as the API does."""
        async with self.database.writing() as connection:
            for name in names:
                await customers.create_customer(
                    connection, Caller("test"), CreateCustomerRequest(name=name, tier="basic"), self.known
                )

    async def count(self, used: Mapping[int, Mapping[str, int]]) -> None:
        """Write requests of customers to the ledger. `used` maps the Unix second of an hour to counts by customer."""
        batches = [
            Batch(
                "edge-1", "eu", n, hour, hour + 60, FIRST, tuple((name, "requests", "v1", some[name]) for name in some)
            )
            for n, (hour, some) in enumerate(sorted(used.items()), 1)
            if some
        ]
        row = {"edge": "edge-1", "region": "eu", "seq": 0, "hash": FIRST, "received": 0}
        async with self.database.writing() as connection:
            await self.database.ledger.insert_edges(connection, [row])
            await LedgerWriter(self.database).add_batches(connection, batches)

    async def look(self, now: float, times: int = 1) -> None:
        for _ in range(times):
            await self.job.step(now)

    async def told(self) -> list[tuple[str, str, str]]:
        """Return the kind, severity and key of each alert."""
        async with self.database.reading() as connection:
            columns = (alerts.c.kind, alerts.c.severity, alerts.c.key)
            return [tuple(row) for row in await connection.execute(sa.select(*columns).order_by(alerts.c.id))]

    async def found(self) -> list[dict[str, Any]]:
        async with self.database.reading() as connection:
            return await store.list_findings(connection, None, 100, None)


def usual(hour: int) -> int:
    """Return the usual usage of each customer, which varies a little by hour."""
    at = hour // HOUR
    return 200 + 100 * (at % 24 > 8) + at * 7919 % 13


def weeks(*names: str, until: int = TODAY, count: int = 3) -> dict[int, dict[str, int]]:
    return {hour: dict.fromkeys(names, usual(hour)) for hour in range(until - count * WEEK, until, HOUR)}


def test_each_anomaly_raises_one_alert(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "NAMES_MAX", 2)  # Fewer than the customers, so that the job needs several rounds.

    async def work(opened: Database) -> None:
        books = Books(opened, customers={"ignored": {"ignore": "true"}}, keep="7day")
        names = ("acme", "bolt", "ignored", "-")
        await books.count(weeks(*names))
        while await rollup.roll_up_slice(opened, TODAY + 400):
            pass
        await books.look(TODAY + GRACE_SECONDS, 3)
        assert await books.told() == [], "three weeks as they usually are"

        # From ten on acme uses eight times as much for an hour; bolt uses nothing on this day.
        noon = TODAY + 10 * HOUR
        today = {hour: {name: usual(hour) for name in names if name != "bolt"} for hour in range(TODAY, noon, HOUR)}
        await books.count({**today, noon: {name: 8 * usual(noon) for name in names if name != "bolt"}})
        await books.look(noon + HOUR + GRACE_SECONDS - 1)
        assert await books.told() == [], "the hour may not be whole yet"
        await books.look(noon + HOUR + GRACE_SECONDS, 2)
        one = ("usage_anomaly", "page", "anomaly:acme:2026-10-01:page")
        assert await books.told() == [one]
        # Another collector, without the state of the first.
        again = Books(opened, customers={"ignored": {"ignore": "true"}})
        async with opened.writing() as connection:
            await store.record_progress(connection, "hours", noon)
        await again.look(noon + HOUR + GRACE_SECONDS + 60, 2)
        assert await books.told() == [one]

        await books.count({hour: {"acme": 2} for hour in range(noon + HOUR, TODAY + DAY, HOUR)})
        await books.look(TODAY + DAY + GRACE_SECONDS, 3)
        assert await books.told() == [one, ("usage_anomaly", "warn", "anomaly:bolt:2026-10-01:warn")]
        found = {row["customer"]: row for row in await books.found()}
        assert found.keys() == {"acme", "bolt"}
        assert (found["acme"]["kind"], found["acme"]["value"]) == ("both", 8 * usual(noon))
        assert (found["bolt"]["kind"], found["bolt"]["value"]) == ("volume", 0)
        assert "refused" in found["bolt"]["action"]
        async with opened.reading() as connection:
            details = [orjson.loads(one) for one in (await connection.execute(sa.select(alerts.c.details))).scalars()]
        assert all(detail["action"] and detail["meter"] == "requests" for detail in details)

        # Findings are deleted after their retention, and a baseline is computed again after a week.
        async with opened.reading() as connection:
            before = await store.fetch_build_times(connection, names)
        assert before == {"acme": TODAY, "bolt": TODAY, "ignored": TODAY}
        await books.look(TODAY + 8 * DAY + GRACE_SECONDS, 3)
        async with opened.reading() as connection:
            assert set((await store.fetch_build_times(connection, names)).values()) == {TODAY + 8 * DAY}
        assert not any(row["day"] == "2026-10-01" for row in await books.found())

    run(database, work)


@pytest.mark.both_databases
def test_pause_happens_once_a_day_and_an_operator_can_undo_it(database: str) -> None:
    async def work(opened: Database) -> None:
        books = Books(opened, pause="5")
        await books.create("acme", "bolt")
        async with opened.writing() as connection:
            await connection.execute(sa.delete(directory_outbox))
        await books.count(weeks("acme", "bolt", "in-a-file"))
        await books.look(TODAY + GRACE_SECONDS, 3)
        hour = TODAY + 12 * HOUR
        await books.count({hour: {"acme": 9 * usual(hour), "bolt": 2 * usual(hour), "in-a-file": 9 * usual(hour)}})
        await books.look(hour + 60)
        paused = ("customer_paused", "page", "pause:acme:2026-10-01")
        assert set(await books.told()) >= {paused, ("customer_pause_failed", "page", "pause:in-a-file:2026-10-01")}
        assert not any("bolt" in key for _, _, key in await books.told())
        statement = (
            sa.select(alerts.c.customer, alerts.c.details)
            .where(alerts.c.kind.in_(["customer_paused", "customer_pause_failed"]))
            .order_by(alerts.c.key)
        )
        async with opened.reading() as connection:
            rows = (await connection.execute(statement)).all()
        assert [row.customer for row in rows] == ["acme", None], "a customer is not told what operators have to do"
        assert not any("edgeproxy" in row.details for row in rows)

        async with opened.reading() as connection:
            assert compute_customer_state(await customers.get_row(connection, "acme")) == "paused"
            assert (await connection.execute(sa.select(directory_outbox.c.name))).scalars().all() == ["acme"]
            by = sa.select(audit.c.action, audit.c.target).where(audit.c.actor == "anomalies")
            assert (await connection.execute(by)).all() == [("customer.change", "acme")]
        # The job does not repeat a pause that an operator undid.
        async with opened.writing() as connection:
            back = UpdateCustomerRequest.model_validate({"paused": None})
            await customers.update_customer(connection, Caller("person"), "acme", back, books.known)
        await books.look(hour + 120)
        async with opened.reading() as connection:
            assert compute_customer_state(await customers.get_row(connection, "acme")) == "active"
        assert [one for one in await books.told() if one == paused] == [paused]

    run(database, work)


async def test_disabled_anomaly_job_does_not_read_the_database(tmp_path: Any) -> None:
    opened = Database(f"sqlite:///{tmp_path}/none.db")
    try:
        await Books(opened, enabled="false").look(TODAY)
    finally:
        await opened.close()


def test_failed_pause_of_one_customer_does_not_block_another(tmp_path: Any) -> None:
    async def work(opened: Database) -> None:
        books = Books(opened, pause="5")
        await books.create("acme", "bolt")
        async with opened.writing() as connection:
            gone = {"tier": "gone", "settings": '{"tier": "gone"}'}
            acme = customers_table.c.name == "acme"
            await connection.execute(sa.update(customers_table).where(acme).values(gone))
        await books.count(weeks("acme", "bolt"))
        await books.look(TODAY + GRACE_SECONDS, 3)
        hour = TODAY + 12 * HOUR
        await books.count({hour: {"acme": 9 * usual(hour), "bolt": 9 * usual(hour)}})
        await books.look(hour + 60, 2)
        told = [key for kind, _, key in await books.told() if kind.startswith("customer_pause")]
        assert sorted(told) == ["failed-pause:acme:2026-10-01", "pause:bolt:2026-10-01"]
        async with opened.reading() as connection:
            assert compute_customer_state(await customers.get_row(connection, "bolt")) == "paused"

    run(put_tables(f"sqlite:///{tmp_path}/ledger.db"), work)


def test_largely_estimated_usage_raises_one_alert_a_day(database: str) -> None:
    def build_batch(number: int, minute: int, **amounts: tuple[int, int]) -> Batch:
        rows = tuple(
            (customer, "tokens", "v1", amount, f'{{"estimated":"{is_estimated}","model":"m"}}')
            for customer, each in sorted(amounts.items())
            for is_estimated, amount in zip(("no", "yes"), each, strict=True)
        )
        return Batch("edge-1", "eu", number, minute, minute + 60, FIRST, (*rows, ("bolt", "requests", "v1", 90_000)))

    async def work(opened: Database) -> None:
        books = Books(opened, customers={"lab": {"ignore": "true"}}, estimates="0.3")
        used = {"acme": (3500, 1500), "bolt": (3400, 1600), "small": (0, 999), "lab": (0, 5000)}
        async with opened.writing() as connection:
            row = {"edge": "edge-1", "region": "eu", "seq": 0, "hash": FIRST, "received": 0}
            await opened.ledger.insert_edges(connection, [row])
            batches = [build_batch(1, TODAY + HOUR, **used), build_batch(2, TODAY + DAY, acme=(0, 9000))]
            await LedgerWriter(opened).add_batches(connection, batches)
        await books.look(TODAY + DAY + GRACE_SECONDS, 2)
        assert await books.told() == [
            ("estimates_high", "warn", "estimates:bolt:tokens:2026-10-01"),
            ("estimates_high", "warn", "estimates:acme:tokens:2026-10-01"),
        ]
        async with opened.reading() as connection:
            details = [orjson.loads(one) for one in (await connection.execute(sa.select(alerts.c.details))).scalars()]
        assert [(detail["estimated"], detail["units"]) for detail in details] == [(1600, 5000), (1500, 5000)]
        await Books(opened, estimates="off").look(TODAY + 2 * DAY + GRACE_SECONDS)
        assert len(await books.told()) == 2

    run(database, work)
