"""The traffic of the overview: a time and the preceding one, as rates, shares and latencies. The views are pure."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NotRequired

from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.pages.site import Visit

HOUR, DAY = 3600, 86400
STEPS = {"1": 60, "6": 600, "24": HOUR, "168": 4 * HOUR, "720": 12 * HOUR}
"""Seconds per step for each selectable time, by its hours."""
OWN_STEPS = (60, 300, 600, 1800, HOUR, 2 * HOUR, 4 * HOUR, 12 * HOUR, DAY)
"""Possible steps of a custom time. It has at most OWN_STEPS_MAX steps."""
OWN_STEPS_MAX = 96
REGIONS_MAX = 50
"""Regions shown, the ones with most requests."""
FAILING = 0.05
"""From this share of requests with 5xx on, a region is shown as failing."""
REPORT_SECONDS = 10
"""Seconds after a minute until its reports have arrived."""


class TrafficRange(NamedTuple):
    """A time in Unix seconds: from `since`, the beginning of a step, and before `until`."""

    hours: str
    """The hours of a time that ends now; `own` for a custom time."""
    since: int
    until: int
    step: int
    span: int
    """Seconds from the preceding time to this one: whole steps."""


class TrafficView(TypedDict):
    """Requests of a group or a step, from `GET /v1/traffic`."""

    requests: int
    rate_limited: int
    server_errors: int
    p50_ms: float | None
    p95_ms: float | None
    region: NotRequired[str]
    start: NotRequired[str]


class CoverageView(TypedDict):
    """An edge's report status. Only the fields of the API that this page reads."""

    missing: int | None


class TrafficReportView(TypedDict):
    """An answer of `GET /v1/traffic`. Only the fields that this page reads."""

    total: TrafficView
    groups: list[TrafficView]
    rows: list[TrafficView]
    edges: list[CoverageView]


class Rates(NamedTuple):
    """Requests as rates and shares. Shares are None without requests."""

    per_second: float
    limited: float | None
    """The share of requests answered with 429, from 0 to 1."""
    failed: float | None
    """The share of requests answered with 5xx."""
    p50_ms: float | None
    p95_ms: float | None


class RegionTraffic(NamedTuple):
    """The traffic of a region."""

    region: str
    rates: Rates
    change: float | None
    """The growth of requests since the preceding time, 0.06 for 6 %; None if it had no requests."""
    history: list[float | None]
    """Requests per second by step; None if no edge has reported."""
    failing_since: float | None = None
    """The Unix second of the step since when the share FAILING or more fails, up to the last step.

    It is None if the region is not failing.
    """
    failing: float | None = None
    """The share of requests that failed since then."""


class Overview(NamedTuple):
    """The traffic of all edges in a time."""

    range: TrafficRange
    rates: Rates
    before: Rates
    change: float | None
    seconds: list[float]
    """The Unix seconds when the steps begin."""
    steps: list[Rates | None]
    """Rates by step; None if no edge has reported."""
    earlier: list[float]
    """Requests per second by step in the preceding time; empty without requests."""
    regions: list[RegionTraffic]
    missing: int
    """Minutes that edges have not reported."""
    silent: int
    """Edges without any report, for example edges of an earlier version."""


def choose_range(query: Mapping[str, str], now: float, minutes_seconds: float | None) -> TrafficRange:
    """Return the time that a page's query chooses, by `hours`, or by `from` and `to` in UTC.

    `minutes_seconds` is the retention of minutes. Older times have only hours.
    """
    last = int(now - REPORT_SECONDS) // 60 * 60
    try:
        since, until = (int(parse_time(query[end]).timestamp()) // 60 * 60 for end in ("from", "to"))
    except (KeyError, ValueError, OverflowError):
        since = until = 0
    until = min(until, last)
    if 0 < since < until and until - since <= OWN_STEPS_MAX * DAY:
        has_minutes = minutes_seconds is None or now - (2 * since - until) <= minutes_seconds
        steps = (step for step in OWN_STEPS if until - since <= OWN_STEPS_MAX * step and (has_minutes or step >= HOUR))
        step = next(steps, DAY)
        since -= since % step
        return TrafficRange("own", since, until, step, -((since - until) // step) * step)
    hours = query.get("hours", "1")
    hours = hours if hours in STEPS else "1"
    span, step = int(hours) * HOUR, STEPS[hours]
    return TrafficRange(hours, last - span + -(last - span) % step, last, step, span)


async def fetch_overview(visit: Visit) -> Overview:
    """Return the traffic of the time in the page's query."""
    minutes_seconds = visit.site.settings_now().retention.traffic_minutes
    chosen = choose_range(visit.request.query, time.time(), minutes_seconds)
    since, until, step = chosen.since, chosen.until, chosen.step

    async def fetch(begin: int, end: int, **options: str) -> TrafficReportView:
        query = {"from": format_timestamp(begin * 1000), "to": format_timestamp(end * 1000), "step": f"{step}s"}
        answer: TrafficReportView = await visit.fetch("GET", "/v1/traffic", query=query | options)
        return answer

    total, regions, before = await asyncio.gather(
        fetch(since, until),
        fetch(since, until, by="region", coverage="false"),
        fetch(since - chosen.span, since, by="region", coverage="false"),
    )
    return compute_overview(chosen, total, regions, before)


def compute_overview(
    chosen: TrafficRange, total: TrafficReportView, regions: TrafficReportView, before: TrafficReportView
) -> Overview:
    """Compute the view of a time from three answers of the API.

    A rate is the mean of the steps that edges have reported, as the chart draws them. Divided by the whole time, the
    rate of a system that started a few minutes ago was far below each value of its chart.
    """
    since, until, step, span = chosen.since, chosen.until, chosen.step, chosen.span
    seconds = [float(second) for second in range(since, until, step)]
    lengths = {second: min(step, until - second) for second in seconds}
    rows = {find_start(row): row for row in total["rows"]}
    earlier: Counter[float] = Counter()
    for row in before["rows"]:
        earlier[find_start(row) + span] += row["requests"]
    reported = sum(lengths[second] for second in rows) or until - since
    reported_before = len({find_start(row) for row in before["rows"]}) * step or span
    rates, then = compute_rates(total["total"], reported), compute_rates(before["total"], reported_before)
    by_region = {row["region"]: row["requests"] / reported_before for row in before["groups"]}
    return Overview(
        chosen,
        rates,
        then,
        compute_change(rates.per_second, then.per_second),
        seconds,
        [compute_rates(rows[second], lengths[second]) if second in rows else None for second in seconds],
        [earlier[second] / step for second in seconds] if earlier else [],
        compute_regions(regions, by_region, lengths, reported),
        sum(edge["missing"] or 0 for edge in total["edges"]),
        sum(edge["missing"] is None for edge in total["edges"]),
    )


def compute_regions(
    report: TrafficReportView, before: Mapping[str, float], lengths: Mapping[float, float], reported: float
) -> list[RegionTraffic]:
    """Compute the traffic by region, most requests first.

    `before` has requests per second in the preceding time. `lengths` has the seconds of each step by its beginning.
    `reported` is the seconds of all steps that any edge has reported.
    """
    rows = {(row["region"], find_start(row)): row for row in report["rows"]}
    requests = {step: row["requests"] for step, row in rows.items()}
    starts = {second for _, second in rows}
    newest = max(starts, default=0.0)  # Later steps are not reported yet. They are no drop.
    regions = []
    for group in sorted(report["groups"], key=lambda group: -group["requests"])[:REGIONS_MAX]:
        region, rates = group["region"], compute_rates(group, reported)
        history = [
            requests.get((region, second), 0) / length if second in starts else None
            for second, length in lengths.items()
            if second <= newest
        ]
        change = compute_change(rates.per_second, before.get(region, 0.0))
        steps = [rows[region, second] for second in lengths if (region, second) in rows]
        regions.append(RegionTraffic(region, rates, change, history, *find_failing(steps)))
    return regions


def find_failing(steps: Sequence[TrafficView]) -> tuple[float | None, float | None]:
    """Return the beginning and the share of failures up to a region's last step, or None if it is not failing.

    A region fails while the share FAILING or more of its requests fails.
    """
    failing: list[TrafficView] = []
    for step in reversed(steps):
        if step["requests"] and step["server_errors"] < FAILING * step["requests"]:
            break
        failing.append(step)
    requests = sum(step["requests"] for step in failing)
    if not requests:
        return None, None
    return find_start(failing[-1]), sum(step["server_errors"] for step in failing) / requests


def find_start(row: TrafficView) -> float:
    """Return the Unix second when the step of a row begins."""
    return parse_time(row["start"]).timestamp()


def compute_rates(counts: TrafficView, seconds: float) -> Rates:
    """Return the rates of requests over `seconds` seconds."""
    requests = counts["requests"]
    limited = counts["rate_limited"] / requests if requests else None
    failed = counts["server_errors"] / requests if requests else None
    return Rates(requests / seconds, limited, failed, counts["p50_ms"], counts["p95_ms"])


def compute_change(now: float, before: float) -> float | None:
    """Return the growth from `before`, 0.06 for 6 %, or None if `before` is 0."""
    return now / before - 1 if before else None
