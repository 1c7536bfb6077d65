"""The mapping of Stripe customers to ours: the import never guesses."""

from typing import Any

import pytest

from edgeproxy.collector.billing.rating.periods import period_at
from edgeproxy.collector.billing.stripe_import.customer_mapping import OurCustomer, map_customers
from edgeproxy.collector.billing.stripe_import.import_plan import compute_anchor
from edgeproxy.collector.billing.stripe_import.map_file import MapFileError, MapRow, parse_map
from edgeproxy.collector.billing.stripe_import.plan_mapping import find_obstacle, map_subscription
from edgeproxy.config.collector.catalog import Plan
from tests.support.invoiced import at

PLANS = {
    "team@1": Plan.model_validate({"fee": "31", "annual": {"discount": "10%"}}),
    "twin@1": Plan.model_validate({"fee": "40"}),
    "twin-b@1": Plan.model_validate({"fee": "40"}),
    "usage@1": Plan.model_validate({"fee": "10", "meters": {"calls": {"included": "100", "price": "1"}}}),
    "usage@2": Plan.model_validate({"fee": "10", "meters": {"calls": {"included": "100", "price": "2"}}}),
}


def ours(name: str, *emails: str, **more: Any) -> OurCustomer:
    fields = {"external_id": None, "stripe_id": None, "is_deleting": False, **more}
    return OurCustomer(f"id-{name}", name, emails=frozenset(emails), **fields)


ACME, OTHER = ours("acme", "a@acme.io", external_id="crm-1"), ours("other", "b@other.io", "shared@x.io")
THIRD = ours("third", "shared@x.io")
LINKED, LEAVING = ours("linked", "l@x.io", stripe_id="cus_l"), ours("leaving", "g@x.io", is_deleting=True)


def theirs(id: str, email: str | None = None, **metadata: str) -> dict[str, Any]:
    return {"id": id, "email": email, "metadata": metadata}


@pytest.mark.parametrize(
    ("stripe_customers", "rows", "expected"),
    [
        ([theirs("cus_1", edgeproxy_customer="acme")], {}, ["acme by metadata"]),
        ([theirs("cus_1", edgeproxy_customer="id-acme")], {}, ["acme by metadata"]),
        ([theirs("cus_1", "b@other.io", account="crm-1")], {}, ["acme by metadata"]),
        ([theirs("cus_1", "b@other.io")], {"cus_1": "acme"}, ["acme by file"]),
        ([theirs("cus_1", "A@Acme.IO")], {}, ["acme by e-mail"]),
        ([theirs("cus_l", "a@acme.io")], {}, ["linked by link"]),
        ([theirs("cus_1")], {}, ["unmapped"]),
        ([theirs("cus_1", "z@z.io")], {}, ["unmapped"]),
        ([theirs("cus_1", "a@acme.io", edgeproxy_customer="gone")], {}, ["unmapped"]),
        ([theirs("cus_1", edgeproxy_customer="gone")], {"cus_1": "acme"}, ["acme by file"]),
        ([theirs("cus_1", edgeproxy_customer="acme")], {"cus_1": "other"}, ["conflict"]),
        ([theirs("cus_1", edgeproxy_customer="acme", account="other")], {}, ["conflict"]),
        ([theirs("cus_1", "shared@x.io")], {}, ["conflict"]),
        ([theirs("cus_1", "l@x.io")], {}, ["conflict"]),
        ([theirs("cus_1", "g@x.io")], {}, ["conflict"]),
        ([theirs("cus_1", "a@acme.io"), theirs("cus_2", "a@acme.io")], {}, ["conflict", "conflict"]),
        ([theirs("cus_1", "a@acme.io"), theirs("cus_2")], {"cus_2": "acme"}, ["conflict", "acme by file"]),
        ([theirs("cus_1", edgeproxy_customer="acme"), theirs("cus_2")], {"cus_2": "acme"}, ["conflict", "conflict"]),
    ],
)
def test_stripe_customer_maps_to_one_account_by_the_strongest_evidence(
    stripe_customers: list[Any], rows: dict[str, str], expected: list[str]
) -> None:
    file = {stripe_id: MapRow(name, 2) for stripe_id, name in rows.items()}
    matches = map_customers(stripe_customers, [ACME, OTHER, THIRD, LINKED, LEAVING], file, "account")
    results = []
    for match in matches:
        unmapped = "conflict" if match.is_conflict else "unmapped"
        results.append(unmapped if match.customer is None else f"{match.customer.name} by {match.by}")
        assert bool(match.why) == (match.customer is None)
    assert results == expected


def price(amount: int | None = 3100, **more: Any) -> dict[str, Any]:
    recurring = {"interval": "month", "interval_count": 1, "usage_type": "licensed", **more.pop("recurring", {})}
    fields = {"id": f"price_{amount}", "currency": "usd", "unit_amount": amount, "billing_scheme": "per_unit"}
    product = {"id": "prod_1", "metadata": more.pop("product", {})}
    return {**fields, "metadata": {}, "product": product, "recurring": recurring, **more}


def metered(unit: str, included: int = 100, mode: str = "graduated", **more: Any) -> dict[str, Any]:
    tiers = [{"up_to": included, "unit_amount_decimal": "0"}, {"up_to": None, "unit_amount_decimal": unit}]
    tiered = {"billing_scheme": "tiered", "tiers_mode": mode, "tiers": tiers, "id": "price_m"}
    return price(None, recurring={"usage_type": "metered"}, **tiered, **more)


def subscription(*prices: dict[str, Any], **more: Any) -> dict[str, Any]:
    items = [
        {
            "price": price,
            "quantity": 1 if price["recurring"]["usage_type"] == "licensed" else None,
            "current_period_end": 1,
        }
        for price in prices
    ]
    fields = {"id": "sub_1", "status": "active", "metadata": {}, "cancel_at": None, "cancel_at_period_end": False}
    return {**fields, "items": {"data": items}, **more}


@pytest.mark.parametrize(
    ("prices", "rows", "metadata", "expected"),
    [
        ([price()], {}, {}, "team@1 by prices"),
        ([price(33480, recurring={"interval": "year"})], {}, {}, "team@1 by prices, yearly"),
        ([price(3100, recurring={"interval": "year"})], {}, {}, "no plan on sale costs 3100 usd every year"),
        ([price(recurring={"interval_count": 3})], {}, {}, "every 3 months"),
        ([price(currency="eur")], {}, {}, "3100 eur"),
        ([price(4000)], {}, {}, "each of twin-b@1, twin@1"),
        ([price(4000)], {"price_4000": "twin"}, {}, "twin@1 by file"),
        ([price(9, product={"edgeproxy_plan": "team"})], {}, {}, "team@1 by metadata"),
        ([price(9)], {"prod_1": "team@1"}, {}, "team@1 by file"),
        ([price(9)], {"prod_1": "team@1"}, {"edgeproxy_plan": "twin"}, "name team@1 and twin@1"),
        ([price(9)], {}, {"edgeproxy_plan": "gone"}, "which acme cannot have"),
        ([price(9, currency="eur")], {}, {"edgeproxy_plan": "team"}, "its currency is eur"),
        ([price(9, recurring={"interval": "year"})], {}, {"edgeproxy_plan": "twin"}, "not sold by the year"),
        ([price(9, recurring={"interval": "week"})], {}, {"edgeproxy_plan": "twin"}, "renews every week"),
        ([price(1000), metered("200")], {}, {}, "usage@2 by prices"),
        ([price(1000), metered("200.0000")], {}, {}, "usage@2 by prices"),
        ([price(1000), metered("100")], {}, {}, "other prices of usage"),
        ([price(1000), metered("100")], {}, {"edgeproxy_plan": "usage@1"}, "usage@1 by metadata"),
        ([price(1000), metered("200")], {}, {"edgeproxy_plan": "usage@1"}, "name that one, too"),
        ([price(1000), metered("200", mode="volume")], {}, {}, "other prices of usage"),
        ([price(1000), metered("200", included=99)], {}, {}, "other prices of usage"),
        ([price(1000)], {}, {}, "other prices of usage"),
        ([price(), price(1000)], {}, {}, "2 prices that are a fee"),
        ([metered("200")], {}, {}, "0 prices that are a fee"),
    ],
)
def test_subscription_maps_to_a_plan_by_name_or_equal_prices(
    prices: list[Any], rows: dict[str, str], metadata: dict[str, str], expected: str
) -> None:
    file = {stripe_id: MapRow(name, 2) for stripe_id, name in rows.items()}
    bare = [
        {name: value for name, value in price.items() if name != "tiers"} for price in prices
    ]  # As Stripe lists items.
    stored = {price["id"]: price for price in prices}
    match = map_subscription(subscription(*bare, metadata=metadata), stored, PLANS, file, "acme")
    if match.version is None:
        assert expected in match.why
    else:
        assert f"{match.version} by {match.by}{', yearly' if match.is_yearly else ''}" == expected


def test_a_quantity_is_no_plan() -> None:
    seats = subscription(price())
    seats["items"]["data"][0]["quantity"] = 3
    assert "quantity is 3" in map_subscription(seats, {}, PLANS, {}, "acme").why


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, None),
        ({"status": "unpaid"}, "status is unpaid"),
        ({"cancel_at": 86400, "cancel_at_period_end": True}, "it ends at Stripe on 1970-01-02"),
        ({"cancel_at": 86400, "cancel_at_period_end": True, "metadata": {"edgeproxy_import": "id-acme"}}, None),
        ({"schedule": "sub_sched_1"}, "schedule"),
        ({"discounts": ["di_1"]}, "discount"),
        ({"pause_collection": {"behavior": "void"}}, "paused"),
        ({"transfer_data": {"destination": "acct_1"}}, "another account"),
        ({"items": {"data": [{"current_period_end": 1}, {"current_period_end": 2}]}}, "different times"),
        ({"items": {"data": [{"current_period_end": 1}], "has_more": True}}, "more prices"),
    ],
)
def test_subscription_with_untransferable_terms_is_not_imported(fields: dict[str, Any], why: str | None) -> None:
    obstacle = find_obstacle(subscription(price(), **fields), theirs("cus_1"))
    assert (obstacle is None) if why is None else (obstacle is not None and why in obstacle)
    assert "discount" in str(find_obstacle(subscription(price()), {"discount": {"id": "di_1"}}))


def test_periods_end_on_the_day_that_they_had_at_stripe() -> None:
    cycle, february = at(2027, 1, 31, 12, 30, 17), at(2027, 2, 28, 12, 31)
    anchor = compute_anchor(cycle, february)
    assert period_at(february, anchor) == (february, at(2027, 3, 31, 12, 31))
    assert compute_anchor(at(2027, 1, 10), february) == february, "a cycle that ends at another time is not followed"


def test_a_file_names_each_fault_with_its_line_and_column() -> None:
    assert parse_map('stripe,edgeproxy\r\n\r\ncus_1,"a,b"\r\n', "f") == {"cus_1": MapRow("a,b", 3)}
    with pytest.raises(MapFileError) as caught:
        parse_map("stripe,edgeproxy\ncus_1,a,b\n,a\ncus_2,\ncus_3,a\ncus_3,b\n", "f")
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == ["f:2", "f:3", "f:4", "f:6"]
    for text in ("", "stripe,edgeproxy,x\n", 'stripe,edgeproxy\n"cus_1,a\n'):
        with pytest.raises(MapFileError, match=r"^f:"):
            parse_map(text, "f")
