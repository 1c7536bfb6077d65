"""A report is shown while the next one is computed, but never one that is far too old."""

import asyncio
import time

import pytest

from edgeproxy.collector.api import cached_reports
from edgeproxy.collector.api.cached_reports import OLD_FACTOR, CachedReport, ReportCache, ReportNotReadyError


@pytest.mark.parametrize(("age", "is_shown"), [(0.5, True), (OLD_FACTOR - 0.5, True), (OLD_FACTOR + 0.5, False)])
async def test_an_old_report_is_shown_only_until_it_is_far_too_old(
    monkeypatch: pytest.MonkeyPatch, age: float, is_shown: bool
) -> None:
    monkeypatch.setattr(cached_reports, "WAIT_SECONDS", 0.01)

    release = asyncio.Event()

    async def compute(key: str) -> str:
        await release.wait()
        return f"new {key}"

    cache: ReportCache[str, str] = ReportCache("test", compute, 100.0)
    cache._reports["k"] = CachedReport("old k", time.time() - 100.0 * age, 100.0)
    if is_shown:
        assert (await cache.get("k")).value == "old k"
    else:
        with pytest.raises(ReportNotReadyError):
            await cache.get("k")
    release.set()
    if age > 1:
        await asyncio.gather(*cache._under_way.values())
        assert (await cache.get("k")).value == "new k"
    await cache.end()


async def test_a_request_gets_the_next_report_where_that_takes_a_moment() -> None:
    async def compute(key: str) -> str:
        return f"new {key}"

    cache: ReportCache[str, str] = ReportCache("test", compute, 100.0)
    cache._reports["k"] = CachedReport("old k", time.time() - 150.0, 100.0)
    assert (await cache.get("k")).value == "new k", "old figures are not shown first"
    await cache.end()
