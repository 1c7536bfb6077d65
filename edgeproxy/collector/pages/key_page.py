"""The portal's page of a key: its creator, its rights, its usage, and the regions of its use."""

import time
from typing import NamedTuple

from aiohttp import web

from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.alerts.words import format_detail
from edgeproxy.collector.ledger.queries import format_time
from edgeproxy.collector.pages import usage_periods
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.keys import fetch_budgets
from edgeproxy.collector.pages.site import Page, Visit
from edgeproxy.collector.pages.usage_explorer import ROWS_MAX, UsageCounts, UsageSeries, compute_counts, compute_series
from edgeproxy.config.collector.currency_units import to_decimal
from edgeproxy.config.meters import KEY, MEASURES

REGION = "region"


class KeyUsage(NamedTuple):
    """The usage of a meter with a key in the last 30 days, by day and region."""

    meter: str
    starts: list[int]
    counts: UsageCounts
    series: list[UsageSeries]


def list_pages() -> list[Page]:
    """Return the page of a key."""
    return [Page("GET", "/account/keys/{key}", "customer", show_key)]


async def show_key(visit: Visit) -> web.Response:
    """Show a key of the customer."""
    key = await visit.fetch("GET", "/v1/keys/{key}")
    return visit.render(
        "key.html",
        key=key,
        creator=await find_creator(visit, key),
        budgets=await fetch_budgets(visit, visit.customer, [key["id"]]),
        usage=await fetch_usage(visit, key),
        to_decimal=to_decimal,
    )


async def find_creator(visit: Visit, key: JsonDocument) -> str:
    """Return the creator of a key from the alert to its owners; empty if the alert no longer exists."""
    alerts = await visit.fetch("GET", "/v1/alerts", query={"kind": AlertKind.KEY_CREATED})
    raised = f"{AlertKind.KEY_CREATED}:{key['id']}"
    alert = next((alert for alert in alerts["alerts"] if alert["key"] == raised and "by" in alert["details"]), None)
    return "" if alert is None else format_detail(visit.reader, "by", alert["details"])


async def fetch_usage(visit: Visit, key: JsonDocument) -> KeyUsage | None:
    """Return the usage with a key for the first meter that is split by key, or None if there is no such meter."""
    meters = visit.site.settings_now().meters.items()
    meter = next(
        (name for name, one in meters if KEY in one.dimensions and not MEASURES[one.count].is_of_refusals), None
    )
    if meter is None:
        return None
    period = usage_periods.choose_period({}, time.time())
    span = {"from": format_time(period.since), "to": format_time(period.until)}
    where = {"meter": meter, "where": f"{KEY}:{key['usage_key']}", "by": f"day,{REGION}", "limit": str(ROWS_MAX)}
    response = await visit.call("GET", "/v1/usage", query={"customer": visit.customer, **span, **where})
    if not response.is_success:  # The plan shows no usage that old.
        return None
    starts = period.list_starts()
    counts = compute_counts(response.body["rows"], REGION, starts)
    return KeyUsage(meter, starts, counts, compute_series(counts))
