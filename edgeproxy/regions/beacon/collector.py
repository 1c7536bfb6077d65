"""The beacon's way to the collector: reports go there in batches, and it is asked for the best region."""

import asyncio
import ssl
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson

from edgeproxy.base import log
from edgeproxy.regions.latencies import Report

REPORTS_AT_ONCE = 500
WAITING_MAX = 5_000
"""Reports that wait; beyond them the oldest are dropped: the next ones say the same."""
TIMEOUT_SECONDS = 5.0
ANSWERS_MAX = 10_000
"""Answers that are remembered, for ANSWER_SECONDS each."""
ANSWER_SECONDS = 60.0

Best = dict[str, Any]


class Away(Exception):
    """The collector does not answer as it should; the text says why."""


class Collector:
    """One collector, asked over connections that are kept."""

    def __init__(self, url: str, token: str, tls: ssl.SSLContext, server_name: str | None) -> None:
        self._url = url
        self._fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._server_name = server_name
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=8),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        )
        self._waiting: deque[Report] = deque(maxlen=WAITING_MAX)
        self._answers: OrderedDict[tuple[str, str | None], tuple[float, Best]] = OrderedDict()
        self._log = log.RateLimitedLog(60.0)

    def put(self, report: Report) -> None:
        """Send a report with the next batch."""
        self._waiting.append(report)

    async def run(self, every: float) -> None:
        """Send what waits again and again, until cancelled."""
        while True:
            await asyncio.sleep(every)
            await self.send()

    async def send(self) -> None:
        """Send all that waits now; what the collector cannot be given waits on."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(REPORTS_AT_ONCE, len(self._waiting)))]
            try:
                await self._ask("POST", "/v1/regions/reports", orjson.dumps({"reports": [r._asdict() for r in batch]}))
            except Away as error:
                self._log.error("reports cannot be sent on", "reports", why=str(error))
                for report in reversed(batch[: WAITING_MAX - len(self._waiting)]):
                    self._waiting.appendleft(report)
                return

    def known(self, network: str, country: str | None, now: float) -> Best | None:
        """Return what the collector said lately of clients of a network; None where it did not."""
        kept = self._answers.get((network, country))
        return kept[1] if kept is not None and now - kept[0] < ANSWER_SECONDS else None

    async def best(self, network: str, country: str | None, now: float) -> Best:
        """Ask the collector for the best region for clients of a network; raises Away."""
        about = (network, country)
        query = {"address": network} | ({"country": country} if country else {})
        found = await self._ask("GET", f"/v1/regions/best?{urlencode(query)}")
        self._answers[about] = (now, found)
        self._answers.move_to_end(about)
        if len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)
        return found

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> Best:
        try:
            async with self._session.request(
                *(method, self._url + path),
                data=body,
                headers=self._fields,
                allow_redirects=False,
                server_hostname=self._server_name,
            ) as answer:
                said = await answer.read()
                if answer.status != 200:
                    raise Away(f"the collector answered {answer.status}: {detail(said)}")
                found = orjson.loads(said)
        except (OSError, aiohttp.ClientError, ValueError) as error:  # TimeoutError is the first, bad JSON the last.
            raise Away(str(error) or "no answer in time") from None
        if not isinstance(found, dict):
            raise Away("the collector does not answer as a collector does")
        return found

    async def close(self) -> None:
        """Send what waits, once, and close the connections."""
        await self.send()
        await self._session.close()


def detail(said: bytes) -> str:
    """Say why, as a problem has it (RFC 9457)."""
    try:
        problem: Mapping[str, Any] = orjson.loads(said)
        return str(problem["detail"])[:200]
    except (ValueError, LookupError, TypeError):
        return "no reason given"
