"""The incidents of a month on their own public page. It also has months that the status page no longer shows."""

import re
import time
from typing import NamedTuple

from aiohttp import web

from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.pages import incidents
from edgeproxy.collector.pages.incidents import Incident
from edgeproxy.collector.pages.money import shift_month
from edgeproxy.collector.pages.site import Page, PageError, Site, Visit
from edgeproxy.collector.pages.subscriptions import STATUS
from edgeproxy.collector.problems import page_codes

PATH = "/status/history"
MONTH = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")
MONTHS_MAX = 60
"""Months back from this one that are shown."""
FRESH_SECONDS = 60.0
"""Seconds that a month is served from memory, because requests may come at any rate."""


class MonthIncidents(NamedTuple):
    """The incidents that began in a month, read at the Unix second `at`."""

    at: float
    incidents: list[Incident]


class IncidentHistory:
    """The page of one listener."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._months: dict[str, MonthIncidents] = {}  # At most MONTHS_MAX + 1 recent months and some older ones.

    def pages(self) -> list[Page]:
        """Return the page."""
        return [Page("GET", PATH, "anyone", self.show_month, STATUS)]

    async def show_month(self, visit: Visit) -> web.Response:
        """Show the incidents of a month, by default of the current one."""
        now = time.time()
        newest = time.strftime("%Y-%m", time.gmtime(now))
        oldest = shift_month(newest, -MONTHS_MAX)
        month = visit.request.query.get("month") or newest
        if not MONTH.fullmatch(month) or not oldest <= month <= newest:
            raise PageError(page_codes.PAGE_NOT_FOUND, "there is no such month here")
        return visit.render(
            "incident_history.html",
            month=month,
            incidents=await self._fetch(month, now),
            before=shift_month(month, -1) if month > oldest else None,
            after=shift_month(month, 1) if month < newest else None,
            names_regions=len(self._site.settings.status.watched) != 1,
        )

    async def _fetch(self, month: str, now: float) -> list[Incident]:
        known = self._months.get(month)
        if known is None or now - known.at > FRESH_SECONDS:
            since, until = (int(parse_time(f"{name}-01").timestamp()) for name in (month, shift_month(month, 1)))
            async with self._site.database.reading() as connection:
                known = MonthIncidents(now, await incidents.list_begun(connection, since, until))
            self._months[month] = known
        return known.incidents
