"""The console's page of the audit log."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import orjson
from aiohttp import web

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.audit_entries import CHANGES_MAX, ID, describe_object, find_owners, is_time, list_changes
from edgeproxy.collector.pages.audit_words import AUDIT_ACTIONS
from edgeproxy.collector.pages.list_pages import fetch_from, respond_list
from edgeproxy.collector.pages.lists import Column, Filter, Listing, ListView, Query, order_by
from edgeproxy.collector.pages.site import Page, Visit, shown_name

HOURS = ("1", "24", "168", "720")
"""Selectable hours back. By default all entries are listed."""
CUSTOMER_ACTIONS = ("billing", "credits")
"""Groups of actions whose target is a customer id."""
NAMES_MAX = 10
"""Objects per kind whose names are fetched for a page. Others are shown by the beginning of their id."""
LISTING = Listing(
    "entries",
    (
        Column("at", N_("When")),
        Column("actor", N_("Who")),
        Column("action", N_("Action")),
        Column("target", N_("What")),
    ),
    order_by("at"),
    (
        Filter("actor", N_("Who")),
        Filter("action", N_("Action"), AUDIT_ACTIONS),
        Filter("target", N_("Whose, or what"), suggests=True),
        Filter("from", N_("From"), is_time=True),
        Filter("to", N_("To"), is_time=True),
    ),
    (
        Column("seq", ""),
        Column("origin", ""),
        Column("request_id", ""),
        Column("before", ""),
        Column("after", ""),
        Column("hash", ""),
    ),
    cursor="after",
    file="audit",
)


def list_pages() -> list[Page]:
    """Return the page."""
    return [Page("GET", "/console/audit", "operator", show_audit)]


async def show_audit(visit: Visit) -> web.Response:
    """Show the audit log, latest entry first by default."""
    query = visit.request.query
    actors = (await visit.fetch("GET", "/v1/audit/actors"))["actors"]
    choices = {actor: actor.partition(":")[2] or actor for actor in (*actors, query.get("actor", "")) if actor}
    action = query.get("action", "")
    actions = dict(AUDIT_ACTIONS) | ({action: action} if action and action not in AUDIT_ACTIONS else {})
    who, what, *others = LISTING.filters
    listing = LISTING._replace(filters=(who._replace(choices=choices), what._replace(choices=actions), *others))
    hours = query.get("hours", "")
    hours = hours if hours in HOURS and not query.get("from") and not query.get("to") else ""
    fetch = fetch_from(visit, listing, "/v1/audit")

    async def fetch_range(page: Query) -> JsonDocument:
        return await fetch(choose_times(page, hours, time.time()))

    async def show(view: ListView) -> web.Response:
        names = await fetch_names(visit, view.rows)
        await visit.learn_names(find_owners(view.rows))
        objects = [describe_object(row, names, visit.customer_names) for row in view.rows]
        changes = [list_changes(row, about) for row, about in zip(view.rows, objects, strict=True)]
        whole = [format_json({"before": row["before"], "after": row["after"]}) for row in view.rows]
        values = {
            "view": view,
            "objects": objects,
            "changes": changes,
            "whole": whole,
            "hours": hours,
            "own_times": choose_times(query, "", time.time()),
            "changes_max": CHANGES_MAX,
        }
        return visit.render("audit.html", is_time=is_time, **values)

    return await respond_list(visit, listing, fetch_range, show)


def choose_times(query: Query, hours: str, now: float) -> dict[str, str]:
    """Return an API query for the `hours` before `now`, or for the form's times in UTC.

    Invalid times are left out.
    """
    chosen = {name: value for name, value in query.items() if name not in ("from", "to")}
    if hours:
        return chosen | {"from": format_timestamp(int(now - int(hours) * 3600) * 1000)}
    for end in ("from", "to"):
        try:
            chosen[end] = format_timestamp(int(parse_time(query[end]).timestamp()) * 1000)
        except (KeyError, ValueError, OverflowError):
            continue
    return chosen


async def fetch_names(visit: Visit, rows: Sequence[JsonDocument]) -> dict[str, str]:
    """Return the names of customers, keys, invoices and incidents that entries refer to by id."""
    customers = {row["target"] for row in rows if ID.fullmatch(row["target"]) and is_about(row, CUSTOMER_ACTIONS)}
    owners = {row["target"].partition("/")[0] for row in rows if is_about(row, ("key",))}
    invoices = {row["target"] for row in rows if is_about(row, ("invoice",))}
    answers = await asyncio.gather(
        *(_fetch_customer_name(visit, customer) for customer in sorted(customers)[:NAMES_MAX]),
        *(_fetch_key_names(visit, owner) for owner in sorted(owners)[:NAMES_MAX]),
        *(_fetch_invoice_name(visit, invoice) for invoice in sorted(invoices)[:NAMES_MAX]),
        *([_fetch_incident_names(visit)] if any(is_about(row, ("incident",)) for row in rows) else []),
    )
    return {one: name for names in answers for one, name in names.items()}


async def _fetch_customer_name(visit: Visit, customer: str) -> dict[str, str]:
    answer = await visit.call("GET", "/v1/customers/{customer}", names={"customer": customer})
    return {customer: shown_name(answer.body)} if answer.is_success else {}


async def _fetch_key_names(visit: Visit, customer: str) -> dict[str, str]:
    path = "/v1/customers/{customer}/keys"
    answer = await visit.call("GET", path, names={"customer": customer}, query={"limit": "100"})
    return {key["id"]: key["name"] or key["start"] for key in answer.body["keys"]} if answer.is_success else {}


async def _fetch_invoice_name(visit: Visit, invoice: str) -> dict[str, str]:
    answer = await visit.call("GET", "/billing/invoices/{invoice}", names={"invoice": invoice})
    return {invoice: answer.body["number"]} if answer.is_success and answer.body["number"] else {}


async def _fetch_incident_names(visit: Visit) -> dict[str, str]:
    incidents = (await visit.fetch("GET", "/v1/incidents"))["incidents"]
    return {incident["id"]: incident["title"] for incident in incidents}


def is_about(row: Mapping[str, object], groups: Sequence[str]) -> bool:
    """Return True if the action of an entry belongs to one of these groups."""
    return str(row["action"]).partition(".")[0] in groups


def format_json(value: object) -> str:
    """Return indented JSON."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
