"""The portal's pages about the plan: plans on sale beside the customer's own, and a preview of changes."""

from collections.abc import Mapping, Sequence
from functools import partial

from aiohttp import web
from typing_extensions import TypedDict

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.languages.meter_display import format_label
from edgeproxy.collector.pages import keys
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.forms import is_whole_number
from edgeproxy.collector.pages.plan_losses import Loss, find_losses
from edgeproxy.collector.pages.site import ApiRefusedError, Page, PageError, Visit
from edgeproxy.collector.pages.terms import compute_terms
from edgeproxy.collector.problems import page_codes
from edgeproxy.config.collector.catalog import Plan, get_plan_name

PLAN = "/account/plan"
INTERVALS = ("month", "year")


class SubscriptionView(TypedDict):
    """A subscription. Only the fields of the API that this module reads; templates read more."""

    plan: str
    """The version of the plan, such as `standard@3`."""
    next_plan: str | None
    """The version that begins with the next period, or None."""


def list_pages() -> list[Page]:
    """Return the pages and the forms."""
    own = (
        ("GET", PLAN, show_plans),
        ("POST", f"{PLAN}/preview", preview_change),
        ("POST", PLAN, change_plan),
        ("POST", f"{PLAN}/end", end_plan),
        ("POST", f"{PLAN}/keep", keep_plan),
    )
    return [Page(method, path, "customer", handler) for method, path, handler in own]


async def find_subscription(visit: Visit) -> SubscriptionView | None:
    """Return the customer's subscription, or None. Raises PageError."""
    response = await visit.call("GET", "/billing/subscription")
    if response.status == 404:
        return None
    if not response.is_success:
        raise ApiRefusedError(response)
    body: SubscriptionView = response.body
    return body


async def show_plans(visit: Visit) -> web.Response:
    """Show the customer's plan beside plans on sale, in the customer's currency or, without one, in `?prices=`."""
    customer = await visit.fetch("GET", "/v1/customers/{customer}")
    currency = customer["currency"] or visit.request.query.get("prices")
    sold = await visit.fetch("GET", "/billing/plans", query={} if currency is None else {"currency": currency})
    charged = await visit.fetch("GET", "/billing/status")
    held = await find_subscription(visit)
    counted, costs, price_change, own = None, None, None, None
    if held is not None:
        terms_held = await visit.fetch("GET", "/billing/subscription/plan")
        price_change, own = terms_held["price_change"], terms_held["plan"]
        response = await visit.call("GET", "/billing/usage")
        counted = response.body if response.is_success else None
        estimate = await visit.call("GET", "/billing/plans/costs")
        if estimate.is_success and estimate.body["currency"] == sold["currency"]:
            costs = {plan["version"]: plan for plan in estimate.body["plans"]}
    tiers = visit.site.tiers
    return visit.render(
        "plan.html",
        sold=sold,
        choices=sold["currencies"] if customer["currency"] is None and len(sold["currencies"]) > 1 else [],
        priced={plan["version"] for plan in sold["plans"] if has_prices(plan)},
        terms={plan["version"]: compute_terms(tiers[plan["tier"]]) for plan in sold["plans"] if plan["tier"] in tiers},
        charged=charged,
        held=held,
        own=own,
        price_change=price_change,
        changed_meters=list_changed_meters(price_change),
        counted=counted,
        costs=costs,
        intervals=INTERVALS,
        plan_label=partial(find_plan_label, sold),
    )


def has_prices(plan: JsonDocument) -> bool:
    """Return True if a plan of the API can cost anything."""
    return bool(plan["fee"] or plan["minimum"]) or any(
        "price" in price or "tiers" in price for price in plan["meters"].values()
    )


def list_changed_meters(price_change: JsonDocument) -> dict[str, JsonDocument]:
    """Return the meters with changed terms in a price change, with their new terms."""
    if price_change is None:
        return {}
    terms = tuple(change["term"] for change in price_change["changes"])
    meters = price_change["plan"]["meters"].items()
    return {meter: price for meter, price in meters if any(term.startswith(f"meters.{meter}.") for term in terms)}


def find_held_label(plans: Mapping[str, Plan], version: str) -> str:
    """Return the name of the customer's plan version from the settings."""
    plan = plans.get(version)
    return (plan and plan.name) or format_label(get_plan_name(version))


def find_plan_label(sold: Mapping[str, Sequence[Mapping[str, str]]], version: str) -> str:
    """Return the name of a plan version, for example `standard@3`, from the plans on sale."""
    plan = get_plan_name(version)
    return next((offer["name"] for offer in sold["plans"] if offer["plan"] == plan), format_label(plan))


async def preview_change(visit: Visit) -> web.Response:
    """Show the cost of a change without making it."""
    held = await find_subscription(visit)
    body = parse_change(visit, held)
    response = await visit.fetch("POST", "/billing/subscription/preview", body=body)
    sold = await visit.fetch("GET", "/billing/plans")
    losses: list[Loss] = []
    if held is not None:
        own = (await visit.fetch("GET", "/billing/subscription/plan"))["plan"]
        used = await visit.call("GET", "/billing/usage")
        meters = used.body["meters"] if used.is_success else []
        after = next((plan for plan in sold["plans"] if plan["version"] == response["plan"]), own)
        losses = find_losses(own, after, visit.site.tiers, {meter["meter"]: meter["quantity"] for meter in meters})
    label = partial(find_plan_label, sold)
    return visit.render("preview.html", preview=response, body=body, held=held, plan_label=label, losses=losses)


async def change_plan(visit: Visit) -> web.Response:
    """Change the plan, or begin the first one."""
    held = await find_subscription(visit)
    body = parse_change(visit, held)
    if held is None:
        changed = await visit.fetch("POST", "/billing/subscription", body=body, once=keys.read_idempotency_key(visit))
    else:
        changed = await visit.fetch("PUT", "/billing/subscription", body=body)
    return visit.redirect(PLAN, done="plan-later" if changed["next_plan"] else "plan")


async def end_plan(visit: Visit) -> web.Response:
    """End the plan at the end of the paid period, with a reason if the customer gives one."""
    reason, comment = visit.form.get("reason"), visit.read_field("comment").strip()
    body: JsonObject = {"reason": reason or None, "comment": comment or None}
    await visit.fetch("POST", "/billing/subscription/cancel", body=body)
    return visit.redirect(PLAN, done="ending")


async def keep_plan(visit: Visit) -> web.Response:
    """Keep the plan despite a scheduled end or change."""
    held = await visit.fetch("GET", "/billing/subscription")
    await visit.fetch("PUT", "/billing/subscription", body={"plan": held["plan"]})
    return visit.redirect(PLAN, done="kept")


def parse_change(visit: Visit, held: SubscriptionView | None) -> JsonObject:
    """Return the API body for a form's change. Raises PageError."""
    body: JsonObject = {"plan": visit.read_field("plan")}
    if currency := visit.form.get("currency"):
        body["currency"] = currency
    if interval := visit.form.get("interval"):
        body["interval"] = interval
    if quantity := visit.read_field("quantity").strip():
        if not is_whole_number(quantity):
            raise PageError(page_codes.QUANTITY_INVALID, "the quantity is a whole number from 1")
        body["quantity"] = int(quantity)
    if held is None and (coupon := visit.read_field("coupon").strip()):
        body["coupon"] = coupon
    return body
