"""The collector itself: its health, metrics and API description."""

import asyncio
import time
from collections.abc import Callable

import orjson
from aiohttp import web
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from edgeproxy.base import bearer, log
from edgeproxy.base.tasks import run_in_thread
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.base.web_listener import PEER
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.endpoint import (
    ANYONE,
    API_USERS,
    EVERYWHERE,
    HTML,
    JSON,
    READERS,
    TEXT,
    Call,
    Nothing,
    Query,
    get,
)
from edgeproxy.collector.api.group import Group, Handlers, PathParameter
from edgeproxy.collector.api.reference import Schema
from edgeproxy.collector.api.reference_pages import POLICY, ReferencePages
from edgeproxy.collector.api.responses import ProblemError, Result
from edgeproxy.collector.billing.reports import status as billing_status
from edgeproxy.collector.database.database import CONNECTION_ERRORS, format_reason
from edgeproxy.collector.database.periodic import JobResult, JobStatus
from edgeproxy.collector.ledger import edges
from edgeproxy.collector.metrics import CONTENT_TYPE
from edgeproxy.collector.problems import page_codes
from edgeproxy.config.addresses import is_loopback
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.tokens import AdminToken


class Ready(TypedDict):
    """The answer to whether the collector accepts batches now."""

    ready: bool
    """The answer to whether the collector accepts batches now."""
    reason: str | None
    """The reason why it does not; null if it does."""


class JobResponse(TypedDict):
    """A job: periodic work that a collector does beside answering requests."""

    name: str
    """The name of the job, as in metrics."""
    period_s: float
    """The pause after each run, in seconds. A job with work left may pause for less."""
    lock: str | None
    """The lock that lets only one of several collectors run the job; null if each collector runs it."""
    holds_jobs: bool
    """True if a run consists of other jobs under this lock. It goes on until the lock is lost or the collector stops.
    """
    running_since: str | None
    """The start of the current run; null if the job pauses."""
    result: JobResult | None
    """The result of the last run: `succeeded`, `failed` (see the log for the reason), or `standby` if another collector
    has the lock; null before the end of the first run.
    """
    ended_at: str | None
    """The end of the last run; null before the end of the first run."""
    took_s: float | None
    """The duration of the last run in seconds; null before the end of the first run."""
    succeeded_at: str | None
    """The end of the last successful run; null if there was none since the collector started."""


class JobList(TypedDict):
    """The jobs of a collector."""

    jobs: list[JobResponse]
    """The jobs, by name."""


class ReferenceQuery(Query):
    """A search of the reference."""

    q: str = Field("", max_length=100, description="Words that an operation must have, in its path or its texts.")


class ApiDescription(TypedDict):
    """The description of the API, with all members of an OpenAPI document."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    openapi: str
    """The OpenAPI version of the description."""


FORWARDED_PREFIXES = ("x-forwarded-", "x-real-ip", "forwarded", "via", "origin")
"""Lower-case prefixes of header fields sent by proxies, and by browsers for web pages."""
READY_TIMEOUT_SECONDS = 2.0
"""Seconds for the answer of a healthy database."""


class ServiceHandlers(Handlers):
    """Handlers of the collector itself."""

    def apply_settings(self, settings: CollectorSettings) -> None:
        """Expose the metrics to the tokens of these settings."""
        self._metric_tokens: bearer.Tokens[AdminToken] | None = None
        if settings.metrics.tokens:
            self._metric_tokens = bearer.Tokens(settings.metrics.tokens)

    @get("/healthz", response_media=(TEXT,), listener_groups=EVERYWHERE)
    async def check_health(self, _: Call[Query, Nothing]) -> web.Response:
        """Check that the collector is alive."""
        return web.Response(text="ok")

    @get("/readyz", listener_groups=EVERYWHERE)
    async def check_readiness(self, _: Call[Query, Nothing]) -> Result[Ready]:
        """Check that the collector accepts batches now."""
        why = self._find_fault()
        if why is None:
            try:
                async with asyncio.timeout(READY_TIMEOUT_SECONDS), self._database.reading() as connection:
                    await connection.exec_driver_sql("SELECT 1")
            except CONNECTION_ERRORS as error:
                why = f"the database does not answer: {format_reason(error)}"
        return Result({"ready": why is None, "reason": why}, status=503 if why else 200)

    def _find_fault(self) -> str | None:
        """Return the reason why no batches can be accepted, as far as known without a query."""
        failure, keyring = self._resources.batches.find_failure(), self._resources.keyring
        if self._resources.unready or failure:
            return self._resources.unready or f"batches cannot be settled: {failure}"
        return None if keyring is None else keyring.find_gap()

    @get(
        "/metrics",
        response_media=(TEXT,),
        errors={401: "The token is missing or unknown."},
        listener_groups=frozenset({"metrics"}),
    )
    async def fetch_metrics(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch the metrics, for Prometheus."""
        if self._metric_tokens is not None:
            try:
                self._metric_tokens.holder(call.request.headers.get("Authorization"), time.time())
            except bearer.InvalidTokenError as error:
                raise auth.deny_token(error) from None
        edge_status = billing = None
        try:
            async with asyncio.timeout(READY_TIMEOUT_SECONDS), self._database.reading(whole=True) as connection:
                edge_status = await edges.fetch_status(connection)
                if self._settings.billing is not None:
                    billing = await billing_status.fetch_status(connection, self._settings.billing, time.time())
        except Exception as error:  # After any error the other metrics are still exposed.
            log.get_logger().warning("what edges are like is not known now", why=format_reason(error))
        tells_money = self._metric_tokens is not None or is_local(call.request)
        is_ready = edge_status is not None and self._find_fault() is None
        exposition = self._metrics.exposition(is_ready, edge_status, billing, tells_money=tells_money)
        return web.Response(body=exposition, headers={"Content-Type": CONTENT_TYPE})

    @get("/v1/jobs", roles=READERS)
    async def list_jobs(self, _: Call[Query, Nothing]) -> JobList:
        """List the periodic jobs of the answering collector, by name, with the last run of each."""
        return {"jobs": list(map(_job_to_response, self._resources.job_log.list_statuses()))}

    @get("/v1/openapi.json", listener_groups=API_USERS)
    async def fetch_description(self, call: Call[Query, Nothing]) -> ApiDescription | web.Response:
        """Fetch the OpenAPI description of this listener's endpoints."""
        return web.Response(body=await call.request.app[DESCRIPTION].fetch_json(), content_type=JSON)

    @get("/docs", response_media=(HTML,), listener_groups=API_USERS)
    async def fetch_reference(self, call: Call[ReferenceQuery, Nothing]) -> web.Response:
        """Show the endpoints of this listener by tag, or search them."""
        pages = await call.request.app[DESCRIPTION].fetch_pages()
        return _show(pages.render_index(call.query.q))

    @get(
        "/docs/{tag}",
        response_media=(HTML,),
        errors={404: "There is no such tag."},
        listener_groups=API_USERS,
    )
    async def fetch_reference_section(self, call: Call[Query, Nothing]) -> web.Response:
        """Show the endpoints of a tag with their types, and forms to try them."""
        page = (await call.request.app[DESCRIPTION].fetch_pages()).find_section(call.path("tag"))
        if page is None:
            raise ProblemError(page_codes.PAGE_NOT_FOUND, "there is no such tag")
        return _show(page)


def _show(page: bytes) -> web.Response:
    """Return a page of the reference. It has no secrets, so it may be compressed."""
    headers = {"Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"}
    response = web.Response(body=page, content_type=HTML, charset="utf-8", headers=headers)
    response.enable_compression()
    return response


class Description:
    """The description of a listener's endpoints, as JSON and as pages. The first request for either builds both."""

    def __init__(self, build: Callable[[], Schema]) -> None:
        self._build = build
        self._built: asyncio.Future[tuple[bytes, ReferencePages]] | None = None
        """Building takes up to a second of CPU, and most collectors never need it."""

    async def fetch_json(self) -> bytes:
        """Return the OpenAPI description as JSON."""
        return (await self._fetch())[0]

    async def fetch_pages(self) -> ReferencePages:
        """Return the reference as HTML pages."""
        return (await self._fetch())[1]

    async def _fetch(self) -> tuple[bytes, ReferencePages]:
        if self._built is None:
            self._built = run_in_thread("describe the endpoints", self._describe)
        # Shielded, because the first request may be cancelled while others wait.
        return await asyncio.shield(self._built)

    def _describe(self) -> tuple[bytes, ReferencePages]:
        document = self._build()
        return orjson.dumps(document), ReferencePages(document)


DESCRIPTION = web.AppKey("description", Description)
"""The description of an application's endpoints."""


def is_local(request: web.Request) -> bool:
    """Return True if a program on this host sent the request directly, neither through a proxy nor from a web page."""
    is_forwarded = any(name.lower().startswith(FORWARDED_PREFIXES) for name in request.headers)
    host = (request.host or "").rpartition("@")[2]
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(request[PEER].address) and is_loopback(name) and not is_forwarded


def _job_to_response(status: JobStatus) -> JobResponse:
    job, last = status.job, status.last
    running_since, ended_at, succeeded_at = (
        None if at is None else format_timestamp(int(at * 1000))
        for at in (status.running_since, status.ended_at, status.succeeded_at)
    )
    return {
        "name": job.name,
        "period_s": job.seconds,
        "lock": job.lock,
        "holds_jobs": job.holds_jobs,
        "running_since": running_since,
        "result": None if last is None else last.result,
        "ended_at": ended_at,
        "took_s": None if last is None else round(last.seconds, 6),
        "succeeded_at": succeeded_at,
    }


GROUP = Group(
    "service",
    "The collector itself: health, metrics, jobs and this description.",
    ServiceHandlers,
    roles=ANYONE,
    parameters={"tag": PathParameter("The tag of the endpoints, such as keys.")},
)
