"""A run as text: a line a second during the run, and one screen at its end."""

from collections.abc import Iterator, Sequence
from math import isnan

from loadtest.conservation import totals
from loadtest.evidence import (
    HOME,
    IN_GRACE,
    LAG,
    MOVED,
    PASS,
    REFUSED,
    RESPONSE,
    SERVICE,
    TIMED,
    Evidence,
    Verdict,
    total,
)
from loadtest.measured import list_measured
from loadtest.record import Request, Times, quantile
from loadtest.workload import BAD_KEY

PERCENTILES = (50.0, 95.0, 99.0, 99.9)
REQUESTS_SHOWN = 20
"""Rows of the workload's own requests on the screen."""


def progress(seconds: float, requests: Sequence[Request], kinds: Sequence[str]) -> str:
    """Return `23 s · 600/s · p95 22 22 23 ms · 429 31 · lag 0.6 ms`, with p95 by region of the answers since the last
    line.
    """
    by_region: dict[int, list[float]] = {}
    for request in requests:
        if request.status != 429 and kinds[request.kind] != BAD_KEY and request.asked == request.home:
            by_region.setdefault(request.home, []).append(request.response)
    p95 = " ".join(f"{1000 * quantile(times, 95):.0f}" for _, times in sorted(by_region.items()))
    errors = sum(request.status < 100 or request.status >= 500 for request in requests)
    refused = sum(request.status == 429 for request in requests)
    lag = 1000 * quantile([request.lag for request in requests], 95)
    failed = f" · {errors} failed" if errors else ""
    return f"{seconds:3.0f} s · {len(requests)}/s · p95 {p95 or '–'} ms · 429 {refused}{failed} · lag {lag:.1f} ms"


def milliseconds(times: Times) -> str:
    """Percentiles in a row of a table."""
    return " ".join(f"{1000 * times.percentile(p):8.1f}" if times.count else f"{'–':>8}" for p in PERCENTILES)


def table(verdict: Verdict) -> Iterator[str]:
    """Latencies by region and place, with the service time and the generator's lag beside them."""
    yield f"{'ms':28} {'requests':>9} " + " ".join(f"{f'p{p:g}':>8}" for p in PERCENTILES)
    regions = sorted({key[0] for key in verdict.histograms})
    for region in regions:
        for what, label in ((TIMED, "response"), ((SERVICE,), "service")):
            times = total(verdict.histograms, region, what, HOME)
            yield f"{region + ' ' + label:28} {times.count:9} {milliseconds(times)}"
        for place in (MOVED, IN_GRACE):
            times = total(verdict.histograms, region, (RESPONSE,), place)
            if times.count:
                yield f"{f'{region} {place}':28} {times.count:9} {milliseconds(times)}"
    for way, label in ((REFUSED, "429"), (LAG, "lag of the generator")):
        times = total(verdict.histograms, None, (way,))
        yield f"{label:28} {times.count:9} {milliseconds(times)}"


def requests_table(evidence: Evidence, verdict: Verdict) -> Iterator[str]:
    """Response times of the workload's own requests, the slowest first."""
    rows = sorted(verdict.requests.items(), key=lambda item: -item[1][0].percentile(95))
    if rows:
        yield ""
        yield f"{'ms':40} {'requests':>9} " + " ".join(f"{f'p{p:g}':>8}" for p in PERCENTILES) + "  statuses"
    for number, (times, statuses) in rows[:REQUESTS_SHOWN]:
        text = ", ".join(f"{count} × {status}" for status, count in statuses.most_common())
        yield f"{evidence.names[number - 1][:40]:40} {times.count:9} {milliseconds(times)}  {text}"
    if len(rows) > REQUESTS_SHOWN:
        yield f"and {len(rows) - REQUESTS_SHOWN} more, in the report"


def said_verdict(verdict: Verdict) -> str:
    """Return the verdict, with the thresholds that a pass does not cover."""
    unjudged = [one.threshold for one in verdict.unjudged if one.whole]
    text = f" (not judged: {', '.join(unjudged)})" if unjudged and verdict.verdict == PASS else ""
    return f"verdict: {verdict.verdict}{text}"


def summary(evidence: Evidence, verdict: Verdict) -> Iterator[str]:
    """One screen; the last two lines are the worst p95 of home clients, and the verdict."""
    accounts = evidence.accounts
    yield ""
    yield from table(verdict)
    yield from requests_table(evidence, verdict)
    yield ""
    yield f"{'threshold':12} {'of':24} {'measured':>9}  {'accepted':<16}"
    yield from map(str, list_measured(evidence, verdict))
    counts = verdict.counts
    refused = f"{counts['refused'] + counts['refused in grace']} refused"
    lost = f"{counts['lost']} lost, {counts['lost in grace']} lost while a region was"
    yield ""
    yield f"{counts['due']} due, {counts['started']} started, {counts['answered']} answered, {refused}, {lost}"
    if accounts is not None:
        answered, ledger, upstream = totals(accounts)
        yield f"billable: {answered} answered to clients, {ledger} in the ledger, {upstream} answered by the upstream"
    if evidence.machine is not None:
        yield f"machine: {evidence.machine}"
    yield from map(str, verdict.unjudged)
    yield from map(str, verdict.findings)
    p95 = max(verdict.p95.values(), default=float("nan"), key=lambda one: float("inf") if isnan(one) else one)
    yield f"p95: {1000 * p95:.0f} ms"
    yield said_verdict(verdict)
