"""The portal's pages about the plan and invoices: plans on sale, a preview of changes, what was charged."""

from collections.abc import Mapping, Sequence
from functools import partial

from aiohttp import web
from typing_extensions import TypedDict

from edgeproxy.collector.pages import keys
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.rendering import format_label
from edgeproxy.collector.pages.site import Page, PageError, Visit
from edgeproxy.collector.pages.terms import compute_terms
from edgeproxy.config.collector.catalog import get_plan_name

PLAN, INVOICES = "/account/plan", "/account/invoices"
INVOICES_MAX = 24
INTERVALS = ("month", "year")


class SubscriptionView(TypedDict):
    """A subscription of the API, as far as it is read here; templates read more fields."""

    plan: str
    """The version of the plan, such as `standard@3`."""


def list_pages() -> list[Page]:
    """Return the pages and the forms."""
    own = (
        ("GET", PLAN, show_plans),
        ("POST", f"{PLAN}/preview", preview_change),
        ("POST", PLAN, change_plan),
        ("POST", f"{PLAN}/end", end_plan),
        ("POST", f"{PLAN}/keep", keep_plan),
        ("GET", INVOICES, show_invoices),
        ("GET", f"{INVOICES}/{{invoice}}", show_invoice),
        ("GET", f"{INVOICES}/{{invoice}}/pdf", open_pdf),
    )
    return [Page(method, path, "customer", handler) for method, path, handler in own]


async def find_subscription(visit: Visit) -> SubscriptionView | None:
    """Return the customer's subscription, or None; raises PageError."""
    response = await visit.call("GET", "/billing/subscription")
    if response.status == 404:
        return None
    if not response.is_success:
        raise PageError(response.status, str(response.body.get("detail", "")))
    body: SubscriptionView = response.body
    return body


async def show_plans(visit: Visit) -> web.Response:
    """Show the customer's plan beside those on sale."""
    sold = await visit.fetch("GET", "/billing/plans")
    charged = await visit.fetch("GET", "/billing/status")
    held = await find_subscription(visit)
    counted, price_change = None, None
    if held is not None:
        price_change = (await visit.fetch("GET", "/billing/subscription/plan"))["price_change"]
        response = await visit.call("GET", "/billing/usage")
        counted = response.body if response.is_success else None
    tiers = visit.site.tiers
    return visit.render(
        "plan.html",
        sold=sold,
        terms={plan["version"]: compute_terms(tiers[plan["tier"]]) for plan in sold["plans"] if plan["tier"] in tiers},
        charged=charged,
        held=held,
        price_change=price_change,
        changed_meters=list_changed_meters(price_change),
        counted=counted,
        intervals=INTERVALS,
        plan_label=partial(find_plan_label, sold),
    )


def list_changed_meters(price_change: JsonDocument) -> dict[str, JsonDocument]:
    """Return the meters of which a price change alters a term, with their new terms."""
    if price_change is None:
        return {}
    terms = tuple(one["term"] for one in price_change["changes"])
    meters = price_change["plan"]["meters"].items()
    return {meter: price for meter, price in meters if any(term.startswith(f"meters.{meter}.") for term in terms)}


def find_plan_label(sold: Mapping[str, Sequence[Mapping[str, str]]], version: str) -> str:
    """Return the name of the plan of a version such as `standard@3`, as plans on sale have it."""
    plan = get_plan_name(version)
    return next((offer["name"] for offer in sold["plans"] if offer["plan"] == plan), format_label(plan))


async def preview_change(visit: Visit) -> web.Response:
    """Show the cost of a change, without making it."""
    held = await find_subscription(visit)
    body = parse_change(visit, held)
    response = await visit.fetch("POST", "/billing/subscription/preview", body=body)
    label = partial(find_plan_label, await visit.fetch("GET", "/billing/plans"))
    return visit.render("preview.html", preview=response, body=body, held=held, plan_label=label)


async def change_plan(visit: Visit) -> web.Response:
    """Change the plan, or begin the first one."""
    held = await find_subscription(visit)
    body = parse_change(visit, held)
    if held is None:
        await visit.fetch("POST", "/billing/subscription", body=body, once=keys.read_idempotency_key(visit))
    else:
        await visit.fetch("PUT", "/billing/subscription", body=body)
    return visit.redirect(PLAN, done="plan")


async def end_plan(visit: Visit) -> web.Response:
    """End the plan at the end of the paid period."""
    await visit.fetch("DELETE", "/billing/subscription", query={"when": "period_end"})
    return visit.redirect(PLAN, done="ending")


async def keep_plan(visit: Visit) -> web.Response:
    """Keep the plan that was to end or to change."""
    held = await visit.fetch("GET", "/billing/subscription")
    await visit.fetch("PUT", "/billing/subscription", body={"plan": held["plan"]})
    return visit.redirect(PLAN, done="kept")


def parse_change(visit: Visit, held: SubscriptionView | None) -> dict[str, str]:
    """Return the body of the change that a form asks for."""
    body = {"plan": visit.form.get("plan", "")}
    if held is None and (interval := visit.form.get("interval")):
        body["interval"] = interval
    if held is None and (coupon := visit.form.get("coupon", "").strip()):
        body["coupon"] = coupon
    return body


async def show_invoices(visit: Visit) -> web.Response:
    """Show the customer's invoices, newest first, and the upcoming one."""
    query = {"limit": str(INVOICES_MAX)}
    if cursor := visit.request.query.get("cursor"):
        query["cursor"] = cursor
    body = await visit.fetch("GET", "/billing/invoices", query=query)
    upcoming = None
    if await find_subscription(visit) is not None:
        response = await visit.call("GET", "/billing/invoices/upcoming", query={"projected": "true"})
        upcoming = response.body if response.is_success else None
    return visit.render("invoices.html", invoices=body["invoices"], more=body.get("next"), upcoming=upcoming)


async def show_invoice(visit: Visit) -> web.Response:
    """Show an invoice with its lines."""
    names = {"invoice": visit.path_parameter("invoice")}
    return visit.render("invoice.html", result=await visit.fetch("GET", "/billing/invoices/{invoice}", names=names))


async def open_pdf(visit: Visit) -> web.Response:
    """Redirect to the PDF of an invoice."""
    response = await visit.require(
        "GET", "/billing/invoices/{invoice}/pdf", names={"invoice": visit.path_parameter("invoice")}
    )
    return visit.redirect(response.fields["Location"])
