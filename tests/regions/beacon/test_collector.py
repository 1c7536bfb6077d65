"""The beacon's client of the collector: one report that the collector rejects does not stop the others."""

import asyncio
from typing import Any

import orjson
import pytest
from aiohttp import web

from edgeproxy.base.trust import TlsFiles
from edgeproxy.regions.beacon.collector import QUEUED_MAX, REPORTS_AT_ONCE, Collector
from edgeproxy.regions.latencies import Report

BODY_BYTES_MAX = 256 << 10
"""The collector's bound of a body of JSON."""


class Api:
    """Takes reports as a collector does: a body has a bound, and a report of the voter "odd" is rejected."""

    def __init__(self, status: int) -> None:
        self.voters: list[str] = []
        self.calls = 0
        self._status = status

    async def ingest(self, request: web.Request) -> web.Response:
        self.calls += 1
        body = await request.read()
        if len(body) > BODY_BYTES_MAX:
            return web.json_response({"detail": "too large"}, status=413)
        voters = [report["voter"] for report in orjson.loads(body)["reports"]]
        if "odd" in voters:
            return web.json_response({"detail": "odd"}, status=self._status)
        self.voters += voters
        return web.json_response({"taken": len(voters)})


async def send(api: Api, reports: list[Report]) -> Collector:
    """Send reports once."""
    application = web.Application(client_max_size=1 << 30)
    application.router.add_post("/v1/regions/reports", api.ingest)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    collector = Collector(f"http://127.0.0.1:{port}", "token", TlsFiles(), None)
    for report in reports:
        collector.enqueue(report)
    await collector.close()
    await runner.cleanup()
    return collector


def create_report(voter: str, **measured: Any) -> Report:
    return Report("192.0.2.0/24", voter, measured or {"eu": 1.0})


@pytest.mark.parametrize("status", [400, 422])
def test_rejected_report_is_dropped_and_all_others_arrive(status: int) -> None:
    reports = [create_report(str(number)) for number in range(REPORTS_AT_ONCE)]
    reports.insert(77, create_report("odd"))
    api = Api(status)
    asyncio.run(send(api, reports))
    assert api.voters == [str(number) for number in range(REPORTS_AT_ONCE)]
    assert api.calls < 30


def test_batch_beyond_the_collectors_bound_is_sent_in_parts() -> None:
    long = {f"region-{number:02}-{'x' * 40}": 1234.567890123456 for number in range(16)}
    reports = [create_report(str(number), **long) for number in range(2 * REPORTS_AT_ONCE)]
    api = Api(400)
    asyncio.run(send(api, reports))
    assert api.voters == [str(number) for number in range(2 * REPORTS_AT_ONCE)]
    assert len(reports) < QUEUED_MAX
