"""Versions of plans in the database."""

import os
from pathlib import Path

import pytest

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.subscriptions import plan_versions
from edgeproxy.collector.billing.subscriptions.plan_versions import PlanEditedError
from edgeproxy.collector.billing.subscriptions.plans_on_sale import check_sold
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.load import load_plans
from loadtest.testbed.process import ROOT
from loadtest.testbed.tables_ready import put_tables
from tests.support.sold import sold

PLANS = load_plans(ROOT / "loadtest/testbed/plans.yaml", os.environ).plans


async def test_a_version_that_somebody_has_is_not_edited(tmp_path: Path) -> None:
    where = put_tables(f"sqlite:///{tmp_path}/ledger.db")
    async with sold(tmp_path, where, "http://127.0.0.1:9") as (shop, _):
        await shop.customer("acme", "standard", now=0)
        dearer = {name: plan.model_copy(update={"fee": plan.fee + 100}) for name, plan in PLANS.items()}
        async with shop.database.writing() as connection:
            await plan_versions.record_plans(connection, PLANS)
            await plan_versions.record_plans(connection, dearer | {"standard@1": PLANS["standard@1"]})
            stored = await plan_versions.fetch_plans(connection, PLANS)
            assert stored["enterprise@1"].fee == 50000, "no subscriber had this version"
            with pytest.raises(PlanEditedError, match="standard@1 was edited"):
                await plan_versions.record_plans(connection, dearer)
            await plan_versions.record_plans(connection, {})
            assert await plan_versions.fetch_plans(connection, ["standard@1"]) == {"standard@1": PLANS["standard@1"]}


def test_customer_chooses_a_plan_on_sale_or_keeps_its_own() -> None:
    plans = dict.fromkeys(("team@1", "team@2", "free@1", "free@1+acme", "free@1+bolt"), Plan(fee=0))
    for plan in ("team", "team@2", "free", "free@1+acme"):
        check_sold(plan, plans, "acme")
    check_sold("team@1", plans, "acme", "team@1")
    for plan in ("team@1", "free@1", "free@1+bolt", "gold"):
        with pytest.raises(ChangeRejectedError):
            check_sold(plan, plans, "acme")
