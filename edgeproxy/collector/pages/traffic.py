"""The traffic of the overview: a time and the one before it, as rates, shares and latencies. The views are pure."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple, NotRequired

from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.pages.site import Visit

SPANS = {"1": 3600, "24": 24 * 3600, "168": 168 * 3600}
"""The seconds of the times that can be chosen, by their hours."""
STEPS = {"1": 60, "24": 3600, "168": 4 * 3600}
"""The seconds of a step of each."""
REGIONS_MAX = 50
"""Regions that are shown, those with most requests."""
REPORT_SECONDS = 10
"""Seconds after a minute within which its reports come."""


class TrafficView(TypedDict):
    """Requests of `GET /v1/traffic`, of a group or a step."""

    requests: int
    rate_limited: int
    server_errors: int
    p50_ms: float | None
    p95_ms: float | None
    region: NotRequired[str]
    start: NotRequired[str]


class CoverageView(TypedDict):
    """How much an edge has reported, as far as it is read here."""

    missing: int | None


class TrafficReportView(TypedDict):
    """An answer of `GET /v1/traffic`, as far as it is read here."""

    total: TrafficView
    groups: list[TrafficView]
    rows: list[TrafficView]
    edges: list[CoverageView]


class Rates(NamedTuple):
    """Requests as rates and shares; None where there were none."""

    per_second: float
    limited: float | None
    """The share of requests that were answered with 429, from 0 to 1."""
    failed: float | None
    """The share of requests that were answered with 5xx."""
    p50_ms: float | None
    p95_ms: float | None


class RegionTraffic(NamedTuple):
    """The traffic of a region."""

    region: str
    rates: Rates
    change: float | None
    """The growth of requests since the time before, 0.06 for 6 %; None without any before."""
    history: list[float]
    """Requests per second by step."""


class Overview(NamedTuple):
    """The traffic of all edges in a time."""

    hours: str
    rates: Rates
    before: Rates
    change: float | None
    seconds: list[float]
    """The Unix seconds at which the steps begin."""
    steps: list[Rates | None]
    """Each step; None where no edge has reported."""
    earlier: list[float]
    """Requests per second by step of the time before; empty where there were none."""
    regions: list[RegionTraffic]
    missing: int
    """Minutes that edges have not reported."""
    silent: int
    """Edges that have reported nothing, as those of an earlier version do."""


async def fetch_overview(visit: Visit) -> Overview:
    """Return the traffic of the time that the query chooses."""
    hours = visit.request.query.get("hours", "1")
    hours = hours if hours in SPANS else "1"
    span, step = SPANS[hours], STEPS[hours]
    until = int(time.time() - REPORT_SECONDS) // 60 * 60
    since = until - span + -(until - span) % step

    async def fetch(begin: int, end: int, by: str = "") -> TrafficReportView:
        query = {"from": format_timestamp(begin * 1000), "to": format_timestamp(end * 1000), "step": f"{step}s"}
        answer: TrafficReportView = await visit.fetch("GET", "/v1/traffic", query=query | {"by": by})
        return answer

    total, regions = await fetch(since, until), await fetch(since, until, "region")
    before = await fetch(since - span, since, "region")
    return compute_overview(hours, since, until, total, regions, before)


def compute_overview(
    hours: str,
    since: int,
    until: int,
    total: TrafficReportView,
    regions: TrafficReportView,
    before: TrafficReportView,
) -> Overview:
    """Compute the view of a time that begins and ends at these Unix seconds, of three answers of the API."""
    step, span = STEPS[hours], SPANS[hours]
    seconds = [float(second) for second in range(since, until, step)]
    lengths = {second: min(step, until - second) for second in seconds}
    rows = {find_start(row): row for row in total["rows"]}
    earlier: Counter[float] = Counter()
    for row in before["rows"]:
        earlier[find_start(row) + span] += row["requests"]
    rates, then = compute_rates(total["total"], until - since), compute_rates(before["total"], span)
    return Overview(
        hours,
        rates,
        then,
        compute_change(rates.per_second, then.per_second),
        seconds,
        [compute_rates(rows[second], lengths[second]) if second in rows else None for second in seconds],
        [earlier[second] / step for second in seconds] if earlier else [],
        compute_regions(regions, {row["region"]: row["requests"] / span for row in before["groups"]}, lengths),
        sum(edge["missing"] or 0 for edge in total["edges"]),
        sum(edge["missing"] is None for edge in total["edges"]),
    )


def compute_regions(
    report: TrafficReportView, before: Mapping[str, float], lengths: Mapping[float, float]
) -> list[RegionTraffic]:
    """Compute the traffic by region, those with most requests first.

    `before` are requests per second of the time before, `lengths` the seconds of each step by its beginning.
    """
    requests = {(row["region"], find_start(row)): row["requests"] for row in report["rows"]}
    regions = []
    for group in sorted(report["groups"], key=lambda group: -group["requests"])[:REGIONS_MAX]:
        region, rates = group["region"], compute_rates(group, sum(lengths.values()))
        history = [requests.get((region, second), 0) / length for second, length in lengths.items()]
        change = compute_change(rates.per_second, before.get(region, 0.0))
        regions.append(RegionTraffic(region, rates, change, history))
    return regions


def find_start(row: TrafficView) -> float:
    """Return the Unix second at which the step of a row begins."""
    return parse_time(row["start"]).timestamp()


def compute_rates(counts: TrafficView, seconds: float) -> Rates:
    """Return the rates of requests in so many seconds."""
    requests = counts["requests"]
    limited = counts["rate_limited"] / requests if requests else None
    failed = counts["server_errors"] / requests if requests else None
    return Rates(requests / seconds, limited, failed, counts["p50_ms"], counts["p95_ms"])


def compute_change(now: float, before: float) -> float | None:
    """Return the growth from `before`, 0.06 for 6 %; None where there was nothing."""
    return now / before - 1 if before else None
