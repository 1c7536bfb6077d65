"""The customers' portal: usage, limits, keys, alerts. The API shows each customer only its own data."""

import time
from functools import partial

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.accounts.preferred_region import list_choices
from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.pages import alert_handling, alerts, home, key_page, keys, plans, usage, webhooks
from edgeproxy.collector.pages.alert_groups import group_alerts
from edgeproxy.collector.pages.live_limits import compute_live_uses
from edgeproxy.collector.pages.money import read_amount
from edgeproxy.collector.pages.month import find_month, find_period
from edgeproxy.collector.pages.navigation import is_for
from edgeproxy.collector.pages.own_refusals import fetch_own_refusals
from edgeproxy.collector.pages.site import Page, PageError, Visit
from edgeproxy.collector.pages.terms import compute_terms
from edgeproxy.collector.problems import request_codes
from edgeproxy.config.collector.currency_units import USD, to_decimal
from edgeproxy.config.meters import KEY


def list_pages() -> list[Page]:
    """Return the pages and the forms of the portal."""
    own = (
        ("GET", "/account", home.show_home),
        ("GET", "/account/month", show_usage),
        ("GET", "/account/limits", show_limits),
        ("POST", "/account/limits/region", put_preferred_region),
        ("GET", "/account/keys", show_keys),
        ("POST", "/account/keys", create_key),
        ("POST", "/account/keys/public-key", keys.put_public_key),
        ("POST", "/account/keys/public-key/delete", keys.delete_public_key),
        ("GET", "/account/alerts", show_alerts),
        ("POST", "/account/alerts/address", put_alert_address),
        ("POST", "/account/alerts/spend", put_spend_alerts),
    )
    return [
        *(Page(method, path, "customer", handler) for method, path, handler in own),
        *keys.list_forms("/account", "customer"),
        *key_page.list_pages(),
        *webhooks.list_pages(),
        *alert_handling.list_forms("/account", "customer"),
    ]


async def show_usage(visit: Visit) -> web.Response:
    """Show usage and costs of the next invoice's period, so far and projected, or else of this month.

    All figures of the page belong to one time.
    """
    now = time.time()
    body = await visit.fetch("GET", "/v1/customers/{customer}")
    tier = visit.site.tiers.get(body["tier"])
    detail_seconds = None if tier is None else tier.analytics
    upcoming, span = None, find_month(now)
    if visit.site.settings_now().billing is not None and visit.signed_in.who.pays:
        response = await visit.call("GET", "/billing/invoices/upcoming", query={"projected": "true"})
        upcoming = response.body if response.is_success else None
    if upcoming is not None:
        start, end = (parse_time(upcoming[name]).timestamp() for name in ("usage_start", "period_end"))
        span = find_period(start, end, now)
    meters = await usage.fetch_meters(visit, visit.customer, span, detail_seconds)
    splits = await usage.fetch_splits(visit, visit.customer, span.since)
    if upcoming is not None:
        splits = [await usage.fetch_split_costs(visit, visit.customer, span.since, split) for split in splits]
    usage_keys = [value.value for split in splits if split.dimension == KEY for value in split.values]
    return visit.render(
        "usage.html",
        meters=meters,
        span=span,
        first_day=usage.find_first_day(span, now, detail_seconds),
        result=body,
        splits=splits,
        key_labels=await keys.fetch_labels(visit, visit.customer, usage_keys),
        upcoming=upcoming,
        costs=[] if upcoming is None else usage.compute_costs(upcoming),
        **await keys.fetch_due_keys(visit, visit.customer),
    )


async def show_limits(visit: Visit) -> web.Response:
    """Show the customer's terms: tier, support, limits, and quotas with their use."""
    body = await visit.fetch("GET", "/v1/customers/{customer}")
    tier = visit.site.tiers.get(body["tier"])
    quotas = await visit.fetch("GET", "/v1/customers/{customer}/quotas")
    limits = await visit.call("GET", "/v1/customers/{customer}/limits")
    access = await visit.call("GET", "/v1/customers/{customer}/access")
    is_limited = limits.is_success and (limits.body["limits"] or limits.body["concurrency"] is not None)
    raised = (await visit.fetch("GET", "/v1/customers/{customer}/limits/raise"))["raised"]
    refused = None
    if limits.is_success:
        refused = await fetch_own_refusals(visit, visit.customer, limits.body, quotas["quotas"])
    features = {}
    if visit.site.settings_now().plans and await plans.find_subscription(visit) is not None:
        features = (await visit.fetch("GET", "/billing/subscription/plan"))["plan"]["entitlements"]
    regions = body["regions"] or {}
    return visit.render(
        "limits.html",
        access=access.body if access.is_success else None,
        regions=list_choices(regions.get("allow"), visit.site.settings_now()),
        preferred_region=regions.get("prefer"),
        terms=None if tier is None else compute_terms(tier, body),
        rates=limits.body["limits"] if limits.is_success else [],
        concurrency=limits.body["concurrency"] if limits.is_success else None,
        concurrency_routes=limits.body["concurrency_routes"] if limits.is_success else [],
        concurrency_scopes=limits.body["concurrency_scopes"] if limits.is_success else [],
        live_uses=compute_live_uses(limits.body["live"]) if is_limited else None,
        features=features,
        quotas=[(quota, home.build_quota_bar(quota)) for quota in quotas["quotas"]],
        raised=raised,
        refused=refused,
        sells=bool(visit.site.settings_now().plans),
    )


async def put_preferred_region(visit: Visit) -> web.Response:
    """Set the preferred region for requests, or leave the choice to the network."""
    body = {"region": visit.form.get("region") or None}
    await visit.fetch("PUT", "/v1/customers/{customer}/preferred-region", body=body)
    return visit.redirect("/account/limits", done="changed")


async def show_keys(visit: Visit) -> web.Response:
    """Show the customer's keys."""
    due = await keys.fetch_due_keys(visit, visit.customer)
    return visit.render("keys.html", **due, **await keys.list_keys(visit, visit.customer))


async def create_key(visit: Visit) -> web.Response:
    """Create a key."""
    return await keys.create_key(visit, visit.customer, "/account/keys")


async def show_alerts(visit: Visit) -> web.Response:
    """Show the customer's alerts, and the address that gets them by mail."""
    address = await visit.fetch("GET", "/v1/customers/{customer}/alert-address")
    contacts = await visit.fetch("GET", "/v1/customers/{customer}/contacts")
    spend = None
    if visit.site.settings_now().billing is not None and visit.signed_in.who.pays:
        response = await visit.call("GET", "/billing/spend-alerts")
        spend = response.body if response.is_success else None
    view = await alerts.fetch_alerts(visit)
    return visit.render(
        "own_alerts.html",
        view=view,
        is_for=is_for,
        groups=group_alerts(view.rows),
        **alert_handling.find_choices(visit),
        address=address,
        contacts=contacts["emails"],
        spend=spend,
        to_decimal=partial(to_decimal, currency=USD if spend is None else spend["currency"]),
    )


async def put_alert_address(visit: Visit) -> web.Response:
    """Set the contact who gets alerts by mail, or none."""
    body = {"email": visit.form.get("email") or None}
    await visit.fetch("PUT", "/v1/customers/{customer}/alert-address", body=body)
    return visit.redirect("/account/alerts", done="changed")


async def put_spend_alerts(visit: Visit) -> web.Response:
    """Set the amounts that trigger an alert about the period's cost."""
    currency = visit.form.get("currency", USD)
    if currency != (await visit.fetch("GET", "/billing/spend-alerts"))["currency"]:
        raise PageError(request_codes.CHANGED_MEANWHILE, "the currency has changed meanwhile")
    written = visit.read_field("amounts").split()
    body: JsonObject = {"amounts": [read_amount(amount, currency) for amount in written]}
    await visit.fetch("PUT", "/billing/spend-alerts", body=body)
    return visit.redirect("/account/alerts", done="changed")
