"""The catalog at Stripe: missing objects are created once, archived ones are restored, differences are reported."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe_sync import catalog
from edgeproxy.collector.commands.meters import sync_catalog
from edgeproxy.config.collector.billing import Stripe as Settings
from edgeproxy.config.collector.catalog import MeterPrice, Plan
from tests.support.sold import KEY, settings
from tests.support.stripe_sandbox import Sandbox


def test_price_becomes_tiers_with_free_included_usage() -> None:
    def of(**price_fields: Any) -> list[dict[str, Any]]:
        return catalog.build_tiers(MeterPrice.model_validate(price_fields))

    assert of(included="1000", price="0.01/1000") == [
        {"up_to": 1000, "unit_amount_decimal": "0"},
        {"up_to": "inf", "unit_amount_decimal": "0.001"},
    ]
    assert of(included="0", price="0.5") == [{"up_to": "inf", "unit_amount_decimal": "50"}]
    assert of(included="unlimited") == [{"up_to": "inf", "unit_amount_decimal": "0"}]
    assert of(included="5", cap="hard")[-1] == {"up_to": "inf", "unit_amount_decimal": "0"}
    assert of(tiers=[{"up_to": "10", "price": "0.02"}, {"up_to": "none", "price": "0.01"}]) == [
        {"up_to": 10, "unit_amount_decimal": "2"},
        {"up_to": "inf", "unit_amount_decimal": "1"},
    ]


def test_the_catalog_is_brought_to_stripe(
    own_sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", KEY["STRIPE_SECRET_KEY"])
    known = settings(tmp_path, f"sqlite:///{tmp_path}/ledger.db", own_sandbox.url, collection="meters")
    code, output = sync_catalog(known, dry=True)
    assert (code, output.count("missing   price"), output.count("missing   meter")) == (0, 15, 5), output
    assert own_sandbox.journal("price") == [], "a dry run changes nothing"
    assert sync_catalog(known, dry=False)[0] == 0
    assert sync_catalog(known, dry=False) == (0, "Stripe has all of it")
    assert len(own_sandbox.journal("price.created")) == 15

    async def spoil(client: Any) -> None:
        meters = (await client.v1.billing.meters.list_async()).data
        await client.v1.billing.meters.update_async(meters[0].id, {"display_name": "Mine"})
        prices = (await client.v1.prices.list_async({"lookup_keys": ["edgeproxy/standard@1/seats/month"]})).data
        await client.v1.prices.update_async(prices[0].id, {"active": False})
        await client.v1.products.update_async("edgeproxy_seats", {"active": False})

    own_sandbox.run(spoil)
    code, output = sync_catalog(known, dry=False)
    assert [line.split()[:2] for line in output.splitlines()] == [
        ["renamed", "meter"],
        ["archived", "product"],
        ["archived", "price"],
    ]
    assert sync_catalog(known, dry=True) == (0, "Stripe has all of it")


@pytest.mark.parametrize("collection", ["invoice_items", "meters"])
def test_sync_refuses_all_plans_if_stripes_meters_cannot_charge_one(
    own_sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collection: str
) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", KEY["STRIPE_SECRET_KEY"])
    known = settings(tmp_path, f"sqlite:///{tmp_path}/ledger.db", own_sandbox.url, collection=collection)
    packed = Plan.model_validate({"fee": "0", "meters": {"tokens": {"price": "0.02", "package": "10"}}})
    known = known.model_copy(update={"plans": {**known.plans, "packs@1": packed}})
    before = own_sandbox.journal()
    for dry in (True, False):
        assert sync_catalog(known, dry=dry) == (
            1,
            "refused   plan     packs@1: it has prices of tokens by package, which Stripe's meters cannot charge\n"
            "nothing was changed",
        )
    assert own_sandbox.journal() == before


def test_each_priced_value_has_a_meter_and_a_price(own_sandbox: Sandbox) -> None:
    by = {"dimension": "model", "prices": {"large": "0.03/1000"}}
    plans = {"split@1": Plan.model_validate({"fee": "0", "meters": {"split_tokens": {"price": "0.01/1000", "by": by}}})}

    async def work() -> list[dict[str, Any]]:
        stripe = Stripe(Settings(base=own_sandbox.url), KEY)
        try:
            steps = await catalog.sync_catalog(stripe, plans)
            assert [(step.object_kind, step.name.partition("large_")[0]) for step in steps] == [
                ("meter", "edgeproxy_split_tokens"),
                ("meter", "edgeproxy_split_tokens_"),
                ("product", "edgeproxy_split_tokens"),
                ("product", "edgeproxy_split_tokens_"),
                ("price", "edgeproxy/split@1/split_tokens:large/month"),
                ("price", "edgeproxy/split@1/split_tokens/month"),
            ]
            assert await catalog.fetch_sync_steps(stripe, plans) == []
            keys = [step.name for step in steps if step.object_kind == "price"]
            prices = await catalog.fetch_prices(stripe, keys)
            return [prices[key] for key in keys]
        finally:
            await stripe.close()

    large, others = asyncio.run(work())
    assert [[tier["unit_amount_decimal"] for tier in price["tiers"]] for price in (large, others)] == [
        ["0.003"],
        ["0.001"],
    ]
    assert large["recurring"]["meter"] != others["recurring"]["meter"]


def test_a_version_that_differs_is_reported_and_left_alone(own_sandbox: Sandbox) -> None:
    def plan(price: str) -> dict[str, Plan]:
        meter = {"included": "10", "price": price}
        return {"edited@1": Plan.model_validate({"fee": "0", "meters": {"edited_calls": meter}})}

    async def work() -> list[str]:
        stripe = Stripe(Settings(base=own_sandbox.url), KEY)
        try:
            await catalog.sync_catalog(stripe, plan("0.02"))
            return [str(step) for step in await catalog.sync_catalog(stripe, plan("0.03"))]
        finally:
            await stripe.close()

    (step,) = asyncio.run(work())
    what = "edgeproxy/edited@1/edited_calls/month"
    assert step == f"differs   price    {what}: its money is another: write a new version of the plan"
