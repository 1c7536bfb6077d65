"""The public status page as HTML, JSON and an Atom feed.

All three are rendered at intervals and served from memory, so that they work without the database. None contains data
about a customer.
"""

import asyncio
import contextlib
import gzip
import hashlib
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlencode

import orjson
from aiohttp import web
from babel import Locale

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import run_guarded
from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.languages.catalogs import LANGUAGES
from edgeproxy.collector.languages.reader import Reader, choose_reader
from edgeproxy.collector.pages import availability, checks, incidents, maintenance, public_usage, rendering
from edgeproxy.collector.pages.availability import RegionAvailability
from edgeproxy.collector.pages.brand_files import NO_BRAND, BrandFiles
from edgeproxy.collector.pages.checks import RegionChecks, Row
from edgeproxy.collector.pages.choices import LANGUAGE_COOKIE
from edgeproxy.collector.pages.incident_feed import render_feed
from edgeproxy.collector.pages.incidents import Incident
from edgeproxy.collector.pages.maintenance import Maintenance
from edgeproxy.collector.pages.public_usage import PublicUsage
from edgeproxy.collector.pages.site import CHOICE_SECONDS
from edgeproxy.collector.pages.status_parts import PartState, list_parts
from edgeproxy.config.collector.pages import StatusPage

REFRESH_SECONDS = 15.0
"""Seconds between two reads of the database."""
STALE_SECONDS = 120.0
"""Older snapshots are marked as old on the page."""
FIRST_RENDER_SECONDS = 10.0
"""Seconds that requests wait for the first rendering after a start. On a busy host it takes some."""
CACHEABLE = {"Cache-Control": "public, max-age=15, stale-if-error=86400"}
CROSS_ORIGIN = {
    **rendering.SECURITY,
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


class StatusSnapshot(NamedTuple):
    """Checks, incidents and maintenance from the database at the Unix second `at`; 0 before the first read."""

    counts: Mapping[Row, int]
    incidents: list[Incident]
    at: float
    usage: Sequence[tuple[str, int]] = ()
    """Public meters with their usage."""
    maintenance: Sequence[Maintenance] = ()
    """Planned maintenance, latest first, with its states at the displayed time."""


class CachedAnswer(NamedTuple):
    """A rendered response, plain and compressed."""

    body: bytes
    zipped: bytes
    tag: str
    """The value of ETag."""
    media: str

    @classmethod
    def render(cls, text: str | bytes, media: str) -> "CachedAnswer":
        """Compress a body and compute its tag."""
        body = text.encode() if isinstance(text, str) else text
        return cls(body, gzip.compress(body, 6, mtime=0), f'"{hashlib.sha256(body).hexdigest()[:16]}"', media)


class StatusPages:
    """The rendered status and its handlers."""

    def __init__(
        self,
        database: Database,
        settings: StatusPage,
        url: str,
        region_checks: RegionChecks,
        brand: BrandFiles = NO_BRAND,
    ) -> None:
        self._database = database
        self._settings = settings
        self._url = url
        self._checks = region_checks
        self._brand = brand
        self._snapshot = StatusSnapshot({}, [], 0.0)
        self._usage = PublicUsage(settings.usage)
        self.answers: dict[str, CachedAnswer] = {}
        """The rendered responses, by `page LANGUAGE`, `json` and `feed`."""
        self._rendered = asyncio.Event()
        """Set once there are responses."""
        self._log = log.RateLimitedLog(600.0)

    def add_to(self, application: web.Application) -> None:
        """Add the routes."""
        for path, handler in (
            ("/status", self.answer_page),
            ("/status.json", self.answer_json),
            ("/status.atom", self.answer_feed),
        ):
            application.router.add_get(path, handler)  # With HEAD.

    async def run(self) -> None:
        """Refresh at intervals, and when a region begins or ceases to answer, until cancelled."""
        while True:
            self._checks.changed.clear()
            await self.refresh(time.time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._checks.changed.wait(), REFRESH_SECONDS)

    async def refresh(self, now: float) -> None:
        """Read the database and render all responses. If it is unavailable, the last snapshot is rendered."""
        await run_guarded(self._log, "the status cannot be read, and is shown as it was", self._fetch_snapshot(now))
        await run_guarded(
            self._log, "the status cannot be rendered, and is shown as it was", self._replace_answers(now)
        )

    async def _replace_answers(self, now: float) -> None:
        last, since = dict(self._checks.last), dict(self._checks.failing_since)  # Copies, because a thread reads them.
        self.answers = await asyncio.to_thread(self._render, last, since, now)
        self._rendered.set()

    async def _fetch_snapshot(self, now: float) -> None:
        today = int(now) // DAY * DAY
        async with self._database.reading() as connection:
            counts = await checks.fetch_counts(connection, today - availability.DAYS * DAY)
            known = await incidents.list_incidents(connection, now)
            planned = await maintenance.list_maintenance(connection, now)
        self._snapshot = StatusSnapshot(counts, known, now, self._snapshot.usage, planned)
        if self._settings.usage:
            async with self._database.reading(whole=True) as connection:
                await self._usage.refresh(connection, now)
            self._snapshot = self._snapshot._replace(usage=self._usage.list_totals())

    def _render(self, last: Mapping[str, bool], since: Mapping[str, float], now: float) -> dict[str, CachedAnswer]:
        """Return all responses by name. `last` has the last outcomes, `since` the times when regions began to fail."""
        planned = [maintenance.at_time(one, now) for one in self._snapshot.maintenance]
        snapshot = self._snapshot._replace(maintenance=planned)
        regions = availability.compute_regions(snapshot.counts, self._settings, last, now, since)
        answers = {
            f"page {language}": CachedAnswer.render(
                render_page(
                    Reader(language, Locale.parse(language)), self._settings, regions, snapshot, now, self._brand
                ),
                "text/html",
            )
            for language in LANGUAGES
        }
        answers["json"] = CachedAnswer.render(format_status(self._settings, regions, snapshot), "application/json")
        answers["feed"] = CachedAnswer.render(
            render_feed(self._settings.name, self._url, snapshot.incidents, planned), "application/atom+xml"
        )
        return answers

    async def answer_page(self, request: web.Request) -> web.Response:
        """Return the page in the reader's language."""
        chosen = request.query.get("lang")
        language = choose_language(
            chosen or request.cookies.get(LANGUAGE_COOKIE), request.headers.get("Accept-Language")
        )
        answer = await self._answer(request, f"page {language}", rendering.SECURITY)
        answer.headers["Vary"] = "Accept-Language, Accept-Encoding, Cookie"
        if chosen in LANGUAGES:
            answer.set_cookie(LANGUAGE_COOKIE, chosen, max_age=CHOICE_SECONDS, httponly=True, samesite="Lax")
            answer.headers["Cache-Control"] = "no-store"
        return answer

    async def answer_json(self, request: web.Request) -> web.Response:
        """Return the status as JSON."""
        return await self._answer(request, "json", CROSS_ORIGIN)

    async def answer_feed(self, request: web.Request) -> web.Response:
        """Return the incidents as an Atom feed (RFC 4287)."""
        return await self._answer(request, "feed", CROSS_ORIGIN)

    async def _answer(self, request: web.Request, name: str, fields: Mapping[str, str]) -> web.Response:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_RENDER_SECONDS):
                await self._rendered.wait()
        answer = self.answers.get(name)
        if answer is None:
            headers = {**fields, **rendering.PRIVATE, "Retry-After": "5"}
            return web.Response(status=503, text="The status is not known yet.", headers=headers)
        headers = {**fields, **CACHEABLE, "ETag": answer.tag, "Vary": "Accept-Encoding"}
        if request.headers.get("If-None-Match") == answer.tag:
            return web.Response(status=304, headers=headers)
        body = answer.body
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"], body = "gzip", answer.zipped
        return web.Response(body=body, content_type=answer.media, charset="utf-8", headers=headers)


@lru_cache(1000)
def choose_language(chosen: str | None, accepted: str | None) -> str:
    """Return the language of a reader: the chosen one, or else by Accept-Language."""
    return choose_reader(chosen, accepted).language


def render_page(
    reader: Reader,
    settings: StatusPage,
    regions: list[RegionAvailability],
    snapshot: StatusSnapshot,
    now: float,
    brand: BrandFiles = NO_BRAND,
) -> str:
    """Return the HTML of the page. The layout's values about a signed-in reader are empty."""
    age = now - snapshot.at
    return rendering.render_template(
        "status.html",
        reader,
        name=settings.name,
        brand=brand,
        who=None,
        form_token="",
        once="",
        path="/status",
        done="",
        navigation=[],
        theme="",
        build_link=lambda **changes: f"?{urlencode(changes)}",
        has_status=True,
        refusal=None,
        is_restored=False,
        notice=None,
        currencies=[],
        beside=None,
        regions=regions,
        parts=list_parts(regions, snapshot.incidents, snapshot.maintenance),
        subscribe=settings.subscribe,
        **split_by_time(snapshot, regions),
        usage=snapshot.usage,
        usage_days=public_usage.DAYS,
        known_at=snapshot.at or None,
        age=age if age > STALE_SECONDS else None,
        days=availability.DAYS,
        level=classify_day,
    )


def split_by_time(snapshot: StatusSnapshot, regions: list[RegionAvailability]) -> dict[str, object]:
    """Return ongoing and ended incidents and maintenance, and the days with maintenance."""
    listed = snapshot.maintenance
    return {
        "ongoing": [incident for incident in snapshot.incidents if incident["ended_at"] is None],
        "ended": [incident for incident in snapshot.incidents if incident["ended_at"] is not None],
        "planned": [one for one in listed if one["state"] in ("scheduled", "in_progress")],
        "past": [one for one in listed if one["state"] in ("completed", "cancelled")],
        "maintained": maintenance.list_days(listed, [region.name for region in regions]),
    }


def classify_day(available: float | None, objective: float) -> str:
    """Return the state of a day's bar (charts.draw_days), from its availability and the objective."""
    if available is None:
        return "n"
    if available >= objective:
        return "o"
    return "w" if available >= 1 - 10 * (1 - objective) else "b"


def format_status(settings: StatusPage, regions: list[RegionAvailability], snapshot: StatusSnapshot) -> bytes:
    """Return the status as JSON."""
    maintained = maintenance.list_days(snapshot.maintenance, [region.name for region in regions])
    states = {part.name: part.state for part in list_parts(regions, snapshot.incidents, snapshot.maintenance)}
    formatted = {region.name: format_part(region, states[region.name], maintained) for region in regions}
    return orjson.dumps(
        {
            "name": settings.name,
            "as_of": format_time(snapshot.at) if snapshot.at else None,
            "objectives": {"availability": settings.availability, "fast": settings.fast, "days": availability.DAYS},
            "regions": [{"region": name, **formatted[name]} for name in formatted if name in settings.regions],
            "components": [{"component": name, **formatted[name]} for name in settings.components],
            "incidents": snapshot.incidents,
            "maintenance": snapshot.maintenance,
            **({"usage": {"days": public_usage.DAYS, "meters": dict(snapshot.usage)}} if settings.usage else {}),
        },
        option=orjson.OPT_INDENT_2,
    )


def format_part(region: RegionAvailability, state: PartState, maintained: frozenset[tuple[str, int]]) -> JsonObject:
    """Return the JSON object of a region or component without its name. `maintained` are days from list_days."""
    return {
        "state": state,
        "is_well": region.is_well,
        "availability": region.available,
        "error_budget_left": region.budget_left,
        "fast": region.fast_share,
        "fast_within_ms": round(region.latency * 1000),
        "median_ms": region.median_ms,
        "p95_ms": region.p95_ms,
        "checks": region.total,
        "days": [
            {
                "date": format_time(day.second)[:10],
                "checks": day.total,
                "failed": day.failed,
                "maintenance": (region.name, day.second) in maintained,
            }
            for day in region.days
            if day.total
        ],
    }


def format_time(second: float) -> str:
    """Return a Unix second as RFC 3339."""
    return datetime.fromtimestamp(int(second), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
