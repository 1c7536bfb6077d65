"""The operators' console: customers, edges, rejected usage, incidents, alerts, jobs, the audit log."""

import asyncio
import time
from collections.abc import Mapping

import orjson
from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.accounts.pseudonyms import find_display_name
from edgeproxy.collector.pages import (
    alert_handling,
    alerts,
    audit_log,
    customer_money,
    customer_search,
    edge,
    edges,
    home,
    invitations,
    keys,
    limit_raises,
    maintenance_forms,
    new_customer,
    overview,
    residencies,
    usage,
    usage_periods,
)
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.incidents import Incident
from edgeproxy.collector.pages.job_groups import group_jobs
from edgeproxy.collector.pages.live_limits import compute_live_uses
from edgeproxy.collector.pages.month import find_month
from edgeproxy.collector.pages.site import Page, PageError, Visit, format_path
from edgeproxy.collector.problems import page_codes
from edgeproxy.config.meters import MEASURES

LETTERS_MAX = 25
CHANGES_MAX = 5
"""Latest changes of a customer, shown on its page."""
BATCHES_MAX = 50
HOURS = ("1", "24", "168")
"""Selectable hours for the sums of refusals."""
CUSTOMER = "/console/customers/{customer}"
QUARANTINE = "/console/quarantine"


def list_pages() -> list[Page]:
    """Return the pages and the forms of the console."""
    own = (
        ("GET", CUSTOMER, show_customer),
        ("POST", f"{CUSTOMER}/pause", pause_customer),
        ("POST", f"{CUSTOMER}/resume", resume_customer),
        ("POST", f"{CUSTOMER}/tier", change_tier),
        ("POST", f"{CUSTOMER}/contacts", put_contact),
        ("POST", f"{CUSTOMER}/contacts/remove", remove_contact),
        ("POST", f"{CUSTOMER}/delete", delete_customer),
        ("POST", f"{CUSTOMER}/restore", restore_customer),
        ("POST", f"{CUSTOMER}/keys", create_key),
        ("GET", "/console/refusals", show_refusals),
        ("GET", QUARANTINE, show_rejected_data),
        ("POST", "/console/quarantine/{edge}/{seq}/replay", replay_batch),
        ("POST", "/console/dead-letters/{letter}/replay", replay_letter),
        ("POST", "/console/dead-letters/{letter}/discard", discard_letter),
        ("GET", "/console/incidents", show_incidents),
        ("POST", "/console/incidents", begin_incident),
        ("POST", "/console/incidents/{incident}/updates", update_incident),
        ("GET", "/console/jobs", show_jobs),
    )
    return [
        *(Page(method, path, "operator", handler) for method, path, handler in own),
        *new_customer.list_pages(),
        *overview.list_pages(),
        *residencies.list_pages(),
        *keys.list_forms("/console", "operator"),
        *limit_raises.list_forms(),
        *maintenance_forms.list_forms(),
        *alerts.list_pages(),
        *alert_handling.list_forms("/console", "operator"),
        *edges.list_pages(),
        *edge.list_pages(),
        *audit_log.list_pages(),
        *customer_search.list_pages(),
    ]


def is_admin(visit: Visit) -> bool:
    """Return True if the operator is an admin."""
    return "admin" in visit.signed_in.who.roles


# ---- customers


async def show_customer(visit: Visit) -> web.Response:
    """Show a customer with its money, limits, keys, usage and contacts."""
    names = {"customer": visit.path_parameter("customer")}
    body = await visit.fetch("GET", "/v1/customers/{customer}")
    month = find_month(time.time())
    meters, splits, contacts, limits, money, raised, own_keys, listed = await asyncio.gather(
        usage.fetch_meters(visit, body["name"], month),
        customer_money.fetch_splits(visit, body["name"], month.since),
        visit.fetch("GET", "/v1/customers/{customer}/contacts"),
        fetch_limits(visit, {"customer": body["name"]}),
        customer_money.fetch_money(visit, body["name"]),
        limit_raises.fetch_raise(visit, names),
        keys.list_keys(visit, body["name"], keys.LISTING._replace(rows_max=keys.BESIDE_MAX)),
        visit.fetch("GET", "/v1/customers", query={"name": body["name"]}),
    )
    return visit.render(
        "customer.html",
        result=body,
        people=contacts["contacts"],
        last_call_on=next((customer["last_call_on"] for customer in listed["customers"]), None),
        meters=meters,
        month_days=month.days,
        usage_days=(usage_periods.format_day(month.since), usage_periods.format_day(int(time.time()))),
        tiers=sorted(visit.site.tiers),
        admin=is_admin(visit),
        may_support=is_admin(visit) or "support" in visit.signed_in.who.roles,
        **limits,
        **money,
        **splits,
        **raised,
        **own_keys,
    )


async def fetch_limits(visit: Visit, names: Mapping[str, str]) -> dict[str, object]:
    """Return a customer's limits and quotas with their use, its recent errors, and for admins its latest changes.

    The limits are None if the collector does not know the customer's tier.
    """
    access, limits, quotas, errors, changes = await asyncio.gather(
        visit.call("GET", "/v1/customers/{customer}/access", names=names),
        visit.call("GET", "/v1/customers/{customer}/limits", names=names),
        visit.call("GET", "/v1/customers/{customer}/quotas", names=names),
        visit.fetch("GET", "/v1/customers/{customer}/errors", names=names),
        fetch_changes(visit, names["customer"]),
    )
    meters = visit.site.settings_now().meters.items()
    return {
        "access": access.body if access.is_success else None,
        "limits": limits.body if limits.is_success else None,
        "live_uses": compute_live_uses(limits.body["live"]) if limits.is_success else [],
        "quotas": [
            (quota, home.build_quota_bar(quota)) for quota in (quotas.body["quotas"] if quotas.is_success else [])
        ],
        "changes": changes,
        "errors": errors,
        "refusal_meter": next((name for name, meter in meters if MEASURES[meter.count].is_of_refusals), ""),
    }


async def fetch_changes(visit: Visit, customer: str) -> list[JsonDocument]:
    """Return the latest changes of a customer, or none if the operator may not see the audit log."""
    if not is_admin(visit):
        return []
    query = {"target": customer, "order": "newest", "limit": str(CHANGES_MAX)}
    entries: list[JsonDocument] = (await visit.fetch("GET", "/v1/audit", query=query))["entries"]
    return entries


async def pause_customer(visit: Visit) -> web.Response:
    """Pause a customer: edges refuse it for now."""
    paused = {"why": visit.read_field("why"), "status": visit.form.get("status", "403")}
    return await _update_customer(visit, {"paused": paused}, "paused")


async def resume_customer(visit: Visit) -> web.Response:
    """Resume a paused customer."""
    return await _update_customer(visit, {"paused": None}, "resumed")


async def change_tier(visit: Visit) -> web.Response:
    """Change the tier of a customer."""
    return await _update_customer(visit, {"tier": visit.read_field("tier").strip()}, "tier")


async def _update_customer(visit: Visit, body: JsonObject, done: str) -> web.Response:
    names = {"customer": visit.path_parameter("customer")}
    await visit.fetch("PATCH", "/v1/customers/{customer}", body=body)
    return visit.redirect(format_path(CUSTOMER, **names), done=done)


async def put_contact(visit: Visit) -> web.Response:
    """Add a contact of a customer, or change its role."""
    names = {"customer": visit.path_parameter("customer")}
    body = {"email": visit.read_field("email").strip(), "role": visit.read_field("role")}
    people = await visit.fetch("GET", "/v1/customers/{customer}/contacts")
    await visit.fetch("POST", "/v1/customers/{customer}/contacts", body=body)
    done, email = "changed", body["email"].lower()
    if visit.site.settings.mail is not None and email not in people["emails"]:
        done = await invitations.send_invitation(visit, names["customer"], email)
    return visit.redirect(format_path(CUSTOMER, **names), done=done)


async def remove_contact(visit: Visit) -> web.Response:
    """Remove a contact of a customer."""
    names, body = {"customer": visit.path_parameter("customer")}, {"email": visit.read_field("email")}
    await visit.fetch("POST", "/v1/customers/{customer}/contacts/remove", body=body)
    return visit.redirect(format_path(CUSTOMER, **names), done="changed")


async def delete_customer(visit: Visit) -> web.Response:
    """Begin to delete a customer. The form must repeat its name."""
    customer = visit.path_parameter("customer")
    name = await find_display_name(visit.site.database, customer)
    if visit.read_field("name").strip() != name:
        raise PageError(page_codes.NAME_NOT_CONFIRMED, f"write {name} to have it deleted", params={"name": name})
    await visit.fetch("DELETE", "/v1/customers/{customer}", names={"customer": customer})
    return visit.redirect(format_path(CUSTOMER, customer=customer), done="deleting")


async def restore_customer(visit: Visit) -> web.Response:
    """Cancel the deletion of a customer."""
    names = {"customer": visit.path_parameter("customer")}
    await visit.fetch("POST", "/v1/customers/{customer}/restore")
    return visit.redirect(format_path(CUSTOMER, **names), done="restored")


async def create_key(visit: Visit) -> web.Response:
    """Create a key for a customer."""
    name = visit.path_parameter("customer")
    return await keys.create_key(visit, name, format_path(CUSTOMER, customer=name))


# ---- refusals


async def show_refusals(visit: Visit) -> web.Response:
    """Show the customers with most refusals, by limit, and the number of refusals that edges were uncertain of."""
    hours = visit.request.query.get("hours", "24")
    response = await visit.call("GET", "/v1/refusals", query={"hours": hours if hours in HOURS else "24"})
    return visit.render_report("refusals.html", response, hours=hours, choices=HOURS)


# ---- rejected usage


async def show_rejected_data(visit: Visit) -> web.Response:
    """Show batches in quarantine and rejected events."""
    query = {"limit": str(LETTERS_MAX)}
    if cursor := visit.request.query.get("cursor"):
        query["cursor"] = cursor
    letters = await visit.fetch("GET", "/v1/dead-letters", query=query)
    batches = await visit.fetch("GET", "/v1/quarantine")
    return visit.render(
        "rejected_data.html",
        letters=[{**dead_letter, "json": format_json(dead_letter["event"])} for dead_letter in letters["dead_letters"]],
        more=letters.get("next"),
        batches=batches["batches"][:BATCHES_MAX],
        count=batches["count"],
    )


async def replay_batch(visit: Visit) -> web.Response:
    """Replay a batch from quarantine."""
    await visit.fetch("POST", "/v1/quarantine/{edge}/{seq}/replay")
    return visit.redirect(QUARANTINE, done="replayed")


async def replay_letter(visit: Visit) -> web.Response:
    """Replay a rejected event with the form's text."""
    event = visit.read_field("event").strip().encode()
    await visit.fetch("POST", "/v1/dead-letters/{letter}/replay", given=event)
    return visit.redirect(QUARANTINE, done="replayed")


async def discard_letter(visit: Visit) -> web.Response:
    """Discard a rejected event."""
    query = {"why": visit.read_field("why")}
    await visit.fetch("DELETE", "/v1/dead-letters/{letter}", query=query)
    return visit.redirect(QUARANTINE, done="discarded")


# ---- incidents


async def fetch_incidents(visit: Visit) -> list[Incident]:
    """Return the incidents, the latest first."""
    incidents: list[Incident] = (await visit.fetch("GET", "/v1/incidents"))["incidents"]
    return incidents


async def show_incidents(visit: Visit) -> web.Response:
    """Show the incidents, ongoing ones first, with forms to begin and update them. An `alert` may be the cause."""
    parts = list(visit.site.settings.status.watched)
    may = is_admin(visit) or "support" in visit.signed_in.who.roles
    alert = await alerts.find_alert(visit, visit.request.query.get("alert", ""))
    return visit.render(
        "incidents.html",
        incidents=sorted(await fetch_incidents(visit), key=lambda incident: incident["state"] == "resolved"),
        maintenance=(await visit.fetch("GET", "/v1/maintenance"))["maintenance"],
        parts=parts,
        may=may,
        alert=alert,
    )


async def begin_incident(visit: Visit) -> web.Response:
    """Begin an incident, and acknowledge the alert that caused it."""
    form = visit.form
    chosen = [name for name in visit.site.settings.status.watched if form.get(f"region-{name}") == "on"]
    body = {name: form.get(name, "") for name in ("severity", "title", "message")} | {"regions": chosen}
    incident = await visit.fetch("POST", "/v1/incidents", body=body, once=keys.read_idempotency_key(visit))
    if alert := form.get("alert"):  # An earlier acknowledgement stays.
        why = {"why": f"incident {incident['id']}"}
        await visit.call("POST", "/v1/alerts/{alert}/acknowledge", names={"alert": alert}, body=why)
    return visit.redirect("/console/incidents", done="told")


async def update_incident(visit: Visit) -> web.Response:
    """Add an update to an incident."""
    body = {name: visit.form.get(name, "") for name in ("state", "message")}
    await visit.fetch("POST", "/v1/incidents/{incident}/updates", body=body, once=keys.read_idempotency_key(visit))
    return visit.redirect("/console/incidents", done="told")


# ---- jobs


async def show_jobs(visit: Visit) -> web.Response:
    """Show the jobs of this collector, with the last run of each."""
    jobs = (await visit.fetch("GET", "/v1/jobs"))["jobs"]
    return visit.render("jobs.html", jobs=jobs, groups=group_jobs(jobs, time.time()))


def format_json(value: object) -> str:
    """Return indented JSON."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
