"""The lists of alerts for operators and customers, and the form that sends an alert again."""

from collections.abc import Mapping

from aiohttp import web

from edgeproxy.collector.alerts.kinds import ALERT_POLICIES, AlertKind, find_policy
from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.pages import alert_handling
from edgeproxy.collector.pages.alert_groups import group_alerts
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.list_pages import fetch_from, fetch_list, send_list
from edgeproxy.collector.pages.lists import Column, Filter, Listing, ListView, build_query, order_by
from edgeproxy.collector.pages.navigation import LABELS
from edgeproxy.collector.pages.site import Page, Visit
from edgeproxy.collector.pages.words import ACKNOWLEDGED, DELIVERY_STATES, SEVERITIES

PATH = "/v1/alerts"
NUMBER_DIGITS_MAX = 15
URGENT = "urgent"
"""The default order: unacknowledged critical alerts, then unacknowledged warnings, then others, latest first."""
URGENT_MAX = 10
"""Critical alerts listed before the others."""
ABOUT: Mapping[str, str] = {
    AlertKind.BATCHES_LOST: "/console/edges",
    AlertKind.BATCHES_QUARANTINED: "/console/quarantine",
    AlertKind.EVENTS_REJECTED: "/console/quarantine",
    AlertKind.REQUESTS_DENIED: "/console/audit",
    AlertKind.TOKEN_EDGE_LIMIT_REACHED: "/console/tokens",
    AlertKind.PRICE_CHANGE_DECIDED: "/console/price-changes",
    AlertKind.CHARGING_STOPPED: "/console/rollout",
    AlertKind.RECONCILIATION_MISMATCH: "/console/reconciliation",
    **dict.fromkeys((kind for kind in AlertKind if kind.startswith("invoice_")), "/console/invoices"),
}
"""The console page for alerts that concern no customer."""
OWN_KINDS = {kind.value: policy.summary for kind, policy in ALERT_POLICIES.items() if policy.to_customer}
KIND = Filter("kind", N_("Kind"), {kind.value: policy.summary for kind, policy in ALERT_POLICIES.items()})
HANDLING = ("acknowledged_at", "acknowledged_by", "assigned_to", "muted_until")
OWN = Listing(
    "alerts",
    (
        Column("at", N_("When")),
        Column("severity", N_("Severity")),
        Column("title", N_("What")),
    ),
    {URGENT: {"order": "newest"}, **order_by("at")},
    (
        Filter("acknowledged", N_("Handled"), ACKNOWLEDGED),
        Filter("severity", N_("Severity"), SEVERITIES),
        KIND._replace(choices=OWN_KINDS),
    ),
    (Column("id", ""), Column("kind", ""), *(Column(f"handling.{name}", "") for name in HANDLING)),
    rows_max=10,  # A page is a few screens of a telephone. A form has at most 50 fields, and each alert a checkbox.
)
"""The alerts of a customer."""
ALL = OWN._replace(
    columns=(*OWN.columns, Column("customer", N_("About"))),
    filters=(*OWN.filters[:-1], KIND, Filter("customer", N_("Customer")), Filter("state", N_("Sent"), DELIVERY_STATES)),
)
"""The alerts for operators."""


def list_pages() -> list[Page]:
    """Return the operators' page and the form."""
    return [
        Page("GET", "/console/alerts", "operator", show_alerts),
        Page("POST", "/console/alerts/{alert}/replay", "operator", replay_alert),
    ]


async def show_alerts(visit: Visit) -> web.Response:
    """Show alerts, the action for each, and the state of its deliveries."""
    if visit.request.query.get("format") == "csv":
        return await send_list(visit, ALL, fetch_from(visit, ALL, PATH))
    view = await fetch_alerts(visit)
    say = load_catalog(visit.reader.language).gettext
    for alert in view.rows:
        policy = find_policy(alert["kind"])
        alert["action"] = None if policy is None else say(policy.action)
        page = ABOUT.get(alert["kind"])
        alert["about"] = None if page is None else (page, say(LABELS[page]))
    return visit.render("alerts.html", view=view, groups=group_alerts(view.rows), **alert_handling.find_choices(visit))


async def fetch_alerts(visit: Visit) -> ListView:
    """Return a page of the alerts that the visitor may see, in the requested order."""
    listing = ALL if visit.signed_in.who.customer is None else OWN
    fetch = fetch_from(visit, listing, PATH)
    view = await fetch_list(visit, listing, fetch)
    is_part = view.values["severity"] or view.values["acknowledged"] == "true" or visit.request.query.get("cursor")
    if is_part or view.sort != URGENT:
        return view
    chosen = {**view.values, "acknowledged": "false", "severity": "page"}
    urgent = (await fetch(build_query(listing, view.sort, chosen, URGENT_MAX, "")))[listing.name]
    there = {alert["id"] for alert in urgent}
    rows = [*urgent, *(alert for alert in view.rows if alert["id"] not in there)]
    return view._replace(rows=sorted(rows, key=rank_urgency))


def rank_urgency(alert: JsonDocument) -> int:
    """Return the rank of an alert in the default order: unacknowledged critical ones, then warnings, then others."""
    if alert["handling"]["acknowledged_at"] is not None:
        return 2
    return {"page": 0, "warn": 1}.get(str(alert["severity"]), 2)


async def find_alert(visit: Visit, number: str) -> JsonDocument | None:
    """Return the alert with this number, or None."""
    if not (number.isascii() and number.isdecimal() and 0 < len(number) <= NUMBER_DIGITS_MAX):
        return None
    body = await visit.fetch("GET", PATH, query={"cursor": str(int(number) + 1), "limit": "1"})
    return next((alert for alert in body["alerts"] if alert["id"] == int(number)), None)


async def replay_alert(visit: Visit) -> web.Response:
    """Send an alert again through a channel that gave it up."""
    query = {"channel": visit.read_field("channel")}
    await visit.fetch("POST", "/v1/alerts/{alert}/replay", query=query)
    return visit.redirect("/console/alerts", done="sent")
