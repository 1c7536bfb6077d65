"""Reports about billing: reconciliation, the books and the business."""

import time
from datetime import date, timedelta
from typing import TypeAlias, cast

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.api.cached_reports import ReportCache, fetch_report
from edgeproxy.collector.api.customer_billing import get_billing
from edgeproxy.collector.api.endpoint import BILLING, CSV, AnyCall, Call, Nothing, get
from edgeproxy.collector.api.group import Group, Handlers, PathParameter, Resources
from edgeproxy.collector.api.reports.models import (
    AccountingDay,
    AccountingQuery,
    AccountMovement,
    BusinessReport,
    BusinessReportQuery,
    RatingReport,
    RatingReportQuery,
    Reconciliation,
    ReconciliationList,
    ReconciliationQuery,
)
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.responses import ProblemError
from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.credits import statements
from edgeproxy.collector.billing.credits.statements import CalendarMonth
from edgeproxy.collector.billing.invoices import shadow_log
from edgeproxy.collector.billing.reports import accounting, business_report
from edgeproxy.collector.billing.reports.accounting import DayNotOverError
from edgeproxy.collector.billing.reports.business_report import DEFINITIONS, DayReport, MonthReport
from edgeproxy.collector.billing.reports.currency_scope import CurrencyScope, list_scopes
from edgeproxy.collector.billing.reports.recurring_revenue import fetch_recurring_revenue
from edgeproxy.collector.billing.rollout.gates import MARGIN_MIN
from edgeproxy.collector.problems import billing_codes, request_codes
from edgeproxy.config.collector.catalog import get_default_currency

BUSINESS_SECONDS = 300.0
"""Seconds until a business report is computed again."""
WEEK = timedelta(days=7)

ReportKey: TypeAlias = tuple[CalendarMonth, str, str]
"""The month of a business report, its currency, and the currency of customers without one."""


class ReportHandlers(Handlers):
    """Handlers of reports."""

    def check(self, call: AnyCall) -> None:
        """Raise ProblemError if nothing is sold here."""
        get_billing(self._settings)

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._business = ReportCache("business report", self._compute_business, BUSINESS_SECONDS)

    async def close(self) -> None:
        """Stop computing reports."""
        await self._business.end()

    # ---- the books

    @get("/billing/reconciliation", rate=RequestRate(100, "customer"))
    async def list_reconciliations(self, call: Call[ReconciliationQuery, Nothing]) -> ReconciliationList:
        """List reconciliations, with advice for each row that differs."""
        async with self._database.reading(whole=True) as connection:
            reconciliations = await discrepancies.list_reconciliations(connection, call.query.kind, call.query.limit)
        return {"reconciliations": cast(list[Reconciliation], reconciliations)}

    @get("/billing/report", rate=RequestRate(100, "customer"))
    async def compare_ratings(self, call: Call[RatingReportQuery, Nothing]) -> RatingReport:
        """Compare the shadow rating of all usage with the amounts charged."""
        async with self._database.reading(whole=True) as connection:
            report = await shadow_log.fetch_report(connection, call.query.period, call.query.limit)
        return cast(RatingReport, report)

    @get(
        "/billing/accounting/{date}",
        response_media=(CSV,),
        errors={404: "Billing is not configured, or the day does not exist.", 409: "The day is not over."},
        rate=RequestRate(100, "customer"),
    )
    async def fetch_accounting(self, call: Call[AccountingQuery, Nothing]) -> AccountingDay | web.Response:
        """Fetch the accounting journal of a completed day."""
        billing = get_billing(self._settings)
        try:
            day = date.fromisoformat(call.path("date"))
            if len(call.path("date")) != 10 or day.year < 2000:
                raise ValueError
        except ValueError:
            raise ProblemError(billing_codes.DAY_NOT_FOUND, "there is no such day: write it as 2027-01-31") from None
        try:
            async with self._database.writing() as connection:
                journal = await accounting.fetch_day_journal(connection, day, time.time(), call.query.currency)
        except DayNotOverError as error:
            raise ProblemError(billing_codes.DAY_NOT_OVER, str(error)) from None
        form = call.query.format
        if form is None:
            movements = [
                {"account": row.account, "kind": row.kind, "customer": row.customer, "millicredits": row.amount}
                for row in journal.movements
            ]
            return {
                "date": str(day),
                "currency": journal.currency,
                "movements": cast(list[AccountMovement], movements),
                "cents": dict(journal.cents),
            }
        names = {str(account): name for account, name in billing.accounts.items()}
        file = {"Content-Disposition": f'attachment; filename="journal-{day}-{form}.csv"'}
        return web.Response(body=accounting.render_journal(journal, form, names), content_type=CSV, headers=file)

    # ---- the business

    @get("/billing/executive", errors={429: "The report is being computed. Retry-After says when to try again."})
    async def fetch_business_report(self, call: Call[BusinessReportQuery, Nothing]) -> BusinessReport:
        """Report revenue, cost and margin. The answer is 429 until they are computed."""
        try:
            month = statements.parse_month(call.query.month or f"{business_report.date_of(int(time.time())):%Y-%m}")
        except ValueError as error:
            raise ProblemError(request_codes.QUERY_INVALID, f"month: {error}") from None
        if month.begin > time.time() * 1000:
            raise ProblemError(request_codes.QUERY_INVALID, "month: has not begun")
        default = get_default_currency(self._settings.plans)
        report = await fetch_report(self._business, (month, call.query.currency or default, default))
        return cast(BusinessReport, report)

    async def _compute_business(self, key: ReportKey) -> JsonObject:
        month, currency, default = key
        billing, now = self._settings.billing, time.time()
        cogs = {} if billing is None or billing.credits is None else billing.credits.list_costs(currency)
        first, today = date(month.year, month.month, 1), business_report.date_of(int(now))
        last = min(business_report.date_of(month.end // 1000 - 1), today)
        async with self._database.reading(whole=True) as connection:
            scopes = {scope.currency: scope for scope in await list_scopes(connection, default)}
            scope = scopes.get(currency, CurrencyScope(currency, is_default=False, is_only=False))
            days = await business_report.fetch_days(connection, first, last, now, cogs, scope)
        # The last seven complete days.
        start = (last if last < today else today - timedelta(days=1)) - WEEK + timedelta(days=1)
        async with self._database.reading(whole=True) as connection:
            week = await business_report.fetch_week(connection, start, cogs, scope)
        async with self._database.reading(whole=True) as connection:
            whole = await business_report.fetch_month(connection, month, now, cogs, scope)
        async with self._database.reading(whole=True) as connection:
            ends = (month.begin // 1000 - 1, min(int(now), month.end // 1000 - 1))
            recurring = await fetch_recurring_revenue(connection, *ends, scope)
        return {
            "currency": currency,
            "currencies": sorted(scopes),
            "month": month_to_response(whole),
            "recurring": {**recurring._asdict(), "plans": [plan._asdict() for plan in recurring.plans]},
            "days": [day_to_response(day) for day in days],
            "week": {
                "from": str(start),
                "to": str(start + WEEK - timedelta(days=1)),
                "cost": week.cost,
                "models": [model._asdict() for model in week.models],
                "customers": [customer._asdict() for customer in week.customers],
            },
            "target": MARGIN_MIN,
            "definitions": dict(DEFINITIONS),
        }


def day_to_response(day: DayReport) -> JsonObject:
    """Return a day of a business report in the API's form."""
    return {
        "day": str(day.day),
        "usage": day.usage,
        "fees": day.fees,
        "revenue": day.revenue,
        "cost": day.cost,
        "margin": day.margin,
        "is_on_target": day.is_on_target,
    }


def month_to_response(month: MonthReport) -> JsonObject:
    """Return the month of a business report in the API's form."""
    return {
        **{name: value for name, value in month._asdict().items() if name != "sales"},
        **month.sales._asdict(),
        "conversion_rate": month.sales.conversion_rate,
        "mean_purchase": month.sales.mean_purchase,
        "growth": month.growth,
        "month": str(month.month),
        "conversion": month.conversion,
        "churn": month.churn,
        "lifetime_value": month.lifetime_value,
    }


GROUP = Group(
    "reports",
    "Reconciliation, accounting and business figures.",
    ReportHandlers,
    roles=BILLING,
    errors={404: "Billing is not configured."},
    parameters={"date": PathParameter("The day in UTC, such as 2027-01-31.")},
)
