"""Jobs: work that is done again and again for as long as a process serves, whatever one run of it comes to.

Each run is in the `JobLog` that `report_runs` named in the context in which the job was started.
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
"""The most seconds that a job waits after a start for those that it follows."""


async def run_guarded(
    limited_log: log.RateLimitedLog, failed: str, work: Awaitable[object], *expected: type[Exception]
) -> bool:
    """Await `work`; whether it was done. Where not, `failed` is logged with the reason.

    The traceback is logged too, unless the database is away or it is one of the `expected` exceptions.
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
    """The return value of a job that rests for another time than usual."""

    seconds: float


class Job(NamedTuple):
    """Work that is done again and again."""

    name: str
    """Name in metrics, in lower case with hyphens."""
    seconds: float
    """The rest after each run, unless the work returns a `Rest`."""
    failure: str
    """Log message of a failed run."""
    work: Callable[[], Awaitable[object]]
    expected: tuple[type[Exception], ...] = ()
    """Errors that are logged without a traceback."""
    lock: str | None = None
    """The lock under which one collector of several runs the job; None where each runs it."""
    gives_way: bool = True
    """Whether it gives way to who waits for a page; not where somebody waits for the job itself."""
    holds_jobs: bool = False
    """Whether a run of it is other jobs, under its lock, and goes on until the lock is lost."""
    follows: tuple[str, ...] = ()
    """The names of the jobs whose first run after a start comes before that of this one, which needs their results."""


class JobRun(NamedTuple):
    """A run of a job that is over."""

    job: Job
    result: JobResult
    seconds: float


class JobStatus(NamedTuple):
    """The status of a job of this process. Times are Unix seconds, None where there was no such run yet."""

    job: Job
    running_since: float | None
    """The time at which the present run began; None where the job rests."""
    last: JobRun | None
    ended_at: float | None
    """The time at which the last run was over."""
    succeeded_at: float | None
    """The time at which a run was last over that succeeded."""


class JobLog:
    """The jobs of a process, and the last run of each; `on_run` is called with each run that is over."""

    def __init__(self, on_run: Callable[[JobRun], None] = lambda _: None) -> None:
        self._on_run = on_run
        self._statuses: dict[str, JobStatus] = {}
        self._run_ended = asyncio.Event()

    async def wait_for_runs(self, names: Collection[str]) -> None:
        """Wait until each of these jobs has had a run here, for FOLLOW_SECONDS: another collector may run them."""
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
        """Record that a run is over."""
        now, before = time.time(), self._statuses[run.job.name]
        succeeded_at = now if run.result is JobResult.SUCCEEDED else before.succeeded_at
        self._statuses[run.job.name] = JobStatus(run.job, None, run, now, succeeded_at)
        ended, self._run_ended = self._run_ended, asyncio.Event()
        ended.set()
        self._on_run(run)

    def remove_job(self, job: Job) -> None:
        """Forget a job that has ended, as where its lock is lost."""
        self._statuses.pop(job.name, None)

    def list_statuses(self) -> list[JobStatus]:
        """Return the status of each job, by name."""
        return [self._statuses[name] for name in sorted(self._statuses)]


STANDBY = object()
"""The return value of `run_exclusively` where another collector runs the job."""
_JOB_LOG: ContextVar[JobLog | None] = ContextVar("the log of the jobs of this context", default=None)


def report_runs(job_log: JobLog) -> None:
    """Record each run of the jobs that are started in this context from now on in this log."""
    _JOB_LOG.set(job_log)


async def repeat(job: Job, limited_log: log.RateLimitedLog) -> None:
    """Do a job with a rest after each run, until cancelled."""
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
    """Do a job once; return what the run came to, and what its work returned."""
    returned: object = None

    async def work() -> None:
        nonlocal returned
        with trace(f"job {job.name}", of_request=False), giving_way() if job.gives_way else nullcontext():
            returned = await job.work()

    if not await run_guarded(limited_log, job.failure, work(), *job.expected):
        return JobResult.FAILED, None
    return (JobResult.STANDBY if returned is STANDBY else JobResult.SUCCEEDED), returned


async def run_exclusively(database: Database, name: str, work: Callable[[], Awaitable[object]]) -> object:
    """Do `work` unless another collector holds the lock of this name now; return STANDBY where one does.

    Where the lock is lost meanwhile, the work is cancelled, and LockLostError raised.
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
