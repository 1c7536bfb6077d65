"""The console's page of an edge: its delay with the reason, its last batch, and its traffic in the last hour."""

import time
from typing import NamedTuple

from aiohttp import web

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.pages.edges import EDGES, EdgeView, describe_edge
from edgeproxy.collector.pages.site import Page, PageError, Visit
from edgeproxy.collector.pages.traffic import HOUR, REPORT_SECONDS, Rates, TrafficView, compute_rates, find_start
from edgeproxy.collector.problems import operation_codes

EDGE = f"{EDGES}/{{edge}}"
MINUTE = 60
NO_TRAFFIC: TrafficView = {"requests": 0, "rate_limited": 0, "server_errors": 0, "p50_ms": None, "p95_ms": None}


class EdgeTraffic(NamedTuple):
    """The traffic of an edge in the last hour."""

    rates: Rates
    seconds: list[int]
    """The Unix seconds when the minutes begin."""
    minutes: list[Rates | None]
    """Rates by minute; None for minutes that the edge has not reported."""

    @property
    def last(self) -> int | None:
        """Return the Unix second when the last reported minute begins."""
        there = [second for second, rates in zip(self.seconds, self.minutes, strict=True) if rates is not None]
        return there[-1] if there else None


def list_pages() -> list[Page]:
    """Return the page."""
    return [Page("GET", EDGE, "operator", show_edge)]


async def show_edge(visit: Visit) -> web.Response:
    """Show an edge."""
    name, now = visit.path_parameter("edge"), time.time()
    edges: list[EdgeView] = (await visit.fetch("GET", "/v1/edges"))["edges"]
    edge = next((edge for edge in edges if edge["edge"] == name), None)
    if edge is None:
        raise PageError(operation_codes.EDGE_NOT_FOUND, "no edge of this name has shipped anything")
    until = int(now - REPORT_SECONDS) // MINUTE * MINUTE
    times = {"from": format_timestamp((until - HOUR) * 1000), "to": format_timestamp(until * 1000)}
    report = await visit.fetch("GET", "/v1/traffic", query={**times, "step": "60s", "by": "edge"})
    total = next((group for group in report["groups"] if group["edge"] == name), NO_TRAFFIC)
    rows = [row for row in report["rows"] if row["edge"] == name]
    traffic = compute_traffic(total, rows, until)
    is_admin = "admin" in visit.signed_in.who.roles
    return visit.render("edge.html", edge=describe_edge(edge, now), traffic=traffic, admin=is_admin)


def compute_traffic(total: TrafficView, rows: list[TrafficView], until: int) -> EdgeTraffic:
    """Compute the traffic of the hour before the Unix second `until`, from the edge's sum and its minutes."""
    seconds = list(range(until - HOUR, until, MINUTE))
    minutes = {find_start(row): compute_rates(row, MINUTE) for row in rows}
    return EdgeTraffic(compute_rates(total, HOUR), seconds, [minutes.get(second) for second in seconds])
