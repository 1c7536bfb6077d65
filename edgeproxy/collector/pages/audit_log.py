"""The console's page of the audit log."""

import orjson
from aiohttp import web

from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.pages.list_pages import fetch_from, respond_list
from edgeproxy.collector.pages.lists import Column, Filter, Listing, ListView, order_by
from edgeproxy.collector.pages.site import Page, Visit

LISTING = Listing(
    "entries",
    (
        Column("at", N_("When")),
        Column("actor", N_("Who")),
        Column("action", N_("Action")),
        Column("target", N_("What")),
    ),
    order_by("at"),
    (Filter("actor", N_("Who")), Filter("action", N_("Action")), Filter("target", N_("What"))),
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
    """Show the audit log, by default the latest entry first."""

    async def show(view: ListView) -> web.Response:
        changes = [format_json({"before": one["before"], "after": one["after"]}) for one in view.rows]
        return visit.render("audit.html", view=view, changes=changes)

    return await respond_list(visit, LISTING, fetch_from(visit, LISTING, "/v1/audit"), show)


def format_json(value: object) -> str:
    """Return indented JSON."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
