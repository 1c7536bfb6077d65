"""The beacon's client of the collector: sends reports in batches, and fetches best regions."""

import asyncio
from collections import OrderedDict, deque
from urllib.parse import urlencode

import aiohttp
import orjson

from edgeproxy.base import log
from edgeproxy.base.http_peer import HttpPeer, open_session
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.trust import TlsFiles
from edgeproxy.regions.latencies import Report

REPORTS_AT_ONCE = 500
REJECTED_STATUSES = (400, 413, 422)
"""Statuses of a batch that the collector will never accept: it is malformed or too large."""
QUEUED_MAX = 5_000
"""The most queued reports. Beyond them the oldest are dropped, because later reports repeat the data."""
PEER = HttpPeer("the collector", 5.0, 1 << 20)
CACHED_MAX = 10_000
"""The most cached best regions."""
CACHE_SECONDS = 60.0


class CollectorUnavailableError(Exception):
    """The collector does not answer, or answers with an error; the text gives the reason."""


class RejectedReportsError(CollectorUnavailableError):
    """The collector rejects the reports of a batch, and would reject them again."""


class Collector:
    """A client of one collector, over persistent connections."""

    def __init__(self, url: str, token: str, tls: TlsFiles, server_name: str | None) -> None:
        self._url = url
        self._fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._server_name = server_name
        self._session = open_session(PEER, tls=tls, limit=8)
        self._queue: deque[Report] = deque(maxlen=QUEUED_MAX)
        self._at_once = REPORTS_AT_ONCE
        """The size of the next batch: half as many after a rejection, twice as many after a success."""
        self._cache: OrderedDict[tuple[str, str | None], tuple[float, JsonObject]] = OrderedDict()
        self._log = log.RateLimitedLog(60.0)

    def enqueue(self, report: Report) -> None:
        """Send a report with the next batch."""
        self._queue.append(report)

    async def run(self, every: float) -> None:
        """Send the queued reports every `every` seconds, until cancelled."""
        while True:
            await asyncio.sleep(every)
            await self.send()

    async def send(self) -> None:
        """Send the queued reports. Reports that cannot be sent stay queued.

        A single report that the collector rejects is dropped, so that it does not stop the others.
        """
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(self._at_once, len(self._queue)))]
            try:
                await self._request(
                    "POST", "/v1/regions/reports", orjson.dumps({"reports": [report._asdict() for report in batch]})
                )
            except RejectedReportsError as error:
                if len(batch) == 1:
                    self._log.error("a report is dropped", "rejected", why=str(error))
                    continue
                self._at_once = len(batch) // 2
                self._put_back(batch)
            except CollectorUnavailableError as error:
                self._log.error("reports cannot be sent on", "reports", why=str(error))
                self._put_back(batch)
                return
            else:
                self._at_once = min(2 * self._at_once, REPORTS_AT_ONCE)

    def _put_back(self, batch: list[Report]) -> None:
        """Put these reports at the front of the queue, as far as there is room."""
        for report in reversed(batch[: QUEUED_MAX - len(self._queue)]):
            self._queue.appendleft(report)

    def find_cached_best(self, network: str, country: str | None, now: float) -> JsonObject | None:
        """Return the cached best region of a network; None if it is missing or too old."""
        fetched_at, best = self._cache.get((network, country), (0.0, None))
        return best if best is not None and now - fetched_at < CACHE_SECONDS else None

    async def fetch_best(self, network: str, country: str | None, now: float) -> JsonObject:
        """Fetch the best region of a network from the collector; raises CollectorUnavailableError."""
        query = {"address": network} | ({"country": country} if country else {})
        best = await self._request("GET", f"/v1/regions/best?{urlencode(query)}")
        self._cache[network, country] = (now, best)
        self._cache.move_to_end((network, country))
        if len(self._cache) > CACHED_MAX:
            self._cache.popitem(last=False)
        return best

    async def _request(self, method: str, path: str, body: bytes | None = None) -> JsonObject:
        try:
            async with self._session.request(
                *(method, self._url + path),
                data=body,
                headers=self._fields,
                allow_redirects=False,
                server_hostname=self._server_name,
            ) as answer:
                content = await answer.read()
                if answer.status != 200:
                    kind = RejectedReportsError if answer.status in REJECTED_STATUSES else CollectorUnavailableError
                    raise kind(f"the collector answered {answer.status}: {format_detail(content)}")
                document = orjson.loads(content)
        except (OSError, aiohttp.ClientError, ValueError) as error:  # TimeoutError is the first, bad JSON the last.
            raise CollectorUnavailableError(str(error) or "no answer in time") from None
        if not isinstance(document, dict):
            raise CollectorUnavailableError("the collector does not answer as a collector does")
        return document

    async def close(self) -> None:
        """Send the queued reports once, and close the connections."""
        await self.send()
        await self._session.close()


def format_detail(body: bytes) -> str:
    """Return the detail of a problem (RFC 9457)."""
    try:
        return str(orjson.loads(body)["detail"])[:200]
    except (ValueError, LookupError, TypeError):
        return "no reason given"
