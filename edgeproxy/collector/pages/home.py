"""The first page of the portal: open invoices, the costs of this period, and used parts of included quantities."""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import web
from typing_extensions import TypedDict

from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.pages import keys, usage
from edgeproxy.collector.pages.alert_groups import group_alerts
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.invoice_status import find_owed, sum_receivables
from edgeproxy.collector.pages.invoices import fetch_open
from edgeproxy.collector.pages.month import find_month
from edgeproxy.collector.pages.plans import find_held_label, find_subscription
from edgeproxy.collector.pages.site import Visit
from edgeproxy.collector.pages.usage import MeterCost, MeterUsage
from edgeproxy.collector.pages.usage_explorer import list_meters, list_priced_meters
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.refusal_terms import QuotaKind

UTC = "UTC"
ALERTS_SHOWN = "5"
BARS_MAX = 6
"""Meters with a bar, the fullest ones first."""


class MeterView(TypedDict):
    """A meter's usage in a period. Only the fields of the API that this page reads."""

    meter: str
    quantity: int
    included: int | None
    overage: int
    cap: str | None


class ProjectionView(TypedDict):
    """The projection of a quota. Only the fields of the API that this page reads."""

    low: int | None
    high: int | None


class QuotaView(TypedDict):
    """A quota. Only the fields of the API that this page reads."""

    quota: str
    kind: QuotaKind
    meter: str
    per: str | None
    timezone: str
    limit: int
    used: int
    cap: str
    projected: ProjectionView | None
    resets: str | None


class IncludedBar(NamedTuple):
    """The used part of a meter's included quantity."""

    meter: str
    used: int
    included: int
    part: float
    """The used part, from 0 to 1. It is 1 if more is used."""
    state: str
    """The CSS class of its state: empty, `warn` or `bad`."""
    is_hard: bool
    """True if requests are refused once all is used."""
    per: str | None
    """`day` or `month` for a quota; None: the billing period, or a meter of existing items."""
    timezone: str = UTC
    """The time zone of the quota's day or month."""
    ahead: tuple[int, int] | None = None
    """The lowest and highest projected units at the end of the period; None: no projection."""
    resets: str | None = None
    """The end of the quota's period."""
    kind: QuotaKind = "plan"
    """`plan` for included units, `cap` for a spending cap, `quota` for a quota of the tier."""


class InvoiceParts(NamedTuple):
    """The parts of the next invoice in smallest units: usage of this period, fees of the next period, and the rest."""

    since: float
    """The Unix second when the usage began."""
    used: int
    ahead: int
    others: int
    start: float
    """The Unix second when the time of the next fees begins."""
    end: float


class CostCurve(NamedTuple):
    """The cost of the running period by day, for a chart. Amounts are in smallest units."""

    days: list[float]
    """A Unix second within each day so far."""
    amounts: list[int]
    places: int
    """The days of the whole period."""
    band: tuple[list[float], list[float]] | None
    """Lines from now to the lowest and the highest projected cost at the end, with a value for each day; or None."""


def build_curve(costs: JsonDocument) -> CostCurve:
    """Return the chart of a period's costs from the API's answer."""
    start, end = (parse_time(costs[name]).timestamp() for name in ("period_start", "period_end"))
    ends = [parse_time(day["until"]).timestamp() for day in costs["days"]]
    amounts = [day["amount"] for day in costs["days"]]
    places = int(-(-end // DAY) - start // DAY)
    left, band = places - len(ends), None
    if costs["low"] is not None and left > 0:
        low, high = (
            [amounts[-1] + (costs[name] - amounts[-1]) * day / left for day in range(left + 1)]
            for name in ("low", "high")
        )
        band = low, high
    return CostCurve([second - 1 for second in ends], amounts, places, band)


def split_invoice(upcoming: JsonDocument) -> InvoiceParts:
    """Split the upcoming invoice into usage so far and fees paid in advance."""
    period_end = parse_time(upcoming["period_end"]).timestamp()
    used = ahead = 0
    end = period_end
    for line in upcoming["lines"]:
        if line["kind"] == "usage":
            used += line["amount"]
        elif line["kind"] == "fee" and parse_time(line["start"]).timestamp() >= period_end:
            ahead += line["amount"]
            end = max(end, parse_time(line["end"]).timestamp())
    others = upcoming["total"] - used - ahead
    return InvoiceParts(parse_time(upcoming["usage_start"]).timestamp(), used, ahead, others, period_end, end)


def compute_bars(
    meters: Sequence[MeterView], quotas: Sequence[QuotaView], costs: Sequence[MeterCost] = ()
) -> list[IncludedBar]:
    """Return the bars of a plan's meters and of quotas, fullest first.

    Included units with a cap have one bar: that of the cap, and once they are used up, that of the grace.
    `costs` are the costs of the upcoming invoice. They have the projected usage of meters.
    """
    ahead = {cost.meter: (cost.low, cost.high) for cost in costs if cost.high}
    bars = [build_quota_bar(quota) for quota in choose_next_caps(quotas)]
    limited = {bar.meter for bar in bars if bar.kind == "plan"}
    bars += [
        _build_bar(meter["meter"], meter["quantity"], meter["included"], meter["cap"] == "hard", None)._replace(
            ahead=ahead.get(meter["meter"])
        )
        for meter in meters
        if meter["included"] and meter["meter"] not in limited
    ]
    return sorted(bars, key=lambda bar: (-bar.part, -bar.used))[:BARS_MAX]


def choose_next_caps(quotas: Sequence[QuotaView]) -> list[QuotaView]:
    """Return quotas without those that are used up or not begun: of a soft cap and its grace, one applies at a time."""
    soft = {quota["quota"]: quota["used"] < quota["limit"] for quota in quotas if quota["cap"] == "soft"}
    hard = {quota["quota"] for quota in quotas if quota["cap"] == "hard"}
    return [
        quota
        for quota in quotas
        if quota["quota"] not in soft or quota["quota"] not in hard or (quota["cap"] == "soft") == soft[quota["quota"]]
    ]


def build_quota_bar(quota: QuotaView) -> IncludedBar:
    """Return the bar of a quota."""
    bar = _build_bar(quota["meter"], quota["used"], quota["limit"], quota["cap"] == "hard", quota["per"])
    bar = bar._replace(timezone=quota["timezone"], kind=quota["kind"])
    projected = quota["projected"]
    if projected is None or projected["low"] is None or projected["high"] is None:
        return bar._replace(resets=quota["resets"])
    return bar._replace(ahead=(projected["low"], projected["high"]), resets=quota["resets"])


def _build_bar(meter: str, used: int, included: int, is_hard: bool, per: str | None) -> IncludedBar:
    """Return a bar for used units of an included quantity."""
    part = used / included if included else 1.0
    state = "" if part < 0.8 else "bad" if part >= 1 and is_hard else "warn"
    return IncludedBar(meter, used, included, min(part, 1.0), state, is_hard, per)


async def show_home(visit: Visit) -> web.Response:
    """Show amounts due, current and projected costs of this period, and used parts of included quantities."""
    body = await visit.fetch("GET", "/v1/customers/{customer}")
    tier = visit.site.tiers.get(body["tier"])
    month, detail_seconds = find_month(time.time()), None if tier is None else tier.analytics
    quotas, access, alerts, meters, money, incidents, own_keys = await asyncio.gather(
        visit.fetch("GET", "/v1/customers/{customer}/quotas"),
        visit.call("GET", "/v1/customers/{customer}/access"),
        _fetch_alerts(visit),
        usage.fetch_meters(visit, visit.customer, month, detail_seconds),
        _fetch_money(visit),
        _fetch_ongoing(visit),
        _fetch_keys(visit),
    )
    bars = compute_bars((money["billed"] or {"meters": []})["meters"], quotas["quotas"], money["costs"])
    return visit.render(
        "home.html",
        result=body,
        access=access.body if access.is_success else None,
        alerts=alerts,
        incidents=incidents,
        busiest=find_busiest(meters, visit.site.settings_now()),
        bars=bars,
        **money,
        **own_keys,
    )


async def _fetch_alerts(visit: Visit) -> list[JsonDocument]:
    """Return the latest alerts. Unacknowledged alerts come first."""
    waiting, latest = await asyncio.gather(
        visit.fetch("GET", "/v1/alerts", query={"limit": ALERTS_SHOWN, "acknowledged": "false"}),
        visit.fetch("GET", "/v1/alerts", query={"limit": ALERTS_SHOWN}),
    )
    alerts = {alert["id"]: alert for alert in (*waiting["alerts"], *latest["alerts"])}
    return [group.alert for group in group_alerts(list(alerts.values()))][: int(ALERTS_SHOWN)]


async def _fetch_keys(visit: Visit) -> dict[str, object]:
    """Return whether the customer has a key, and the keys due for rotation.

    A contact without the right to see keys sees the page of a customer with a key and without due keys.
    """
    has_key = True
    if visit.signed_in.who.builds:
        listed = await visit.fetch("GET", "/v1/customers/{customer}/keys", query={"limit": "1"})
        has_key = bool(listed["keys"])
    return {"has_key": has_key, **await keys.fetch_due_keys(visit, visit.customer)}


async def _fetch_ongoing(visit: Visit) -> list[JsonDocument]:
    """Return ongoing incidents, latest first, or none if there is no status page with more about them."""
    if "status" not in visit.site.groups:
        return []
    response = await visit.call("GET", "/v1/incidents")
    return (
        [incident for incident in response.body["incidents"] if incident["ended_at"] is None]
        if response.is_success
        else []
    )


def find_busiest(meters: Sequence[MeterUsage], settings: CollectorSettings) -> MeterUsage | None:
    """Return the first meter of the usage explorer, or None without usage."""
    rows = [{"meter": meter.meter, "value": meter.total} for meter in meters]
    listed = list_meters(rows, settings.meters, list_priced_meters(settings.plans.values()))
    return next((meter for meter in meters if listed and meter.meter == listed[0].meter), None)


async def _fetch_money(visit: Visit) -> dict[str, JsonDocument]:
    """Return the page's values about the customer's money. A value is None if not sold here or unavailable now."""
    settings = visit.site.settings_now()
    names = ("held", "upcoming", "invoice_parts", "billed", "spend", "period_costs", "curve", "balance")
    nothing = dict.fromkeys((*names, "plan_label", "next_label"))
    money: dict[str, JsonDocument] = {
        **nothing,
        "costs": [],
        "owed": [],
        "sums": sum_receivables([], 0),
        "has_held": False,
        "sells": bool(settings.plans),
    }
    if settings.billing is None or not settings.plans:
        return money
    held = await find_subscription(visit)
    pays = visit.signed_in.who.pays
    if pays:
        money |= await _fetch_owed(visit, settings.billing.stripe.base)
    if pays and settings.billing.credits is not None:
        balance = await visit.call("GET", "/billing/balance")
        money["balance"] = balance.body if balance.is_success else None
    if held is None:
        return money
    money |= {"held": held, "plan_label": find_held_label(settings.plans, held["plan"])}
    if held["next_plan"]:
        money["next_label"] = find_held_label(settings.plans, held["next_plan"])
    parts: dict[str, tuple[str, dict[str, str]]] = {"billed": ("/billing/usage", {})}
    if pays:
        parts["upcoming"] = ("/billing/invoices/upcoming", {"projected": "true"})
        parts["spend"] = ("/billing/spend-alerts", {})
        parts["period_costs"] = ("/billing/costs", {})
    responses = await asyncio.gather(*(visit.call("GET", path, query=query) for path, query in parts.values()))
    money |= {
        name: response.body if response.is_success else None for name, response in zip(parts, responses, strict=True)
    }
    if money["upcoming"]:
        money["costs"] = usage.compute_costs(money["upcoming"])
        money["invoice_parts"] = split_invoice(money["upcoming"])
    if money["period_costs"]:
        money["curve"] = build_curve(money["period_costs"])
    return money


async def _fetch_owed(visit: Visit, stripe: str) -> dict[str, JsonDocument]:
    """Return the first open invoices, the sums of all, and whether one is held. Nothing if they are unavailable."""
    opened, held, summed = await asyncio.gather(
        fetch_open(visit),
        visit.call("GET", "/billing/invoices", query={"limit": "1", "state": "held"}),
        visit.call("GET", "/billing/receivables"),
    )
    if not (opened.is_success and held.is_success and summed.is_success):
        return {}
    return {
        "owed": find_owed(opened.body["invoices"], time.time(), stripe),
        "sums": sum_receivables(summed.body["receivables"], time.time()),
        "has_held": bool(held.body["invoices"]),
    }
