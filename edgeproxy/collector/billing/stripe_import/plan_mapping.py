"""The plan of ours for a Stripe subscription, by metadata, the file, or equal prices; and obstacles to its import.

Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.billing.stripe_import.map_file import MapRow
from edgeproxy.collector.billing.stripe_sync.catalog import build_tiers, normalize_decimal
from edgeproxy.collector.billing.subscriptions import plans_on_sale
from edgeproxy.config.collector.catalog import MeterPrice, Plan, find_newest_versions

PLAN = "edgeproxy_plan"
"""The metadata key of a Stripe subscription, price or product for our plan or plan version."""
IMPORTED = "edgeproxy_import"
"""The metadata key of an imported Stripe subscription for the id of our customer."""
STATUSES = ("active", "trialing", "past_due")
"""The statuses of subscriptions that can be imported."""
NamedBy = Literal["metadata", "file"]
OBSTACLES: Mapping[str, str] = {
    "schedule": "a subscription schedule manages it: release it first",
    "pause_collection": "its collection is paused",
    "discounts": "it has a discount, which would be lost",
    "pending_update": "a change of it is not paid yet",
    "transfer_data": "its payments go to another account",
    "application_fee_percent": "its payments have an application fee",
    "billing_thresholds": "it is invoiced at a threshold",
}
"""The obstacle if this field of a subscription is not empty."""


class PlanMatch(NamedTuple):
    """The plan of ours for a subscription, or the reason why there is none."""

    version: str | None = None
    is_yearly: bool = False
    by: Literal["metadata", "file", "prices"] | None = None
    why: str = ""


def find_obstacle(stripe_subscription: StripeObject, stripe_customer: StripeObject) -> str | None:
    """Return the reason why a subscription cannot be imported, regardless of its plan, or None."""
    if (status := stripe_subscription["status"]) not in STATUSES:
        return f"its status is {status}"
    if (ends := stripe_subscription.get("cancel_at")) is not None and not is_taken_over(stripe_subscription):
        return f"it ends at Stripe on {format_timestamp(ends * 1000)}"
    for field, why in OBSTACLES.items():
        if stripe_subscription.get(field):
            return why
    items = stripe_subscription["items"]["data"]
    if stripe_customer.get("discount"):
        # A discount of the customer applies to each of its subscriptions at Stripe.
        return "its customer has a discount, which would be lost"
    if any(item.get("discounts") for item in items):
        return OBSTACLES["discounts"]
    if stripe_subscription["items"].get("has_more"):
        return "it has more prices than a plan"
    if len({item["current_period_end"] for item in items}) != 1:
        return "its prices have periods that end at different times"
    return None


def is_taken_over(stripe_subscription: StripeObject) -> bool:
    """Return whether a subscription ends because it is imported."""
    metadata = stripe_subscription.get("metadata") or {}
    return bool(stripe_subscription["cancel_at_period_end"]) and IMPORTED in metadata


def compute_renewal(stripe_subscription: StripeObject) -> int | None:
    """Return the amount of Stripe's next charge at the end of the period, without usage, tax and discounts.

    Returns None if a price has tiers.
    """
    amount = 0
    for item in stripe_subscription["items"]["data"]:
        if item["price"]["recurring"]["usage_type"] != "metered":
            if item["price"]["unit_amount"] is None:
                return None
            amount += item["price"]["unit_amount"] * item["quantity"]
    return amount


def map_subscription(
    stripe_subscription: StripeObject,
    prices: Mapping[str, StripeObject],
    plans: dict[str, Plan],
    rows: Mapping[str, MapRow],
    customer: str,
) -> PlanMatch:
    """Return the plan of a subscription for a customer of ours, by name.

    `prices` has prices by id, with their tiers and products.
    """
    items = stripe_subscription["items"]["data"]
    # The price within a subscription lacks its tiers.
    of_items = [prices.get(item["price"]["id"], item["price"]) for item in items]
    fees = [price for price in of_items if price["recurring"]["usage_type"] == "licensed"]
    metered = [price for price in of_items if price["recurring"]["usage_type"] == "metered"]
    if len(fees) != 1:
        return PlanMatch(why=f"it has {len(fees)} prices that are a fee, and a plan has one")
    (quantity,) = (item["quantity"] for item in items if item["price"]["id"] == fees[0]["id"])
    if quantity != 1:
        return PlanMatch(why=f"its quantity is {quantity}, and a plan is sold once")
    names = _list_names(stripe_subscription.get("metadata") or {}, of_items, rows)
    versions: dict[str, NamedBy] = {}
    for by, name in names:
        try:
            versions.setdefault(plans_on_sale.resolve_version(name, plans, customer), by)
        except ChangeRejectedError:
            return PlanMatch(why=f"its {by} names the plan {name!r}, which {customer} cannot have")
    if len(versions) > 1:
        return PlanMatch(why=f"its metadata and the file name {' and '.join(sorted(versions))}")
    # At most one is left.
    for version, by in versions.items():
        return _match_named(
            version, plans[version], by, fees[0], [price for price in metered if not _is_named(price, rows)]
        )
    return _match_equal(find_newest_versions(plans, customer).values(), plans, fees[0], metered)


def _match_named(
    version: str, plan: Plan, by: NamedBy, fee: StripeObject, metered: Sequence[StripeObject]
) -> PlanMatch:
    """Return the match with a named plan. The fee may differ, but not the currency and the interval."""
    is_yearly = fee["recurring"]["interval"] == "year"
    if fee["recurring"]["interval_count"] != 1 or fee["recurring"]["interval"] not in ("month", "year"):
        return PlanMatch(why=f"it renews every {_format_interval(fee)}")
    if is_yearly and plan.year_fee is None:
        return PlanMatch(why=f"{version} is not sold by the year")
    if fee["currency"] != plan.currency:
        return PlanMatch(why=f"its currency is {fee['currency']}, and that of {version} is {plan.currency}")
    if not _fit_meters(metered, plan, is_whole=False):
        return PlanMatch(why=f"{version} has no meter with the price {metered[0]['id']}: name that one, too")
    return PlanMatch(version, is_yearly, by)


def _match_equal(
    versions: Iterable[str], plans: Mapping[str, Plan], fee: StripeObject, metered: Sequence[StripeObject]
) -> PlanMatch:
    """Return the match with the one plan on sale whose fee and prices are all equal."""
    equal = [version for version in versions if _fits_fee(fee, plans[version])]
    fitting = [version for version in equal if _fit_meters(metered, plans[version], is_whole=True)]
    if len(fitting) == 1:
        return PlanMatch(fitting[0], fee["recurring"]["interval"] == "year", "prices")
    if fitting:
        return PlanMatch(why=f"it may be each of {', '.join(sorted(fitting))}: name one")
    if equal:
        return PlanMatch(why=f"it has the fee of {', '.join(sorted(equal))}, and other prices of usage: name one")
    amount = "tiers" if fee["unit_amount"] is None else f"{fee['unit_amount']} {fee['currency']}"
    return PlanMatch(why=f"no plan on sale costs {amount} every {_format_interval(fee)}: name one")


def _list_names(
    metadata: Mapping[str, str], prices: Iterable[StripeObject], rows: Mapping[str, MapRow]
) -> list[tuple[NamedBy, str]]:
    """Return the plan names of a subscription, its prices and their products."""
    names: list[tuple[NamedBy, str]] = [("metadata", metadata[PLAN])] if metadata.get(PLAN) else []
    for price in prices:
        for one in (price, price["product"]):
            if isinstance(one, dict) and (name := (one.get("metadata") or {}).get(PLAN)):
                names.append(("metadata", name))
            if (row := rows.get(one["id"] if isinstance(one, dict) else one)) is not None:
                names.append(("file", row.ours))
    return names


def _is_named(price: StripeObject, rows: Mapping[str, MapRow]) -> bool:
    return bool(_list_names({}, [price], rows))


def _fits_fee(price: StripeObject, plan: Plan) -> bool:
    """Return whether a price is the monthly or yearly fee of a plan."""
    recurring = price["recurring"]
    if (price["currency"], recurring["interval_count"], price.get("transform_quantity")) != (plan.currency, 1, None):
        return False
    fees = {"month": plan.fee, "year": plan.year_fee}
    return price["unit_amount"] is not None and fees.get(recurring["interval"]) == price["unit_amount"]


def _fit_meters(metered: Sequence[StripeObject], plan: Plan, *, is_whole: bool) -> bool:
    """Return whether each metered price matches a meter of its own.

    With `is_whole`, no other meter may have a price.
    """
    left = [price for price in plan.meters.values() if price.has_prices]
    for price in metered:
        fitting = next((one for one in left if price["currency"] == plan.currency and _fits_meter(price, one)), None)
        if fitting is None:
            return False
        # Two equal prices need two meters.
        left.remove(fitting)
    return not (is_whole and left)


def _fits_meter(price: StripeObject, meter_price: MeterPrice) -> bool:
    """Return whether a metered price equals a meter's price: the included units and each tier."""
    recurring = price["recurring"]
    if (recurring["interval"], recurring["interval_count"], price.get("transform_quantity")) != ("month", 1, None):
        return False
    if meter_price.by is not None or meter_price.package is not None:
        return False
    expected = [(None if tier["up_to"] == "inf" else tier["up_to"], tier["unit_amount_decimal"])
                for tier in build_tiers(meter_price)]  # fmt: skip
    if price["billing_scheme"] == "per_unit":
        return expected == [(None, normalize_decimal(price["unit_amount_decimal"]))]
    tiers = price.get("tiers") or ()
    if price["tiers_mode"] != meter_price.tiers_mode or any(tier.get("flat_amount_decimal") for tier in tiers):
        return False
    return expected == [(tier["up_to"], normalize_decimal(tier["unit_amount_decimal"])) for tier in tiers]


def _format_interval(price: StripeObject) -> str:
    count, interval = price["recurring"]["interval_count"], price["recurring"]["interval"]
    return str(interval) if count == 1 else f"{count} {interval}s"
