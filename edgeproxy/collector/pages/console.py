"""The operators' console: customers, edges, what nobody could read, incidents, who did what."""

import time
from typing import Any

import orjson
from aiohttp import web

from edgeproxy.collector.pages import keys, usage
from edgeproxy.collector.pages.site import Fault, Page, Visit, to

CUSTOMERS_MAX = 50
"""Customers of a page."""
ENTRIES_MAX = 50
LETTERS_MAX = 25
BATCHES_MAX = 50
EDGES_MAX = 100
"""Edges of a page."""
GAPS_MAX = 5
"""Gaps of an edge that are shown."""
LATE_MAX = 50
"""Late edges that are named."""
LATE_SECONDS = 120
"""An edge that is further behind is shown as late: it ships every few seconds."""
HOURS = ("1", "24", "168")
"""The hours over which refusals are looked at."""
CUSTOMER = "/console/customers/{customer}"
INVOICE_READERS = frozenset({"support", "billing", "admin"})
"""Roles that see invoices."""


def pages() -> list[Page]:
    """List the pages and the forms of the console."""
    own = (
        ("GET", "/console", overview),
        ("GET", "/console/customers", customers),
        ("POST", "/console/customers", create_customer),
        ("GET", CUSTOMER, customer),
        ("POST", f"{CUSTOMER}/pause", pause),
        ("POST", f"{CUSTOMER}/resume", resume),
        ("POST", f"{CUSTOMER}/contacts", put_contacts),
        ("POST", f"{CUSTOMER}/delete", delete_customer),
        ("POST", f"{CUSTOMER}/restore", restore_customer),
        ("POST", f"{CUSTOMER}/keys", create_key),
        ("GET", "/console/edges", edges),
        ("GET", "/console/refusals", refusals),
        ("GET", "/console/stuck", stuck),
        ("POST", "/console/quarantine/{edge}/{seq}/replay", replay_batch),
        ("POST", "/console/dead-letters/{letter}/replay", replay_letter),
        ("POST", "/console/dead-letters/{letter}/discard", discard_letter),
        ("GET", "/console/incidents", incidents),
        ("POST", "/console/incidents", begin_incident),
        ("POST", "/console/incidents/{incident}/updates", update_incident),
        ("GET", "/console/audit", audit),
        ("GET", "/console/alerts", alerts),
        ("POST", "/console/alerts/{alert}/replay", replay_alert),
    )
    return [
        *(Page(method, path, "operator", handler) for method, path, handler in own),
        *keys.forms_of("/console", "operator"),
    ]


def is_admin(visit: Visit) -> bool:
    """Whether an operator may see what admins may."""
    return "admin" in visit.known.who.roles


# ---- overview and edges


async def overview(visit: Visit) -> web.Response:
    """Show what is wrong, if anything is."""
    found = (await visit.ask("GET", "/v1/edges"))["edges"]
    serving = [edge for edge in found if not edge["retired"]]
    values: dict[str, Any] = {
        "edges": serving,
        "late": [edge for edge in serving if is_late(edge)],
        "gaps": sum(len(edge["gaps"]) for edge in found),
        "quarantined": sum(len(edge["quarantined"]) for edge in found),
        "incidents": [one for one in await open_incidents(visit) if one["ended_at"] is None],
        "letters": None,
        "charging": None,
        "held": None,
    }
    if visit.site.settings_now().billing is not None and visit.known.who.roles & INVOICE_READERS:
        charged = await visit.ask("GET", "/billing/status")
        is_stopped = charged["message"] is not None
        values["charging"] = not is_stopped if is_stopped or charged["mode"] != "off" else None
        held = await visit.ask("GET", "/billing/invoices", query={"state": "held", "limit": str(LETTERS_MAX)})
        values["held"] = len(held["invoices"])
        values["more_held"] = "next" in held
    if is_admin(visit):
        letters = await visit.ask("GET", "/v1/dead-letters", query={"limit": str(LETTERS_MAX)})
        values["letters"] = len(letters["dead_letters"])
        values["more_letters"] = "next" in letters
    return visit.page("overview.html", late_seconds=LATE_SECONDS, late_max=LATE_MAX, **values)


def is_late(edge: dict[str, Any]) -> bool:
    """Whether an edge is further behind than it should be."""
    return edge["lag_s"] is None or edge["lag_s"] > LATE_SECONDS


async def edges(visit: Visit) -> web.Response:
    """Show how each edge is, region by region, a page of them at a time: those behind the edge `cursor`."""
    found = (await visit.ask("GET", "/v1/edges"))["edges"]
    found.sort(key=lambda edge: (edge["region"] or "–", edge["edge"]))
    some, more = visit.part(found, "edge", EDGES_MAX)
    by_region: dict[str, list[dict[str, Any]]] = {}
    for edge in some:
        by_region.setdefault(edge["region"] or "–", []).append({**edge, "late": is_late(edge)})
    return visit.page("edges.html", regions=sorted(by_region.items()), gaps_max=GAPS_MAX, more=more)


# ---- customers


async def customers(visit: Visit) -> web.Response:
    """Show customers, all or those that are searched for."""
    said = visit.request.query.get("q", "").strip()
    query = {"limit": str(CUSTOMERS_MAX)}
    if said:
        query["search"] = said
    elif cursor := visit.request.query.get("cursor"):
        query["cursor"] = cursor
    told = await visit.tell("GET", "/v1/customers", query=query)
    if told.status == 400 and said:  # What cannot be there is not found.
        found: dict[str, Any] = {"customers": []}
    elif told.is_success:
        found = told.body
    else:
        raise Fault(told.status, str(told.body.get("detail", "")))
    tiers = sorted(visit.site.tiers)
    return visit.page(
        "customers.html",
        customers=found["customers"],
        more=found.get("next"),
        q=said,
        tiers=tiers,
        admin=is_admin(visit),
    )


async def create_customer(visit: Visit) -> web.Response:
    """Make a customer."""
    body = {
        name: visit.form[name].strip() for name in ("name", "tier", "external_id") if visit.form.get(name, "").strip()
    }
    made = await visit.ask("POST", "/v1/customers", body=body, once=keys.once_of(visit))
    return visit.go(to(CUSTOMER, customer=made["name"]), done="created")


async def customer(visit: Visit) -> web.Response:
    """Show all of one customer."""
    names = {"customer": visit.name("customer")}
    found = await visit.ask("GET", "/v1/customers/{customer}", names=names)
    contacts = await visit.ask("GET", "/v1/customers/{customer}/contacts", names=names)
    return visit.page(
        "customer.html",
        found=found,
        emails=contacts["emails"],
        meters=await usage.this_month(visit, found["name"]),
        admin=is_admin(visit),
        may_support=is_admin(visit) or "support" in visit.known.who.roles,
        **await bought(visit, found["name"]),
        **await keys.listed(visit, found["name"]),
    )


async def bought(visit: Visit, customer: str) -> dict[str, Any]:
    """Return the plan and the credits of a customer, None for what there is not, or not for this operator to see."""
    billing = visit.site.settings_now().billing
    values: dict[str, Any] = {"plan": None, "credits": None, "may_see_money": False}
    if billing is not None and visit.known.who.roles & INVOICE_READERS:
        query = {"customer": customer}
        plan = await visit.tell("GET", "/billing/subscription", query=query)
        values |= {"plan": plan.body if plan.is_success else None, "may_see_money": True}
        if billing.credits is not None:
            held = await visit.tell("GET", "/billing/balance", query=query)
            values["credits"] = held.body if held.is_success else None
    return values


async def pause(visit: Visit) -> web.Response:
    """Have edges serve a customer no longer, for now."""
    paused = {"why": visit.form.get("why", ""), "status": visit.form.get("status", "403")}
    return await _change(visit, {"paused": paused}, "paused")


async def resume(visit: Visit) -> web.Response:
    """Have edges serve a customer again."""
    return await _change(visit, {"paused": None}, "resumed")


async def _change(visit: Visit, body: dict[str, Any], done: str) -> web.Response:
    names = {"customer": visit.name("customer")}
    await visit.ask("PATCH", "/v1/customers/{customer}", names=names, body=body)
    return visit.go(to(CUSTOMER, **names), done=done)


async def put_contacts(visit: Visit) -> web.Response:
    """Say who may sign in for a customer."""
    names = {"customer": visit.name("customer")}
    body = {"emails": visit.form.get("emails", "").replace(",", " ").split()}
    await visit.ask("PUT", "/v1/customers/{customer}/contacts", names=names, body=body)
    return visit.go(to(CUSTOMER, **names), done="changed")


async def delete_customer(visit: Visit) -> web.Response:
    """Begin to delete a customer whose name somebody has written out."""
    name = visit.name("customer")
    if visit.form.get("name", "").strip() != name:
        raise Fault(422, f"write {name} to have it deleted")
    await visit.ask("DELETE", "/v1/customers/{customer}", names={"customer": name})
    return visit.go(to(CUSTOMER, customer=name), done="deleting")


async def restore_customer(visit: Visit) -> web.Response:
    """Take the deletion of a customer back."""
    names = {"customer": visit.name("customer")}
    await visit.ask("POST", "/v1/customers/{customer}/restore", names=names)
    return visit.go(to(CUSTOMER, **names), done="restored")


async def create_key(visit: Visit) -> web.Response:
    """Make a key for a customer."""
    name = visit.name("customer")
    return await keys.create(visit, name, to(CUSTOMER, customer=name))


# ---- who is refused


async def refusals(visit: Visit) -> web.Response:
    """Show who is refused most, by which limits, and how much of that the edges were not certain of."""
    hours = visit.request.query.get("hours", "24")
    told = await visit.tell("GET", "/v1/refusals", query={"hours": hours if hours in HOURS else "24"})
    return visit.figures("refusals.html", told, hours=hours, choices=HOURS)


# ---- what nobody could read


async def stuck(visit: Visit) -> web.Response:
    """Show batches in quarantine, and events that were rejected."""
    query = {"limit": str(LETTERS_MAX)}
    if cursor := visit.request.query.get("cursor"):
        query["cursor"] = cursor
    letters = await visit.ask("GET", "/v1/dead-letters", query=query)
    batches = await visit.ask("GET", "/v1/quarantine")
    return visit.page(
        "stuck.html",
        letters=[{**one, "json": written(one["event"])} for one in letters["dead_letters"]],
        more=letters.get("next"),
        batches=batches["batches"][:BATCHES_MAX],
        count=batches["count"],
    )


async def replay_batch(visit: Visit) -> web.Response:
    """Count a batch after all."""
    names = {"edge": visit.name("edge"), "seq": visit.name("seq")}
    await visit.ask("POST", "/v1/quarantine/{edge}/{seq}/replay", names=names)
    return visit.go("/console/stuck", done="replayed")


async def replay_letter(visit: Visit) -> web.Response:
    """Count an event after all, as it is written in the form."""
    names = {"letter": visit.name("letter")}
    given = visit.form.get("event", "").strip().encode()
    await visit.ask("POST", "/v1/dead-letters/{letter}/replay", names=names, given=given)
    return visit.go("/console/stuck", done="replayed")


async def discard_letter(visit: Visit) -> web.Response:
    """Take an event out for good."""
    names, query = {"letter": visit.name("letter")}, {"why": visit.form.get("why", "")}
    await visit.ask("DELETE", "/v1/dead-letters/{letter}", names=names, query=query)
    return visit.go("/console/stuck", done="discarded")


# ---- incidents


async def open_incidents(visit: Visit) -> list[dict[str, Any]]:
    """List incidents, the last one first."""
    found: list[dict[str, Any]] = (await visit.ask("GET", "/v1/incidents"))["incidents"]
    return found


async def incidents(visit: Visit) -> web.Response:
    """Show incidents, and the forms that begin and continue them."""
    regions = sorted(visit.site.settings.status.regions)
    may = is_admin(visit) or "support" in visit.known.who.roles
    return visit.page("incidents.html", incidents=await open_incidents(visit), regions=regions, may=may)


async def begin_incident(visit: Visit) -> web.Response:
    """Begin an incident."""
    form = visit.form
    chosen = [name for name in visit.site.settings.status.regions if form.get(f"region-{name}") == "on"]
    body = {name: form.get(name, "") for name in ("severity", "title", "message")} | {"regions": chosen}
    await visit.ask("POST", "/v1/incidents", body=body, once=keys.once_of(visit))
    return visit.go("/console/incidents", done="told")


async def update_incident(visit: Visit) -> web.Response:
    """Tell what is known of an incident by now."""
    body = {name: visit.form.get(name, "") for name in ("state", "message")}
    names = {"incident": visit.name("incident")}
    await visit.ask("POST", "/v1/incidents/{incident}/updates", names=names, body=body, once=keys.once_of(visit))
    return visit.go("/console/incidents", done="told")


# ---- alerts


async def alerts(visit: Visit) -> web.Response:
    """Show alerts, and what became of each on its way."""
    return visit.page("alerts.html", **await some_alerts(visit))


async def some_alerts(visit: Visit) -> dict[str, Any]:
    """Return what a page needs to show alerts, the latest first."""
    query = {"limit": str(ENTRIES_MAX)}
    if cursor := visit.request.query.get("cursor"):
        query["cursor"] = cursor
    found = await visit.ask("GET", "/v1/alerts", query=query)
    return {"alerts": found["alerts"], "more": str(found.get("next", ""))}


async def replay_alert(visit: Visit) -> web.Response:
    """Send an alert again by a channel that has given it up."""
    names, query = {"alert": visit.name("alert")}, {"channel": visit.form.get("channel", "")}
    await visit.ask("POST", "/v1/alerts/{alert}/replay", names=names, query=query)
    return visit.go("/console/alerts", done="sent")


# ---- who did what


async def audit(visit: Visit) -> web.Response:
    """Show the audit log, the last entry first."""
    query = {"limit": str(ENTRIES_MAX), "order": "newest"}
    for name in ("after", "actor", "action", "target"):
        if said := visit.request.query.get(name, "").strip():
            query[name] = said
    found = await visit.ask("GET", "/v1/audit", query=query)
    entries = [{**one, "change": written({"before": one["before"], "after": one["after"]})} for one in found["entries"]]
    only = {name: query.get(name, "") for name in ("actor", "action", "target")}
    return visit.page("audit.html", entries=entries, more=found.get("next"), only=only, now=time.time())


def written(value: Any) -> str:
    """Write JSON for people."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
