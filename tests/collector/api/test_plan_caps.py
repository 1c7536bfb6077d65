"""The caps of plans follow what there is by now, of each customer by itself."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.reports.response_counts import ResponseCounts
from edgeproxy.collector.billing.subscriptions import subscriptions
from edgeproxy.collector.database.billing_tables import plan_versions
from edgeproxy.collector.database.billing_tables import subscriptions as table
from edgeproxy.collector.database.quota_tables import quota_passes
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.jobs.billing import BillingJobs
from loadtest.testbed.tables_ready import put_tables
from tests.support.sold import sold

JANUARY = 1_798_761_600


async def test_unreadable_plan_of_one_customer_does_not_delay_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[str] = []
    follow = subscriptions.entitlements.update_entitlements

    async def note(connection: object, customer: object, *more: object) -> bool:
        followed.append(customer.name)  # type: ignore[attr-defined]
        return await follow(connection, customer, *more)  # type: ignore[arg-type]

    async with sold(tmp_path, put_tables(f"sqlite:///{tmp_path}/ledger.db"), "http://127.0.0.1:1") as (shop, _):
        for name in ("first", "odd", "last"):
            await shop.customer(name, "free", now=JANUARY)
        passed = {"meter": "llm_tokens", "period": 1, "at": 0, "due": 1, "until": 1 << 40, "is_over": 0}
        async with shop.database.writing() as connection:
            await connection.execute(
                sa.insert(plan_versions), [{"version": "odd@1", "settings": "{}", "created_at": 0}]
            )
            odd = sa.select(customers.c.id).where(customers.c.name == "odd")
            await connection.execute(sa.update(table).where(table.c.customer.in_(odd)).values(plan_version="odd@1"))
            rows = [{"customer": name, **passed} for name in ("first", "odd", "last")]
            await connection.execute(sa.insert(quota_passes), rows)
        monkeypatch.setattr(subscriptions.entitlements, "update_entitlements", note)
        jobs = BillingJobs(shop.database, lambda: shop.known, lambda now: None, ResponseCounts(), lambda takings: None)
        for job in (jobs._follow_passes, jobs._follow_plans):
            followed.clear()
            await job()
            assert sorted(followed) == ["first", "last"]
        async with shop.database.reading() as connection:
            left = sa.select(quota_passes.c.customer).where(quota_passes.c.is_over == 0)
            assert (await connection.execute(left)).scalars().all() == ["odd"]
