"""The console's list of edges: the delay of each, and its missing data."""

import time
from typing import Literal

from aiohttp import web
from typing_extensions import TypedDict

from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.pages.console_words import EDGE_STATES
from edgeproxy.collector.pages.list_pages import fetch_whole, respond_list
from edgeproxy.collector.pages.lists import Column, Filter, Listing, ListView, sort_by
from edgeproxy.collector.pages.site import Page, Visit

EDGES = "/console/edges"
LATE_SECONDS = 120
"""Edges with a longer delay are late, because edges ship every few seconds."""
GAPS_MAX = 5
"""Gaps shown per edge."""
Lateness = Literal["unread", "silent", "behind"]
LISTING = Listing(
    "edges",
    (
        Column("edge", N_("Edge")),
        Column("region", N_("Region")),
        Column("state", N_("State")),
        Column("lag_s", N_("Behind")),
        Column("last.received", N_("Last batch")),
        Column("sync_age_s", N_("Age of sync")),
        Column("version", N_("Version")),
        Column("gap_count", N_("Gaps"), is_number=True),
        Column("quarantine_count", N_("Quarantine"), is_number=True),
    ),
    sort_by("-lag_s", "region", "edge", "state", "-last.received", "-sync_age_s", "version", "-gap_count"),
    (Filter("region", N_("Region")), Filter("state", N_("State"), EDGE_STATES)),
    (Column("watermark", ""), Column("token", "")),
)


class BatchView(TypedDict):
    """The last batch of an edge. Only the fields of the API that pages read."""

    received: str


class EdgeView(TypedDict):
    """An edge of `GET /v1/edges`. Only the fields that this page reads; templates read more."""

    edge: str
    region: str | None
    lag_s: float | None
    last: BatchView | None
    retired: bool
    gaps: list[dict[str, object]]
    quarantined: list[dict[str, object]]


def list_pages() -> list[Page]:
    """Return the page."""
    return [Page("GET", EDGES, "operator", show_edges)]


def is_late(edge: EdgeView) -> bool:
    """Return True if an edge lags by more than LATE_SECONDS, or was never read."""
    return edge["lag_s"] is None or edge["lag_s"] > LATE_SECONDS


async def show_edges(visit: Visit) -> web.Response:
    """Show a page of edges, and the number of edges per region."""
    now = time.time()
    all_edges: list[EdgeView] = (await visit.fetch("GET", "/v1/edges"))["edges"]
    rows = [describe_edge(edge, now) for edge in sorted(all_edges, key=lambda edge: edge["edge"])]
    names = sorted({str(row["region"]) for row in rows})
    by_region = {name: [row for row in rows if row["region"] == name] for name in names}
    filters = (LISTING.filters[0]._replace(choices={name: name for name in names}), *LISTING.filters[1:])
    listing = LISTING._replace(filters=filters)

    async def show(view: ListView) -> web.Response:
        return visit.render("edges.html", view=view, regions=by_region, gaps_max=GAPS_MAX)

    return await respond_list(visit, listing, fetch_whole(listing, rows, "edge"), show)


def find_lateness(edge: EdgeView, now: float) -> Lateness | None:
    """Return why an edge is late: never read, silent, or shipping old data; None if it is not late."""
    last = edge["last"]
    if edge["lag_s"] is None or last is None:
        return "unread"
    if not is_late(edge):
        return None
    return "silent" if now - parse_time(last["received"]).timestamp() > LATE_SECONDS else "behind"


def describe_edge(edge: EdgeView, now: float) -> dict[str, object]:
    """Return an edge with its state and its counts, for lists and its page."""
    state = "retired" if edge["retired"] else "late" if is_late(edge) else "well"
    counts = {"gap_count": len(edge["gaps"]), "quarantine_count": len(edge["quarantined"])}
    lateness = None if edge["retired"] else find_lateness(edge, now)
    return {**edge, "region": edge["region"] or "–", "state": state, "lateness": lateness, **counts}
