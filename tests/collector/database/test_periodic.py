"""Jobs: each run is reported, whatever it comes to, and the next one follows after its rest."""

import asyncio
from contextlib import suppress

from edgeproxy.base import log
from edgeproxy.collector.database.periodic import (
    STANDBY,
    Job,
    JobResult,
    JobRun,
    Rest,
    repeat,
    report_runs,
)


def test_each_run_is_reported_and_followed_by_its_rest() -> None:
    outcomes: list[object] = [
        None,
        ValueError("a fault"),
        OSError("away"),
        STANDBY,
        Rest(0.0),
        asyncio.CancelledError(),
    ]
    pending = iter(outcomes)
    runs: list[JobRun] = []

    async def work() -> object:
        outcome = next(pending)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def play() -> None:
        report_runs(runs.append)
        job = Job("some-job", 0.0, "it failed", work)
        with suppress(asyncio.CancelledError):
            await repeat(job, log.RateLimitedLog(60.0))

    asyncio.run(play())
    succeeded, failed, standby = JobResult.SUCCEEDED, JobResult.FAILED, JobResult.STANDBY
    assert [run.result for run in runs] == [succeeded, failed, failed, standby, succeeded]
    assert {run.job.name for run in runs} == {"some-job"}
    assert all(run.seconds >= 0 for run in runs)


def test_a_rest_is_as_long_as_the_work_says() -> None:
    rests = iter([Rest(0.0), Rest(0.0), None])
    count = 0

    async def work() -> object:
        nonlocal count
        count += 1
        return next(rests)

    async def play() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await repeat(Job("some-job", 3600.0, "it failed", work), log.RateLimitedLog(60.0))

    asyncio.run(play())
    assert count == 3, "the rest of the job begins once the work returns none of its own"
