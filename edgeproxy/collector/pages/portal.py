"""The customers' portal: usage, limits, keys. A customer sees what is its own, as the API keeps each to it."""

import time

from aiohttp import web

from edgeproxy.collector.pages import console, keys, usage
from edgeproxy.collector.pages.projection import month_of
from edgeproxy.collector.pages.site import Page, Visit
from edgeproxy.config import units

OVERRIDDEN = ("limits", "concurrency")
"""What of its tier a customer may have otherwise."""


def pages() -> list[Page]:
    """List the pages and the forms of the portal."""
    own = (
        ("GET", "/account", used),
        ("GET", "/account/limits", limits),
        ("GET", "/account/keys", shown_keys),
        ("POST", "/account/keys", create_key),
        ("GET", "/account/alerts", alerts),
        ("POST", "/account/alerts/address", put_alert_address),
    )
    return [
        *(Page(method, path, "customer", handler) for method, path, handler in own),
        *keys.forms_of("/account", "customer"),
    ]


async def used(visit: Visit) -> web.Response:
    """Show what was used in this month, and what it will come to."""
    month = month_of(time.time())
    found = await visit.ask("GET", "/v1/customers/{customer}", names={"customer": visit.customer})
    meters = await usage.this_month(visit, visit.customer)
    upcoming = None
    if visit.site.settings_now().billing is not None:
        told = await visit.tell("GET", "/billing/invoices/upcoming", query={"projected": "true"})
        upcoming = told.body if told.is_success else None
    return visit.page(
        "usage.html",
        meters=meters,
        month=month,
        found=found,
        splits=await usage.splits(visit, visit.customer),
        upcoming=upcoming,
        costs=[] if upcoming is None else usage.costs_of(upcoming),
    )


async def limits(visit: Visit) -> web.Response:
    """Show which limits hold."""
    names = {"customer": visit.customer}
    found = await visit.ask("GET", "/v1/customers/{customer}", names=names)
    tier = visit.site.tiers.get(found["tier"])
    held = {} if tier is None else tier.model_dump(mode="json", by_alias=True, include=set(OVERRIDDEN))
    held |= {name: found[name] for name in OVERRIDDEN if found.get(name) is not None}
    standing = await visit.ask("GET", "/v1/customers/{customer}/quotas", names=names)
    rates = [(limit["name"], units.read_rate(limit["rate"])) for limit in held.get("limits", ())]
    return visit.page(
        "limits.html",
        found=found,
        rates=rates,
        concurrency=held.get("concurrency"),
        quotas=standing["quotas"],
    )


async def shown_keys(visit: Visit) -> web.Response:
    """Show the customer's keys."""
    return visit.page("keys.html", **await keys.listed(visit, visit.customer))


async def create_key(visit: Visit) -> web.Response:
    """Make a key."""
    return await keys.create(visit, visit.customer, "/account/keys")


async def alerts(visit: Visit) -> web.Response:
    """Show alerts, and where they are mailed."""
    names = {"customer": visit.customer}
    address = await visit.ask("GET", "/v1/customers/{customer}/alert-address", names=names)
    contacts = await visit.ask("GET", "/v1/customers/{customer}/contacts", names=names)
    return visit.page("alerts.html", **await console.some_alerts(visit), address=address, contacts=contacts["emails"])


async def put_alert_address(visit: Visit) -> web.Response:
    """Have alerts mailed to a contact, or nowhere."""
    names, body = {"customer": visit.customer}, {"email": visit.form.get("email") or None}
    await visit.ask("PUT", "/v1/customers/{customer}/alert-address", names=names, body=body)
    return visit.go("/account/alerts", done="changed")
