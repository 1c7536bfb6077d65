"""Jobs: each run is reported, whatever it comes to, and the next one follows after its rest."""

import asyncio
from contextlib import suppress

import pytest

from edgeproxy.base import log
from edgeproxy.collector.database import periodic
from edgeproxy.collector.database.periodic import (
    STANDBY,
    Job,
    JobLog,
    JobResult,
    JobRun,
    Rest,
    repeat,
    report_runs,
)


async def test_each_run_is_reported_and_followed_by_its_rest() -> None:
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

    job_log = JobLog(runs.append)

    report_runs(job_log)
    job = Job("some-job", 0.0, "it failed", work)
    with suppress(asyncio.CancelledError):
        await repeat(job, log.RateLimitedLog(60.0))
    assert job_log.list_statuses() == [], "a job that has ended is no job of this process any more"
    succeeded, failed, standby = JobResult.SUCCEEDED, JobResult.FAILED, JobResult.STANDBY
    assert [run.result for run in runs] == [succeeded, failed, failed, standby, succeeded]
    assert {run.job.name for run in runs} == {"some-job"}
    assert all(run.seconds >= 0 for run in runs)


def test_job_log_lists_running_jobs_and_each_last_run() -> None:
    job_log = JobLog()
    failing, running = (Job(name, 60.0, "it failed", asyncio.Event().wait) for name in ("b-failing", "a-running"))
    for job, result in ((failing, JobResult.SUCCEEDED), (failing, JobResult.FAILED)):
        job_log.begin_run(job)
        job_log.end_run(JobRun(job, result, 2.0))
    job_log.begin_run(running)
    first, second = job_log.list_statuses()
    assert (first.job.name, first.last, first.ended_at, first.succeeded_at) == ("a-running", None, None, None)
    assert first.running_since is not None
    assert (second.last, second.running_since) == (JobRun(failing, JobResult.FAILED, 2.0), None)
    assert second.succeeded_at is not None
    assert second.ended_at is not None
    assert second.succeeded_at <= second.ended_at


async def test_a_rest_is_as_long_as_the_work_says() -> None:
    rests = iter([Rest(0.0), Rest(0.0), None])
    count = 0

    async def work() -> object:
        nonlocal count
        count += 1
        return next(rests)

    with suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await repeat(Job("some-job", 3600.0, "it failed", work), log.RateLimitedLog(60.0))
    assert count == 3, "the rest of the job begins once the work returns none of its own"


def test_job_runs_first_after_the_jobs_that_it_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> list[str]:
        report_runs(JobLog())
        runs: asyncio.Queue[str] = asyncio.Queue()
        may_end = asyncio.Event()

        async def lead() -> None:
            await may_end.wait()
            await runs.put("leader")

        def build(name: str, *follows: str) -> Job:
            return Job(name, 60.0, "it failed", lambda: runs.put(name), follows=follows)

        leader = Job("leader", 60.0, "it failed", lead)
        limited_log = log.RateLimitedLog(60.0)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            tasks = [group.create_task(repeat(job, limited_log)) for job in (build("follower", "leader"), leader)]
            tasks.append(group.create_task(repeat(build("free"), limited_log)))
            order = [await runs.get()]
            may_end.set()
            order += [await runs.get(), await runs.get()]
            # A job that runs at another collector blocks others for a limited time only.
            monkeypatch.setattr(periodic, "FOLLOW_SECONDS", 0.001)
            tasks.append(group.create_task(repeat(build("alone", "elsewhere"), limited_log)))
            order.append(await runs.get())
            for task in tasks:
                task.cancel()
        return order

    assert asyncio.run(play()) == ["free", "leader", "follower", "alone"]
