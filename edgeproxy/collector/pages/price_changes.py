"""The console's pages of prices: current prices, scheduled changes with their effects, and the forms for changes."""

from collections.abc import Mapping

from aiohttp import web

from edgeproxy.collector.pages import keys
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.price_form import list_rows, read_term, select_sold, write_plans
from edgeproxy.collector.pages.site import Page, Visit, format_path

PRICE_CHANGES = "/console/price-changes"
PRICE_CHANGE = f"{PRICE_CHANGES}/{{change}}"
API = "/billing/price-changes"
VERSIONS = "/billing/plan-versions"
FIELDS = ("plans", "at", "why")
CHANGES_MAX = 50
CUSTOMERS_MAX = 100
"""Subscribers listed with an effect: half have the largest increases, half the largest decreases."""


def list_pages() -> list[Page]:
    """Return the pages and the forms."""
    own = (
        ("GET", PRICE_CHANGES, show_changes),
        ("POST", PRICE_CHANGES, schedule_change),
        ("POST", f"{PRICE_CHANGES}/amounts", preview_amounts),
        ("POST", f"{PRICE_CHANGES}/preview", preview_change),
        ("GET", PRICE_CHANGE, show_change),
        ("POST", f"{PRICE_CHANGE}/withdraw", withdraw_change),
    )
    return [Page(method, path, "operator", handler) for method, path, handler in own]


async def show_changes(visit: Visit) -> web.Response:
    """Show the prices in force and price changes, newest first."""
    query = {"limit": str(CHANGES_MAX)}
    if cursor := visit.request.query.get("cursor"):
        query["cursor"] = cursor
    body = await visit.fetch("GET", API, query=query)
    sold = select_sold((await visit.fetch("GET", VERSIONS))["versions"])
    values = {"changes": body["price_changes"], "more": body.get("next"), "sold": sold, "rows": list_rows(sold)}
    return visit.render("price_changes.html", **values)


async def show_change(visit: Visit) -> web.Response:
    """Show a price change and, while it is scheduled, its effect."""
    result = await visit.fetch("GET", f"{API}/{{change}}")
    return await render_change(visit, result, {})


async def preview_amounts(visit: Visit) -> web.Response:
    """Show the effect of changed amounts. Each plan with a change gets a new version."""
    versions = (await visit.fetch("GET", VERSIONS))["versions"]
    return await preview(visit, {**read_fields(visit), "plans": write_plans(versions, visit.form)})


async def preview_change(visit: Visit) -> web.Response:
    """Show the effect of new versions from the form's text."""
    return await preview(visit, read_fields(visit))


def read_fields(visit: Visit) -> dict[str, str]:
    """Return the fields of a form that are sent to the API."""
    return {name: visit.form.get(name, "").strip() for name in FIELDS}


async def preview(visit: Visit, form: dict[str, str]) -> web.Response:
    """Show the effect of a price change, and a form that schedules exactly this change."""
    result = await visit.fetch("POST", API, query={"dry_run": "true"}, body=form)
    return await render_change(visit, result, {**form, "digest": result["digest"]})


async def render_change(visit: Visit, result: JsonDocument, form: Mapping[str, str]) -> web.Response:
    """Show a price change. `form` has the fields to schedule it, unless it is scheduled already."""
    versions = (await visit.fetch("GET", VERSIONS))["versions"]
    values = {
        "result": result,
        "form": form,
        "customers": select_customers(result),
        "currencies_of": {version["version"]: version["currency"] for version in versions},
        "packages_of": {version["version"]: list_packages(version) for version in versions},
    }
    return visit.render("price_change.html", read_term=read_term, **values)


def list_packages(version: JsonDocument) -> dict[str, int]:
    """Return the package size of each meter with a price per package. Prices per unit are left out."""
    meters = version["terms"].get("meters", {})
    return {meter: int(price["package"]) for meter, price in meters.items() if "package" in price}


async def schedule_change(visit: Visit) -> web.Response:
    """Schedule the price change that the page showed."""
    body = {name: visit.form.get(name, "").strip() for name in (*FIELDS, "digest")}
    await visit.fetch("POST", API, body=body, once=keys.read_idempotency_key(visit))
    return visit.redirect(PRICE_CHANGES, done="price-change")


async def withdraw_change(visit: Visit) -> web.Response:
    """Withdraw a price change."""
    names, body = {"change": visit.path_parameter("change")}, {"why": visit.read_field("why")}
    await visit.fetch("POST", f"{API}/{{change}}/withdraw", body=body, once=keys.read_idempotency_key(visit))
    return visit.redirect(format_path(PRICE_CHANGE, **names), done="price-change-withdrawn")


def select_customers(result: Mapping[str, Mapping[str, list[dict[str, object]]]]) -> list[dict[str, object]]:
    """Return the subscribers to list with the effect."""
    customers = result["effect"]["customers"] if "effect" in result else []
    half = CUSTOMERS_MAX // 2
    return customers if len(customers) <= CUSTOMERS_MAX else customers[:half] + customers[-half:]
