"""Figures that take long to work out: how the business goes, and who is refused most. They are told with their age."""

import time
from datetime import date, timedelta
from typing import Any

from aiohttp import web

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.api.cached_reports import CachedReport, ReportCache, ReportNotReadyError
from edgeproxy.collector.api.endpoint import Call, Nothing
from edgeproxy.collector.api.figure_models import ExecutiveQuery, RefusalsQuery
from edgeproxy.collector.api.responses import ProblemError, answer
from edgeproxy.collector.billing.credits import statements
from edgeproxy.collector.billing.reports import business_report as executive
from edgeproxy.collector.billing.reports.business_report import DEFINITIONS, DayReport, MonthReport
from edgeproxy.collector.billing.rollout.gates import MARGIN_MIN
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.ledger import refusals
from edgeproxy.collector.ledger.refusals import RefusalReport
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.meters import MEASURES

EXECUTIVE_SECONDS = 300.0
REFUSALS_SECONDS = 60.0
"""Seconds for which figures are told as they are."""
WORKED_OUT = "the figures are being worked out: ask again in a moment"
AGAIN = {"Retry-After": "2"}
WEEK = timedelta(days=7)


class FigureHandlers:
    """Tells figures."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._settings: CollectorSettings
        self._executive = ReportCache("executive figures", self._work_out, EXECUTIVE_SECONDS)
        self._refusals = ReportCache("refusals", self._refused, REFUSALS_SECONDS)

    def use(self, settings: CollectorSettings) -> None:
        """Tell the figures of what these have."""
        self._settings = settings

    async def end(self) -> None:
        """Work out nothing more."""
        await self._executive.end()
        await self._refusals.end()

    # ---- the business

    async def executive(self, call: Call[ExecutiveQuery, Nothing]) -> web.Response:
        """Tell revenue, cost and margin of the days of a month, its last week, and the month itself."""
        if self._settings.billing is None:
            raise ProblemError(404, "nothing is sold here: there is no billing in the collector's file")
        try:
            month = statements.parse_month(call.query.month or f"{executive.date_of(int(time.time())):%Y-%m}")
        except ValueError as error:
            raise ProblemError(400, f"month: {error}") from None
        if month.begin > time.time() * 1000:
            raise ProblemError(400, "month: has not begun")
        return _answer_report(await _get_report(self._executive, month))

    async def _work_out(self, month: statements.CalendarMonth) -> dict[str, Any]:
        billing, now = self._settings.billing, time.time()
        cogs = {} if billing is None or billing.credits is None else billing.credits.cogs
        first, today = date(month.year, month.month, 1), executive.date_of(int(now))
        last = min(executive.date_of(month.end // 1000 - 1), today)
        async with self._database.reading(whole=True) as connection:
            days = await executive.fetch_days(connection, first, last, now, cogs)
        # The last seven days that are over.
        start = (last if last < today else today - timedelta(days=1)) - WEEK + timedelta(days=1)
        async with self._database.reading(whole=True) as connection:
            week = await executive.fetch_week(connection, start, cogs)
        async with self._database.reading(whole=True) as connection:
            whole = await executive.fetch_month(connection, month, now, cogs)
        return {
            "month": _month_to_response(whole),
            "days": [_day_to_response(day) for day in days],
            "week": {
                "from": str(start),
                "to": str(start + WEEK - timedelta(days=1)),
                "cost": week.cost,
                "models": [one._asdict() for one in week.models],
                "customers": [one._asdict() for one in week.customers],
            },
            "target": MARGIN_MIN,
            "definitions": dict(DEFINITIONS),
        }

    # ---- refusals

    async def refusals(self, call: Call[RefusalsQuery, Nothing]) -> web.Response:
        """Tell who was refused most in the last hours, by which limits, and how much of it was not certain."""
        return _answer_report(await _get_report(self._refusals, call.query.hours))

    async def _refused(self, hours: int) -> dict[str, Any]:
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


async def _get_report(figures: "ReportCache[Any, dict[str, Any]]", key: Any) -> CachedReport[dict[str, Any]]:
    """Return figures; raises ProblemError while they are worked out for the first time."""
    try:
        return await figures.get(key)
    except ReportNotReadyError:
        raise ProblemError(429, WORKED_OUT, headers=AGAIN) from None


def _answer_report(report: CachedReport[dict[str, Any]]) -> web.Response:
    return answer(200, {"as_of": format_timestamp(int(report.at * 1000)), **report.value})


def _day_to_response(day: DayReport) -> dict[str, Any]:
    return {
        "day": str(day.day),
        "usage": day.usage,
        "fees": day.fees,
        "revenue": day.revenue,
        "cost": day.cost,
        "margin": day.margin,
        "is_on_target": day.is_on_target,
    }


def _month_to_response(month: MonthReport) -> dict[str, Any]:
    return {
        **month._asdict(),
        "month": str(month.month),
        "conversion": month.conversion,
        "churn": month.churn,
        "lifetime_value": month.lifetime_value,
    }
