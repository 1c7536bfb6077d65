"""Usage that the ledger has counted, and the requests that limits refused."""

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import cast

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.end_user_pseudonyms import find_pseudonym
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.api.cached_reports import ReportCache, fetch_report
from edgeproxy.collector.api.customer_billing import get_billing
from edgeproxy.collector.api.customer_names import find_readers
from edgeproxy.collector.api.endpoint import CSV, MONEY_READERS, OWN, READERS, Call, Nothing, get
from edgeproxy.collector.api.group import Group, Handlers, Resources
from edgeproxy.collector.api.request_limits import CustomerTurns, RequestRate
from edgeproxy.collector.api.responses import ProblemError, Result
from edgeproxy.collector.api.usage import csv_export
from edgeproxy.collector.api.usage.models import (
    CustomerLimits,
    CustomerLimitsQuery,
    LiveEdge,
    LiveLimit,
    RateUse,
    RefusalReportResponse,
    RefusalsQuery,
    RefusedGroup,
    Usage,
    UsageQuery,
    UsageSpanQuery,
    UsageValue,
    UsageValueQuery,
)
from edgeproxy.collector.billing.period_close.quantities import QuantityTooLargeError, UsageNotStoredError
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.reports import usage_amounts
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.events.end_users import list_people
from edgeproxy.collector.ledger import customer_limits, detail, queries, readings, refusals
from edgeproxy.collector.ledger.customer_limits import RefusalGroup
from edgeproxy.collector.ledger.queries import LedgerQuery
from edgeproxy.collector.ledger.refusals import RefusalReport
from edgeproxy.collector.problems import account_codes, billing_codes, request_codes
from edgeproxy.collector.quotas import customer_quotas
from edgeproxy.collector.traffic import limit_usage
from edgeproxy.config.allowance import get_concurrency
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.limits import Limit
from edgeproxy.config.meters import MEASURES, AggregateName

READINGS_AT_ONCE = 2
"""Concurrent reads of usage per customer: half of the connections for reading."""
REFUSALS_SECONDS = 60.0
"""Seconds until a report of refusals is computed again."""


class UsageHandlers(Handlers):
    """Handlers of usage and refusals."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._exports = csv_export.CsvExporter(resources.database)
        self._turns = CustomerTurns(READINGS_AT_ONCE)
        self._refusals = ReportCache("refusals", self._compute_refusals, REFUSALS_SECONDS)

    def apply_settings(self, settings: CollectorSettings) -> None:
        """Report by the meters of these settings."""
        self._dimensions = frozenset(name for meter in settings.meters.values() for name in meter.dimensions)
        self._people = frozenset(name for meter in settings.meters.values() for name in list_people(meter))
        self._aggregates: Mapping[str, AggregateName] = {
            name: meter.aggregate for name, meter in settings.meters.items()
        }

    async def close(self) -> None:
        """Stop computing reports."""
        await self._refusals.end()

    @get(
        "/v1/usage",
        roles=READERS | OWN,
        response_media=(CSV,),
        errors={429: "The maximum number of exports is under way."},
    )
    async def report_usage(self, call: Call[UsageQuery, Nothing]) -> Result[Usage] | web.StreamResponse:
        """Report usage, grouped by any of its dimensions."""
        async with self._turns.take(call.holder.customer):
            return await self._report_usage(call)

    async def _report_usage(self, call: Call[UsageQuery, Nothing]) -> Result[Usage] | web.StreamResponse:
        query = await self._parse_query(call.holder, call.query)
        query = replace(query, by=("meter",)) if query.meter is None and not query.by else query
        is_csv = csv_export.accepts_csv(call.request)
        aggregate = self._aggregates.get(query.meter or "", "sum")
        if is_csv and aggregate == "sum" and query.limit is None and query.after is None:
            return await self._exports.send(call.request, query, find_readers(call.holder), call.holder.customer)
        async with self._database.reading(whole=True) as connection:
            if aggregate != "sum":
                report = await readings.fetch_usage(connection, query, aggregate, time.time())
            elif query.meter is not None:
                report = await queries.fetch_usage(connection, query)
            else:
                report, totals = await queries.fetch_usage_by_meter(connection, query)
                if len(totals) > 1:  # Their units differ.
                    report |= {"total": None, "totals": totals}
        if is_csv:
            return csv_export.render_page(call.request, query, report)
        unknown = await self._resources.names.find_unknown(query, report["rows"])
        usage = cast(Usage, report | ({"unknown": unknown} if unknown else {}))
        return Result(usage, headers={"Vary": "Accept"})

    @get(
        "/v1/usage/value",
        roles=MONEY_READERS | OWN,
        errors={
            404: "Billing is not configured, or the customer or its subscription does not exist.",
            422: "The query names no customer, or it names a meter whose usage cannot be added up.",
        },
        rate=RequestRate(100, "customer"),
    )
    async def report_value(self, call: Call[UsageValueQuery, Nothing]) -> UsageValue:
        """Compute the cost of a meter's usage under the plans that the customer had."""
        get_billing(self._settings)
        query = await self._parse_query(call.holder, call.query)
        if query.customer is None:
            raise ProblemError(account_codes.CUSTOMER_MISSING, "name the customer: ?customer=NAME")
        meter = call.query.meter
        if set(query.by) & ({"minute", "hour", "day", "customer", "meter"}) or len(query.by) > 1:
            raise ProblemError(
                request_codes.QUERY_INVALID,
                "by: is no field that a meter is split by, route, region or one of its dimensions",
            )
        if self._aggregates.get(meter, "sum") != "sum":
            raise ProblemError(
                billing_codes.METER_NOT_ADDED, f"usage of {meter} is not added up: invoices have its price"
            )
        group = query.by[0] if query.by else None
        async with self._turns.take(call.holder.customer), self._database.reading(whole=True) as connection:
            try:
                value = await self._compute_value(connection, query, meter, group)
            except (QuantityTooLargeError, UsageNotStoredError) as error:
                raise ProblemError(request_codes.QUERY_INVALID, str(error)) from None
        return cast(UsageValue, value)

    async def _compute_value(
        self, connection: AsyncConnection, query: LedgerQuery, meter: str, group: str | None
    ) -> JsonObject:
        """Return the cost of a meter's usage, with the amounts by value of the field `group`."""
        customer = str(query.customer)
        used = await queries.fetch_usage(connection, query)
        span = Span(query.since, query.until)
        rated = await usage_amounts.rate_usage(connection, customer, meter, span, self._settings.meters)
        about = {"customer": customer, "meter": meter, "quantity": used["total"], "plan": rated.version}
        value: JsonObject = {**about, "currency": rated.currency, "amount": rated.amount}
        if rated.amount is None or (group is None and query.where is None):
            return value
        fields = [*(() if query.where is None else (query.where[0],)), *(() if group is None else (group,))]
        shares = await usage_amounts.share_by_group(connection, customer, meter, rated, fields)
        if query.where is not None:
            shares = {of: amount for of, amount in shares.items() if of[0] == query.where[1]}
            value["amount"] = sum(shares.values())
        if group is not None and "next" not in used:
            quantities = {str(row.get(group, "")): row["value"] for row in used["rows"]}
            amounts = {of[-1]: amount for of, amount in shares.items() if amount or of[-1] in quantities}
            value["groups"] = [
                {"value": of, "quantity": quantities.get(of, 0), "amount": amounts.get(of, 0)}
                for of in dict.fromkeys((*quantities, *amounts))
            ]
        return value

    async def _parse_query(self, holder: Holder, span_query: UsageSpanQuery) -> LedgerQuery:
        """Return the ledger query. Customers see only their own usage, in detail as far back as their tier permits."""
        customer = auth.customer_of(holder, span_query.customer)
        parameters = span_query.model_dump(by_alias=True, exclude_none=True)
        dimensions = set(self._dimensions)
        if other := queries.list_dimension_names(parameters) - dimensions:
            async with self._database.reading() as connection:
                dimensions |= await queries.fetch_known_dimensions(connection, other)
        if customer is not None and span_query.where is not None:
            parameters["where"] = await self._find_person(customer, span_query.where)
        now = time.time()
        query = queries.parse_query({**parameters, **({"customer": customer} if customer else {})}, now, dimensions)
        if holder.customer is not None:
            detail_seconds = await self._find_detail_seconds(holder.customer)
            if detail_seconds is not None and span_query.since is None and "cursor" not in parameters:
                query = detail.shorten_default(query, detail_seconds, now)
            billed_since = None
            if detail_seconds is not None and query.since < detail.find_detail_start(detail_seconds, now):
                billed_since = await self._find_usage_start(holder.customer)
            detail.require_detail(query, detail_seconds, now, billed_since)
        return query

    async def _find_person(self, customer: str, where: str) -> str:
        """Return a query's filter with the pseudonym of the named person."""
        name, _, value = where.partition(":")
        if name not in self._people:
            return where
        async with self._database.reading() as connection, across_customers(connection):
            pseudonym = await find_pseudonym(connection, (customer, value))
        return where if pseudonym is None else f"{name}:{pseudonym}"

    async def _find_usage_start(self, customer: str) -> int | None:
        """Return the Unix second when usage on a customer's upcoming invoice begins, or None without an invoice."""
        if self._settings.billing is None:
            return None
        try:
            async with self._database.reading() as connection:
                return (await subscription_rows.get_by_customer(connection, customer)).current.usage_start
        except ChangeRejectedError:
            return None

    async def _find_detail_seconds(self, customer: str) -> float | None:
        """Return how far back a customer sees detailed usage, in seconds; None: without limit."""
        async with self._database.reading() as connection:
            tier = await customers.find_tier(connection, customer)
        settings = self._settings
        if tier is None and customer in settings.customers:
            tier = settings.customers[customer].tier
        return settings.tiers[tier].analytics if tier is not None and tier in settings.tiers else None

    @get(
        "/v1/refusals", roles=READERS, errors={429: "The report is being computed. Retry-After says when to try again."}
    )
    async def report_refusals(self, call: Call[RefusalsQuery, Nothing]) -> RefusalReportResponse:
        """Report the customers and limits with the most refusals. The answer is 429 until they are computed."""
        return cast(RefusalReportResponse, await fetch_report(self._refusals, call.query.hours))

    async def _compute_refusals(self, hours: int) -> JsonObject:
        meters = [name for name, meter in self._settings.meters.items() if MEASURES[meter.count].is_of_refusals]
        until = int(time.time())
        since = until - hours * 3600
        report = RefusalReport(0, 0, (), ())
        if meters:
            async with self._database.reading(whole=True) as connection:
                report = await refusals.fetch_refusals(connection, meters, since, until)
        return {
            "since": format_timestamp(since * 1000),
            "until": format_timestamp(until * 1000),
            "is_counted": bool(meters),
            "refused": report.refused,
            "uncertain": report.uncertain,
            "customers": [row._asdict() for row in report.customers],
            "limits": [
                {"limit": row.limit, "refused": row.refused, "uncertain": row.uncertain} for row in report.limits
            ],
        }

    # ---- limits and refusals

    @get(
        "/v1/customers/{customer}/limits",
        roles=READERS | OWN,
        errors={409: "The tier of the customer is not configured here."},
    )
    async def report_limits(self, call: Call[CustomerLimitsQuery, Nothing]) -> CustomerLimits:
        """Report the limits of a customer, their use, and their refusals by route and region."""
        until, settings = int(time.time()), self._settings
        counted = [name for name, meter in settings.meters.items() if meter.count == "requests"]
        refused = [name for name, meter in settings.meters.items() if MEASURES[meter.count].is_of_refusals]
        minutes, groups = None, []
        async with self._database.reading(whole=True) as connection:
            name, allowance = await customer_quotas.get_allowance(connection, call.path("customer"), settings)
            if counted:
                minutes = await customer_limits.fetch_minutes(connection, name, counted[0], until)
            if refused:
                since = until - call.query.hours * 3600
                groups = await customer_limits.fetch_refusal_groups(connection, name, refused, since, until)
        # Customers do not see limits on trial.
        modes = ("enforce", "shadow") if call.holder.customer is None else ("enforce",)
        trials = {limit.name for limit in allowance.limits if limit.mode not in modes}
        uses = [
            (limit, customer_limits.compute_use(limit, minutes, until))
            for limit in allowance.limits
            if limit.mode in modes
        ]
        return {
            "customer": name,
            "as_of": format_timestamp(until * 1000),
            "limits": [to_rate_use(limit, use) for limit, use in uses],
            "concurrency": get_concurrency(allowance),
            "concurrency_routes": [] if allowance.concurrency is None else list(allowance.concurrency.routes),
            "concurrency_scopes": [] if allowance.concurrency is None else list(allowance.concurrency.scopes),
            "live": await self._fetch_live(name, until, modes, call.holder),
            "is_counted": bool(refused),
            "refusals": [_to_refusals(group) for group in groups if group.limit not in trials],
        }

    async def _fetch_live(self, customer: str, now: int, modes: Collection[str], holder: Holder) -> list[LiveEdge]:
        """Return a customer's current use of its limits at each edge, and have edges report it for another minute."""
        usage = await limit_usage.fetch_and_watch(self._database, customer, now, holder.customer is None)
        return [
            {
                "edge": one.edge,
                "region": one.region,
                "as_of": format_timestamp(one.at * 1000),
                "limits": [cast(LiveLimit, asdict(limit)) for limit in one.limits if limit.mode in modes],
            }
            for one in usage
        ]


def _to_refusals(group: RefusalGroup) -> RefusedGroup:
    return {
        "limit": group.limit,
        "route": group.route,
        "region": group.region,
        "refused": group.refused,
        "uncertain": group.uncertain,
        "recent": group.recent,
        "first_at": format_timestamp(group.first_at * 1000),
        "last_at": format_timestamp(group.last_at * 1000),
    }


def to_rate_use(limit: Limit, use: customer_limits.LimitUse) -> RateUse:
    """Return a rate and its use in the API's form."""
    return {
        "limit": limit.name,
        "scope": limit.scope,
        "mode": limit.mode,
        "count": limit.count,
        "window_s": limit.window,
        "routes": list(limit.routes),
        "scopes": list(limit.scopes),
        "used": use.used,
        "peak": use.peak,
    }


GROUP = Group("usage", "Usage that the ledger has counted, and the requests that limits refused.", UsageHandlers)
