"""The collector itself."""

from pydantic import ConfigDict
from typing_extensions import TypedDict

from edgeproxy.collector.database.periodic import JobResult


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


class ApiDescription(TypedDict):
    """The description of the API, with all members of an OpenAPI document."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    openapi: str
    """The OpenAPI version of the description."""
