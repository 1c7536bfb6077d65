"""The console's first page: traffic, work that needs attention, and money at a glance."""

import asyncio
import time
from typing import NamedTuple

from aiohttp import web

from edgeproxy.collector.pages import alert_handling, traffic
from edgeproxy.collector.pages.alert_groups import group_alerts
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.customer_money import may_see_money
from edgeproxy.collector.pages.edges import LATE_SECONDS, EdgeView, is_late
from edgeproxy.collector.pages.incidents import Incident
from edgeproxy.collector.pages.invoice_status import sum_receivables
from edgeproxy.collector.pages.navigation import REVENUE_READERS
from edgeproxy.collector.pages.site import Page, Visit
from edgeproxy.config.collector.catalog import get_default_currency

COUNTED_MAX = 25
"""Held invoices and rejected events that are counted. If there are more, the page says so."""
ALERTS_MAX = 5
"""Unacknowledged alerts shown per severity."""
LATE_MAX = 50
"""Late edges that are named."""


class Revenue(NamedTuple):
    """Revenue of the month so far, of the last complete day and of the day before; in millicredits of a currency."""

    month: int
    day: int | None
    before: int | None
    currency: str


def list_pages() -> list[Page]:
    """Return the page."""
    return [Page("GET", "/console", "operator", show_overview)]


async def show_overview(visit: Visit) -> web.Response:
    """Show traffic, money, and the edges, incidents, alerts, rejected usage and invoices that need attention."""
    # Concurrently, because each call mostly waits for the database.
    edges_body, incidents_body, overview, alerts, money, letters = await asyncio.gather(
        visit.fetch("GET", "/v1/edges"),
        visit.fetch("GET", "/v1/incidents"),
        traffic.fetch_overview(visit),
        fetch_alerts(visit),
        fetch_money(visit),
        fetch_letters(visit),
    )
    all_edges: list[EdgeView] = edges_body["edges"]
    serving = [edge for edge in all_edges if not edge["retired"]]
    incidents: list[Incident] = incidents_body["incidents"]
    return visit.render(
        "overview.html",
        late_seconds=LATE_SECONDS,
        late_max=LATE_MAX,
        edges=serving,
        late=[edge for edge in serving if is_late(edge)],
        gaps=sum(len(edge["gaps"]) for edge in all_edges),
        quarantined=sum(len(edge["quarantined"]) for edge in all_edges),
        incidents=[incident for incident in incidents if incident["ended_at"] is None],
        traffic=overview,
        **alerts,
        **money,
        **letters,
    )


async def fetch_letters(visit: Visit) -> dict[str, object]:
    """Return the number of rejected events for admins, or None for others."""
    if "admin" not in visit.signed_in.who.roles:
        return {"letters": None}
    listed = await visit.fetch("GET", "/v1/dead-letters", query={"limit": str(COUNTED_MAX)})
    return {"letters": len(listed["dead_letters"]), "more_letters": "next" in listed}


async def fetch_alerts(visit: Visit) -> dict[str, object]:
    """Return the latest unacknowledged alerts, most urgent severity first."""
    queries = [
        {"acknowledged": "false", "severity": severity, "limit": str(ALERTS_MAX)} for severity in ("page", "warn")
    ]
    pages = await asyncio.gather(*(visit.fetch("GET", "/v1/alerts", query=query) for query in queries))
    waiting: list[JsonDocument] = [alert for page in pages for alert in page["alerts"]]
    more = any("next" in page for page in pages)
    return {"waiting": group_alerts(waiting), "more_waiting": more, **alert_handling.find_choices(visit)}


async def fetch_money(visit: Visit) -> dict[str, object]:
    """Return the state of billing, overdue amounts and revenue. A value is None if this operator may not see it."""
    values: dict[str, object] = dict.fromkeys(("charging", "held", "unpaid", "revenue"))
    values["currency"] = get_default_currency(visit.site.settings_now().plans)
    if not may_see_money(visit):
        return values
    charged, held, owed, revenue = await asyncio.gather(
        visit.fetch("GET", "/billing/status"),
        visit.fetch("GET", "/billing/invoices", query={"state": "held", "limit": str(COUNTED_MAX)}),
        visit.fetch("GET", "/billing/receivables"),
        fetch_revenue(visit),
    )
    is_stopped = charged["message"] is not None
    values["charging"] = not is_stopped if is_stopped or charged["mode"] != "off" else None
    values |= {"held": len(held["invoices"]), "more_held": "next" in held}
    values["unpaid"] = sum_receivables(owed["receivables"], time.time())
    values["revenue"] = revenue
    return values


async def fetch_revenue(visit: Visit) -> Revenue | None:
    """Return the revenue, or None while it is computed and for operators who may not see it."""
    if not visit.signed_in.who.roles & REVENUE_READERS:
        return None
    report = await visit.call("GET", "/billing/executive")
    return compute_revenue(report.body) if report.is_success else None


def compute_revenue(report: JsonDocument) -> Revenue:
    """Compute the revenue from a report of this month. Only days that were complete at its time are compared."""
    today = report["as_of"][:10]
    whole = [day["revenue"] for day in report["days"] if day["day"] < today]
    return Revenue(
        sum(day["revenue"] for day in report["days"]),
        whole[-1] if whole else None,
        whole[-2] if len(whole) > 1 else None,
        report["currency"],
    )
