"""Jobs: work that a process repeats while it serves, even if single runs fail.

The `JobLog` that `report_runs` set in the job's context records each run.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import nullcontext
from contextvars import ContextVar
from enum import StrEnum
from typing import NamedTuple

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database, format_reason
from edgeproxy.collector.database.precedence import giving_way
from edgeproxy.collector.database.single_runner import JobLock, LockLostError, acquire_lock
from edgeproxy.tracing.recorder import trace

FOLLOW_SECONDS = 60.0
"""The longest time that a job waits after a start for the jobs that it follows, in seconds."""


async def run_guarded(
    limited_log: log.RateLimitedLog, failed: str, work: Awaitable[object], *expected: type[Exception]
) -> bool:
    """Await `work`. Return True on success; otherwise log `failed` with the reason and return False.

    The traceback is logged too, unless the database is unavailable or the exception is one of `expected`.
    """
    try:
        await work
    except (*CONNECTION_ERRORS, *expected) as error:
        limited_log.error(failed, format_reason(error))
    except Exception as unexpected_error:
        limited_log.error(failed, repr(unexpected_error), exc_info=unexpected_error)
    else:
        return True
    return False


class JobResult(StrEnum):
    """The outcome of a run of a job."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STANDBY = "standby"
    """Another collector runs the job now."""


class Rest(NamedTuple):
    """The return value of a job that pauses for other than its usual time."""

    seconds: float


class Job(NamedTuple):
    """Work that is repeated."""

    name: str
    """Name in metrics, in lower case with hyphens."""
    seconds: float
    """The pause after each run, unless the work returns a `Rest`."""
    failure: str
    """Log message of a failed run."""
    work: Callable[[], Awaitable[object]]
    expected: tuple[type[Exception], ...] = ()
    """Errors that are logged without a traceback."""
    lock: str | None = None
    """Only one collector runs the job, under this lock; None: every collector runs it."""
    gives_way: bool = True
    """True if it waits for page requests. False if a caller waits for the job itself."""
    holds_jobs: bool = False
    """True if a run consists of other jobs under its lock, and lasts until the lock is lost."""
    follows: tuple[str, ...] = ()
    """Names of jobs whose results it needs: its first run after a start waits for their first runs."""


class JobRun(NamedTuple):
    """A finished run of a job."""

    job: Job
    result: JobResult
    seconds: float


class JobStatus(NamedTuple):
    """The status of a job in this process. Times are Unix seconds, or None if there was no such run yet."""

    job: Job
    running_since: float | None
    """The start of the current run, or None between runs."""
    last: JobRun | None
    ended_at: float | None
    """The end of the last run."""
    succeeded_at: float | None
    """The end of the last successful run."""


class JobLog:
    """The jobs of a process with the last run of each. `on_run` is called with each finished run."""

    def __init__(self, on_run: Callable[[JobRun], None] = lambda _: None) -> None:
        self._on_run = on_run
        self._statuses: dict[str, JobStatus] = {}
        self._run_ended = asyncio.Event()

    async def wait_for_runs(self, names: Collection[str]) -> None:
        """Wait until each of these jobs has run here, but at most FOLLOW_SECONDS: another collector may run them."""
        try:
            async with asyncio.timeout(FOLLOW_SECONDS):
                while not all(name in self._statuses and self._statuses[name].last for name in names):
                    await self._run_ended.wait()
        except TimeoutError:
            pass

    def begin_run(self, job: Job) -> None:
        """Record that a run begins."""
        before = self._statuses.get(job.name) or JobStatus(job, None, None, None, None)
        self._statuses[job.name] = before._replace(running_since=time.time())

    def end_run(self, run: JobRun) -> None:
        """Record that a run has finished."""
        now, before = time.time(), self._statuses[run.job.name]
        succeeded_at = now if run.result is JobResult.SUCCEEDED else before.succeeded_at
        self._statuses[run.job.name] = JobStatus(run.job, None, run, now, succeeded_at)
        ended, self._run_ended = self._run_ended, asyncio.Event()
        ended.set()
        self._on_run(run)

    def remove_job(self, job: Job) -> None:
        """Remove a job that has ended, for example because its lock was lost."""
        self._statuses.pop(job.name, None)

    def list_statuses(self) -> list[JobStatus]:
        """Return the status of each job, by name."""
        return [self._statuses[name] for name in sorted(self._statuses)]


STANDBY = object()
"""The return value of `run_exclusively` if another collector runs the job."""
_JOB_LOG: ContextVar[JobLog | None] = ContextVar("the log of the jobs of this context", default=None)


def report_runs(job_log: JobLog) -> None:
    """Record the runs of all jobs that are started in this context from now on."""
    _JOB_LOG.set(job_log)


async def repeat(job: Job, limited_log: log.RateLimitedLog) -> None:
    """Run a job repeatedly, with a pause after each run, until cancelled."""
    job_log = _JOB_LOG.get() or JobLog()
    try:
        await job_log.wait_for_runs(job.follows)
        while True:
            job_log.begin_run(job)
            began = time.monotonic()
            result, returned = await _run_once(job, limited_log)
            job_log.end_run(JobRun(job, result, time.monotonic() - began))
            await asyncio.sleep(returned.seconds if isinstance(returned, Rest) else job.seconds)
    finally:
        job_log.remove_job(job)


async def _run_once(job: Job, limited_log: log.RateLimitedLog) -> tuple[JobResult, object]:
    """Run a job once. Return the outcome and the return value of its work."""
    returned: object = None

    async def work() -> None:
        nonlocal returned
        with trace(f"job {job.name}", of_request=False), giving_way() if job.gives_way else nullcontext():
            returned = await job.work()

    if not await run_guarded(limited_log, job.failure, work(), *job.expected):
        return JobResult.FAILED, None
    return (JobResult.STANDBY if returned is STANDBY else JobResult.SUCCEEDED), returned


async def run_exclusively(database: Database, name: str, work: Callable[[], Awaitable[object]]) -> object:
    """Run `work` under the lock of this name, or return STANDBY if another collector holds it.

    If the lock is lost during the run, the work is cancelled and LockLostError is raised.
    """
    async with acquire_lock(database, name) as lock:
        if not lock.is_ours:
            return STANDBY
        await _run_while_locked(lock, name, work)
        return None


async def _run_while_locked(lock: JobLock, name: str, work: Callable[[], Awaitable[object]]) -> None:
    failed: list[Exception] = []

    async def do() -> None:
        try:
            await work()
        except Exception as error:
            failed.append(error)

    tasks = Tasks()
    done, lost = tasks.start(name, do()), tasks.start(f"the lock of {name}", lock.wait_until_lost())
    try:
        await asyncio.wait((done, lost), return_when=asyncio.FIRST_COMPLETED)
    finally:
        is_lost = not done.done()
        await tasks.cancel()
    if is_lost:
        raise LockLostError(f"the lock of {name} is lost: {lost.result()}")
    if failed:
        raise failed[0]
