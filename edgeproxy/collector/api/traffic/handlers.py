"""Traffic reports from edges, and reports about traffic."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.edges import BATCH_HEADERS
from edgeproxy.collector.api.endpoint import EDGE, READERS, AnyCall, Call, Nothing, Query, get, post
from edgeproxy.collector.api.group import Group, Handlers
from edgeproxy.collector.api.responses import ProblemError
from edgeproxy.collector.api.traffic.models import (
    EXAMPLE,
    LIMIT_USAGE_EXAMPLE,
    CustomerErrorsQuery,
    CustomerErrorsResponse,
    LimitUsageBody,
    LimitUsageReceipt,
    TrafficGroup,
    TrafficQueryParameters,
    TrafficReceipt,
    TrafficReportBody,
    TrafficResponse,
    TrafficTotals,
)
from edgeproxy.collector.database.schema import HOUR
from edgeproxy.collector.ledger.queries import parse_time
from edgeproxy.collector.problems import operation_codes, request_codes
from edgeproxy.collector.traffic import errors, limit_usage, queries, reports
from edgeproxy.collector.traffic.quantiles import compute_quantile
from edgeproxy.wire.batch import NAME
from edgeproxy.wire.traffic_report import AGE_SECONDS_MAX, MINUTE_SECONDS, TrafficCounts, sum_counts

CLOCK_SECONDS = 120
"""Seconds that an edge's clock may be ahead."""


class TrafficHandlers(Handlers):
    """Handlers of traffic."""

    @post(
        "/v1/traffic",
        roles=EDGE,
        example=EXAMPLE,
        headers={"Edge-Id": BATCH_HEADERS["Edge-Id"]},
        errors={
            409: "The edge has shipped no batch yet.",
            422: "A field is invalid, or the minute is too old or in the future.",
        },
    )
    async def ingest_report(self, call: Call[Query, TrafficReportBody]) -> TrafficReceipt:
        """Ingest the report of an edge about one minute. A report for an already reported minute changes nothing."""
        report, now = call.body.to_report(), time.time()
        edge = read_edge(call, report.region)
        if not now - 2 * AGE_SECONDS_MAX <= report.minute <= now + CLOCK_SECONDS:
            raise ProblemError(operation_codes.REPORT_OUT_OF_TIME, "minute: is too old, or in the future")
        with answering_rejections(edge):
            async with self._database.writing() as connection:
                is_new = await reports.record_report(connection, call.holder.label, edge, report)
        return {"recorded": is_new}

    @post(
        "/v1/limit-usage",
        roles=EDGE,
        example=LIMIT_USAGE_EXAMPLE,
        headers={"Edge-Id": BATCH_HEADERS["Edge-Id"]},
        errors={409: "The edge has shipped no batch yet."},
    )
    async def ingest_limit_usage(self, call: Call[Query, LimitUsageBody]) -> LimitUsageReceipt:
        """Ingest customers' current use of their limits at an edge. The answer names the customers to report next."""
        region, usage, now = call.body.region, call.body.to_usage(), int(time.time())
        edge = read_edge(call, region)
        with answering_rejections(edge):
            async with self._database.reading() as connection:
                await reports.require_bound(connection, call.holder.label, edge, region)
                watched = await limit_usage.fetch_watched(connection, now)
                reported = await limit_usage.select_watched(connection, usage)
        if reported:
            async with self._database.writing() as connection:
                own = {customer: usage[customer] for customer in reported}
                await limit_usage.record_usage(connection, edge, region, own, now)
        return {"watched": watched}

    @get("/v1/traffic", roles=READERS)
    async def report_traffic(self, call: Call[TrafficQueryParameters, Nothing]) -> TrafficResponse:
        """Report the traffic of a time in steps, in total and by region, edge or route."""
        parameters, now = call.query, time.time()
        # Reports of a minute arrive within seconds after its end.
        last = int(now - 10) // MINUTE_SECONDS * MINUTE_SECONDS
        until = last if parameters.until is None else parse_time("to", parameters.until)
        since = until - 3600 if parameters.since is None else parse_time("from", parameters.since)
        minutes_seconds = self._settings.retention.traffic_minutes
        try:
            query = queries.build_query(since, until, parameters.step, parameters.by, now, minutes_seconds)
            async with self._database.reading(whole=parameters.coverage) as connection:
                rows = await queries.fetch_traffic(connection, query)
                coverage = await queries.fetch_coverage(connection, query, now) if parameters.coverage else []
        except queries.InvalidTrafficQueryError as error:
            raise ProblemError(request_codes.QUERY_INVALID, str(error)) from None
        groups: dict[tuple[str, ...], list[TrafficCounts]] = defaultdict(list)
        for row in rows:
            groups[row.group].append(row.counts)
        response: TrafficResponse = {
            "as_of": format_timestamp(int(now * 1000)),
            "from": format_timestamp(query.since * 1000),
            "to": format_timestamp(query.until * 1000),
            "step_s": query.step,
            "total": _to_totals(sum_counts(row.counts for row in rows)),
            "groups": [_to_group(query, group, sum_counts(groups[group])) for group in sorted(groups)],
            "rows": [
                {"start": format_timestamp(row.start * 1000), **_to_group(query, row.group, row.counts)} for row in rows
            ],
            "edges": [
                {"edge": one.edge, "region": one.region, "minutes": one.minutes, "missing": one.missing}
                for one in coverage
            ],
        }
        return response

    @get("/v1/customers/{customer}/errors", roles=READERS)
    async def report_errors(self, call: Call[CustomerErrorsQuery, Nothing]) -> CustomerErrorsResponse:
        """Report the recent errors of a customer by status, origin of the answer, route and region."""
        ref, until = call.path("customer"), int(time.time())
        since = until - call.query.hours * HOUR
        async with self._database.reading(whole=True) as connection:
            name = ref if ref in self._settings.customers else (await customers.get_row(connection, ref)).name
            groups, unnamed = await errors.fetch_errors(connection, name, since, until)
        response: CustomerErrorsResponse = {
            "customer": name,
            "as_of": format_timestamp(until * 1000),
            "since": format_timestamp(since * 1000),
            "errors": [
                {
                    "status": group.status,
                    "by": group.by,
                    "route": group.route,
                    "region": group.region,
                    "requests": group.requests,
                    "recent": group.recent,
                    "first_at": format_timestamp(group.first_at * 1000),
                    "last_at": format_timestamp(group.last_at * 1000),
                }
                for group in groups
            ],
            "unnamed": {"requests": unnamed.requests, "minutes": unnamed.minutes},
        }
        return response


def read_edge(call: AnyCall, region: str) -> str:
    """Return the edge of a report. Raises ProblemError, and DeniedError unless the token may send it."""
    edge = call.request.headers.get("Edge-Id", "")
    if not NAME.fullmatch(edge):
        raise ProblemError(operation_codes.EDGE_ID_MISSING, "the field Edge-Id is missing, or names no edge")
    auth.require_edge(call.holder, edge)
    if call.holder.region not in (None, region):
        raise auth.DeniedError(
            request_codes.OTHER_REGION, f"{call.holder.called} is bound to region {call.holder.region}"
        )
    return edge


@contextmanager
def answering_rejections(edge: str) -> Iterator[None]:
    """Answer 409 for an unknown edge, and 403 for an edge that is bound to another token."""
    try:
        yield
    except reports.UnknownEdgeError:
        raise ProblemError(operation_codes.EDGE_WITHOUT_BATCH, f"the edge {edge} has shipped no batch yet") from None
    except reports.ForeignEdgeError as error:
        raise auth.DeniedError(request_codes.OTHER_EDGE, str(error)) from None


def _to_group(query: queries.TrafficQuery, group: tuple[str, ...], counts: TrafficCounts) -> TrafficGroup:
    return cast(TrafficGroup, {**dict(zip(query.by, group, strict=True)), **_to_totals(counts)})


def _to_totals(counts: TrafficCounts) -> TrafficTotals:
    return {
        "requests": counts.requests,
        "rate_limited": counts.rate_limited,
        "client_errors": counts.client_errors,
        "server_errors": counts.server_errors,
        "p50_ms": compute_quantile(counts.buckets, 0.5),
        "p95_ms": compute_quantile(counts.buckets, 0.95),
    }


GROUP = Group(
    "traffic", "Requests, refusals, errors and latencies, as edges report them every minute.", TrafficHandlers
)
